//! The CUDA path for f32: one launch changes many parameters. Those of f64 go on to the plain twins.

use std::cell::RefCell;
use std::collections::HashSet;

use candle_core::{DType, Device, DeviceLocation, Result, Tensor};

use super::Gradient;
use super::cpu::address;
use crate::cuda::{Launch, TABLE, empty, emulating};

/// Numbers of a parameter that one block takes, as in the kernels.
const CHUNK: usize = 4096;
/// Constants of a rule.
const CONSTANTS: usize = 8;
const STATES: usize = 3;

/// Whether the kernels can take a tensor.
pub(super) fn can(t: &Tensor) -> bool {
    let there = matches!(t.device(), Device::Cuda(_)) || (t.device().is_cpu() && emulating());
    there && t.dtype() == DType::F32
}

/// One parameter's step.
#[derive(Debug)]
struct Step {
    key: Key,
    scale: f32,
    param: Tensor,
    grad: Tensor,
    states: Vec<Tensor>,
}

/// What the parameters of a launch have in common. The constants are bits of f32.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    kernel: &'static str,
    constants: [u32; CONSTANTS],
    device: DeviceLocation,
}

/// Steps that wait for others, with the memory that they write and read.
#[derive(Debug, Default)]
struct Held {
    steps: Vec<Step>,
    written: HashSet<usize>,
    read: HashSet<usize>,
}

impl Held {
    /// Whether one of the steps writes or reads what is to be written, or writes what is to be read.
    fn clashes(&self, targets: &[usize], source: usize) -> bool {
        let touched = |t: &usize| self.written.contains(t) || self.read.contains(t);
        targets.iter().any(touched) || self.written.contains(&source)
    }
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Runs `f`, whose steps wait until it is done.
pub(super) fn together<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    struct Close;
    impl Drop for Close {
        fn drop(&mut self) {
            HELD.set(None);
        }
    }
    if HELD.with_borrow(Option::is_some) {
        return f();
    }
    HELD.set(Some(Held::default()));
    let close = Close;
    let result = f();
    // What was done before an error stays done.
    let held = HELD.take().unwrap_or_default();
    drop(close);
    run(held.steps)?;
    result
}

/// Changes `param` and `states` by a kernel, now or with others.
pub(super) fn step(
    kernel: &'static str,
    constants: &[f64],
    param: &Tensor,
    grad: Gradient<'_>,
    states: &[&Tensor],
) -> Result<()> {
    let targets: Vec<usize> = states.iter().chain([&param]).map(|t| address(t)).collect();
    let source = address(grad.tensor);
    // What reads or writes memory that a held step is to write comes after it.
    let before = HELD.with_borrow_mut(|held| match held {
        Some(held) if held.clashes(&targets, source) => std::mem::take(held).steps,
        _ => vec![],
    });
    run(before)?;
    let g = grad.tensor.detach();
    let g = if targets.contains(&source) { g.force_contiguous()? } else { g.contiguous()? };
    let mut bits = [0; CONSTANTS];
    bits.iter_mut().zip(constants).for_each(|(to, c)| *to = (*c as f32).to_bits());
    let step = Step {
        key: Key { kernel, constants: bits, device: param.device().location() },
        scale: grad.scale as f32,
        param: param.detach(),
        grad: g,
        states: states.iter().map(|t| t.detach()).collect(),
    };
    let now = HELD.with_borrow_mut(|held| {
        let Some(held) = held else { return vec![step] };
        held.written.extend(targets);
        held.read.insert(address(&step.grad));
        held.steps.push(step);
        vec![]
    });
    run(now)
}

/// Starts the kernels of all steps, which write different memory.
fn run(mut steps: Vec<Step>) -> Result<()> {
    while let Some(key) = steps.first().map(|s| s.key) {
        let (now, later): (Vec<_>, Vec<_>) = steps.into_iter().partition(|s| s.key == key);
        for steps in now.chunks(TABLE) {
            launch(key, steps)?;
        }
        steps = later;
    }
    Ok(())
}

fn launch(key: Key, steps: &[Step]) -> Result<()> {
    let Some(first) = steps.first() else { return Ok(()) };
    let (ends, sizes) = shares(steps.iter().map(|s| &s.param));
    let mut launch = Launch::new("optimizer", format!("optimizer_{}", key.kernel))
        .grid(ends.last().copied().unwrap_or(0) as usize, 1, 1)
        .block(256)
        .table(steps.iter().map(|s| Some(&s.param)))?
        .table(steps.iter().map(|s| Some(&s.grad)))?;
    for i in 0..STATES {
        launch = launch.table(steps.iter().map(|s| s.states.get(i)))?;
    }
    let scales = steps.iter().map(|s| u64::from(s.scale.to_bits()));
    launch = launch.numbers(ends).numbers(sizes).numbers(scales).int(steps.len())?;
    for bits in key.constants {
        launch = launch.float(f64::from(f32::from_bits(bits)));
    }
    launch.run(first.param.device())
}

/// At which block each tensor ends, and its numbers.
fn shares<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> (Vec<u64>, Vec<u64>) {
    let mut end = 0;
    let share = |t: &Tensor| {
        let n = t.elem_count();
        end += n.div_ceil(CHUNK) as u64;
        (end, n as u64)
    };
    tensors.map(share).unzip()
}

/// The sums of squares of contiguous tensors on one device: a launch for every 32, and all parts read back at once.
pub(super) fn sums_of_squares(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(vec![]) };
    let blocks = |t: &Tensor| t.elem_count().div_ceil(CHUNK);
    let total: usize = tensors.iter().map(blocks).sum();
    if total == 0 {
        return Ok(vec![0.; tensors.len()]);
    }
    let parts = empty(total, DType::F64, first.device())?;
    let mut start = 0;
    for tensors in tensors.chunks(TABLE) {
        let (ends, sizes) = shares(tensors.iter());
        let count = ends.last().copied().unwrap_or(0) as usize;
        if count == 0 {
            continue;
        }
        Launch::new("optimizer", "optimizer_squares")
            .grid(count, 1, 1)
            .block(256)
            .table(tensors.iter().map(Some))?
            .numbers(ends)
            .numbers(sizes)
            .tensor(&parts.narrow(0, start, count)?)
            .int(tensors.len())?
            .run(first.device())?;
        start += count;
    }
    let parts = parts.to_vec1::<f64>()?;
    let mut parts = parts.into_iter();
    Ok(tensors.iter().map(|t| parts.by_ref().take(blocks(t)).sum()).collect())
}
