//! The memory of the Neural Turing Machine: A. Graves, G. Wayne, I. Danihelka, arXiv 1410.5401, section 3.
//!
//! Letters: b batch, c width of what the controller gives, n slots, w width of a slot, r read heads, k write heads.

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::activation::tanh;
use mnemic_kernels::memory::{self, num_controls};
use mnemic_kernels::softmax::softmax;

use crate::init::xavier_uniform;
use crate::{Context, Linear, linear};

/// The sizes of an [`NtmMemory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NtmMemoryConfig {
    /// Width c of what the controller gives.
    pub controller_size: usize,
    /// Number n of slots.
    pub num_slots: usize,
    /// Width w of a slot.
    pub slot_width: usize,
    /// Number r of read heads.
    pub read_heads: usize,
    /// Number k of write heads.
    pub write_heads: usize,
    /// The largest shift S of a weighting in one step.
    pub max_shift: usize,
}

/// Everything that the memory carries from step to step.
#[derive(Debug, Clone)]
pub struct NtmState {
    /// `(b, n, w)`.
    pub memory: Tensor,
    /// The weightings of the read heads, then of the write heads, `(b, r + k, n)`.
    pub weights: Tensor,
    /// What was read, `(b, r w)`.
    pub read: Tensor,
}

/// A memory with read and write heads.
///
/// In a step all heads find their weightings on the memory as it was (see [`memory::step`]); the read heads read it; then the write heads erase and
/// add. The paper leaves this order open; it is that of Collier and Beel 2018. The memory starts at 1e-6 everywhere, the scheme that
/// converged best there; what was read and the weightings before the first step are learnt.
///
/// Parameters: `heads` (the map of the controller's output to what all heads emit), `read (r, w)` and `weights (r + k, n)` (before `tanh` and the
/// softmax).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, NtmMemory, NtmMemoryConfig, ParamStore};
/// let config = NtmMemoryConfig {
///     controller_size: 10, num_slots: 16, slot_width: 4, read_heads: 1, write_heads: 1, max_shift: 1,
/// };
/// let store = ParamStore::new(0);
/// let memory = NtmMemory::new(config, store.builder(DType::F32, &Device::Cpu))?;
/// let state = memory.start(3)?;
/// let controller = Tensor::ones((3, 10), DType::F32, &Device::Cpu)?;
/// let state = memory.step(&controller, &state, 0, &Context::eval())?;
/// assert_eq!(state.read.dims(), [3, 4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NtmMemory {
    config: NtmMemoryConfig,
    heads: Linear,
    read: Tensor,
    weights: Tensor,
}

/// The number that the memory starts from.
const START: f64 = 1e-6;

impl NtmMemory {
    /// A memory with parameters from `vb`.
    ///
    /// # Errors
    /// When a size is 0 or the shift goes round the memory, or a parameter exists with another shape or type.
    pub fn new(config: NtmMemoryConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let NtmMemoryConfig { controller_size: c, num_slots: n, slot_width: w, .. } = config;
        let NtmMemoryConfig { read_heads: r, write_heads: k, max_shift, .. } = config;
        if [c, n, w, r, k].contains(&0) || max_shift >= n {
            bail!(
                "ntm memory: expected positive sizes and a shift below the slots, got {config:?}"
            );
        }
        let out = (r + k) * num_controls(w, max_shift) + 2 * k * w;
        let start = |rows, width, name| {
            vb.get_with_hints((rows, width), name, Init::Randn { mean: 0., stdev: 0.1 })
        };
        Ok(Self {
            config,
            heads: linear(c, out, true, xavier_uniform(c, out), vb.pp("heads"))?,
            read: start(r, w, "read")?,
            weights: start(r + k, n, "weights")?,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &NtmMemoryConfig {
        &self.config
    }

    /// The state before the first step of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<NtmState> {
        let NtmMemoryConfig { num_slots: n, slot_width: w, read_heads: r, write_heads: k, .. } =
            self.config;
        let (dtype, device): (DType, &Device) = (self.read.dtype(), self.read.device());
        // A product with ones repeats a row, and passes its gradient on without candle's broadcast.
        let ones = Tensor::ones((b, 1), dtype, device)?;
        let repeat = |row: Tensor| Linear::new(row.reshape(((), 1))?, None).forward(&ones);
        let read = repeat(tanh(&self.read)?)?; // (b, r w)
        let weights = repeat(softmax(&self.weights)?)?.reshape((b, r + k, n))?;
        Ok(NtmState {
            memory: Tensor::full(START, (b, n, w), device)?.to_dtype(dtype)?,
            weights,
            read,
        })
    }

    /// The state after a step in which the controller gave `hidden (b, c)`. `step` numbers what is watched: `read_weights` and
    /// `write_weights`, one row a head, `(b, heads, n)`, and `memory`.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn step(
        &self,
        hidden: &Tensor,
        state: &NtmState,
        step: usize,
        ctx: &Context,
    ) -> Result<NtmState> {
        let NtmMemoryConfig { slot_width: w, read_heads: r, write_heads: k, max_shift, .. } =
            self.config;
        let (b, _) = hidden.dims2()?;
        let emitted = self.heads.forward(hidden)?;
        let done = memory::step(&state.memory, &state.weights, &emitted, (r, k), max_shift)?;
        ctx.watch("read_weights", step, || done.weights.narrow(1, 0, r))?;
        ctx.watch("write_weights", step, || done.weights.narrow(1, r, k))?;
        ctx.watch("memory", step, || Ok(done.memory.clone()))?;
        let read = done.read.reshape((b, r * w))?;
        Ok(NtmState { memory: done.memory, weights: done.weights, read })
    }
}
