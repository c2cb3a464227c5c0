//! Which kernels do a scan.

use candle_core::Device;

use super::scan::{Kind, Sizes};

/// How the recurrent products of a scan are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Path {
    /// Every block holds all recurrent weights and reads rows of its own.
    Small(Small),
    /// Every block holds the weights of some units; all blocks wait for each other after every step.
    Grid(Grid),
    /// A product and a kernel a step.
    Steps,
}

/// How a scan over the whole grid is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Grid {
    /// Units a block.
    pub(super) units: usize,
    pub(super) blocks: usize,
    /// Warps that share a sum.
    pub(super) parts: usize,
    /// Bytes of shared memory.
    pub(super) shared: usize,
}

/// How a small scan is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Small {
    /// Threads that share a unit.
    pub(super) lanes: usize,
    /// Groups of four weights a thread and gate.
    pub(super) chunks: usize,
    pub(super) threads: usize,
    /// Rows a block.
    pub(super) rows: usize,
    /// Bytes of shared memory.
    pub(super) shared: usize,
}

/// The direction of a scan through its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

impl Pass {
    pub(super) fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
        }
    }
}

/// What a device offers.
struct Limits {
    multiprocessors: usize,
    /// Bytes of shared memory a block.
    shared: usize,
}

#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "emulation has no limits"))]
fn limits(device: &Device) -> Limits {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum as A;
        let stream = cuda.cuda_stream();
        // The least that a device from 8.0 on has, where it does not say.
        let get = |what, least| match stream.context().attribute(what) {
            Ok(n) if n > 0 => n.unsigned_abs() as usize,
            _ => least,
        };
        return Limits {
            multiprocessors: get(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16),
            shared: get(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 99 << 10),
        };
    }
    Limits { multiprocessors: 4, shared: 227 << 10 }
}

/// The path of a scan.
pub(super) fn choose(kind: Kind, pass: Pass, sizes: Sizes, device: &Device) -> Path {
    let limits = limits(device);
    let small = || small(kind, pass, sizes, &limits).map(Path::Small);
    let grid = || grid(kind, pass, sizes, &limits).map(Path::Grid);
    #[cfg(test)]
    match forced::get() {
        Some(forced::Way::Small) => return small().unwrap_or(Path::Steps),
        Some(forced::Way::Grid) => return grid().unwrap_or(Path::Steps),
        Some(forced::Way::Steps) => return Path::Steps,
        None => {}
    }
    small().or_else(grid).unwrap_or(Path::Steps)
}

/// Threads of a block of small scans, at most, as in the kernels.
const THREADS: usize = 512;

fn small(kind: Kind, pass: Pass, sizes: Sizes, limits: &Limits) -> Option<Small> {
    let Sizes { b, h, .. } = sizes;
    let (gates, held) = (kind.gates(), kind.chunks());
    // As few lanes as let all weights be held in registers; else as many as there are.
    let fitting = (0..4).map(|i| 1 << i).filter(|lanes| h * lanes <= THREADS);
    let chunks = |lanes: usize| h.div_ceil(4 * lanes);
    let lanes = fitting.clone().find(|&l| chunks(l) <= held).or_else(|| fitting.max())?;
    let rows = if b > limits.multiprocessors && lanes >= 4 { 4 } else { 1 };
    let (chunks, threads) = (chunks(lanes), (h * lanes).next_multiple_of(32));
    let vectors = match pass {
        Pass::Forward => 2 + usize::from(kind.resets_before()),
        Pass::Backward => 2 * gates,
    };
    let numbers = vectors * rows * 4 * lanes * chunks.max(held)
        + chunks.saturating_sub(held) * 4 * gates * threads;
    let shared = 4 * numbers;
    (shared <= limits.shared).then_some(Small { lanes, chunks, threads, rows, shared })
}

/// Warps of a block of scans over the whole grid, and the rows and columns that one multiplies at a time, as in the kernels.
const WARPS: usize = 16;
const TILE: (usize, usize) = (8, 4);
/// Past so many bytes that all blocks together read a step, products of their own are as fast.
const TRAFFIC: usize = 64 << 20;

fn grid(kind: Kind, pass: Pass, sizes: Sizes, limits: &Limits) -> Option<Grid> {
    let Sizes { b, h, .. } = sizes;
    if kind.resets_before() {
        return None;
    }
    let units = h.div_ceil(limits.multiprocessors);
    let blocks = h.div_ceil(units);
    let (columns, width) = match pass {
        Pass::Forward => (kind.gates() * units, h.next_multiple_of(4)),
        Pass::Backward => (units, kind.gates() * h.next_multiple_of(4)),
    };
    let tiles = b.div_ceil(TILE.0) * columns.div_ceil(TILE.1);
    let parts = (WARPS / tiles).clamp(1, width.div_ceil(128));
    let shared = 4 * (columns * width + 32 * tiles * parts + 2 * b * units);
    let fits = shared <= limits.shared && 4 * b * width * blocks <= TRAFFIC;
    fits.then_some(Grid { units, blocks, parts, shared })
}

/// Tests choose the path.
#[cfg(test)]
pub(in super::super) mod forced {
    use std::cell::Cell;

    #[derive(Debug, Clone, Copy)]
    pub(in super::super::super) enum Way {
        Small,
        Grid,
        Steps,
    }

    thread_local! {
        static WAY: Cell<Option<Way>> = const { Cell::new(None) };
    }

    pub(super) fn get() -> Option<Way> {
        WAY.get()
    }

    /// Scans on this thread go this way, where they can, until the next call.
    pub(in super::super::super) fn set(way: Option<Way>) {
        WAY.set(way);
    }
}
