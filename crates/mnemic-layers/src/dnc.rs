//! The memory of the Differentiable Neural Computer: A. Graves, G. Wayne, M. Reynolds et al., Nature 538, 471-476 (2016), Methods.
//!
//! Letters: b batch, c width of what the controller gives, n slots, w width of a slot, r read heads.

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::activation::sigmoid;
use mnemic_kernels::concat::split;
use mnemic_kernels::memory::dnc::{content_weights, read_weights, write_weights};
use mnemic_kernels::memory::{read, write};

use crate::init::xavier_uniform;
use crate::{Context, Linear, linear};

/// The sizes of a [`DncMemory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DncMemoryConfig {
    /// Width c of what the controller gives.
    pub controller_size: usize,
    /// Number n of slots.
    pub num_slots: usize,
    /// Width w of a slot.
    pub slot_width: usize,
    /// Number r of read heads.
    pub read_heads: usize,
}

/// Everything that the memory carries from step to step; all of it starts at 0.
#[derive(Debug, Clone)]
pub struct DncState {
    /// `(b, n, w)`.
    pub memory: Tensor,
    /// How much each slot is in use, `(b, n)`.
    pub usage: Tensor,
    /// How much each slot was the last one written, `(b, n)`.
    pub precedence: Tensor,
    /// `L[i, j]`: how much slot i was written right after slot j, `(b, n, n)`.
    pub link: Tensor,
    /// Where was written, `(b, n)`.
    pub write_weights: Tensor,
    /// Where was read, `(b, r, n)`.
    pub read_weights: Tensor,
    /// What was read, `(b, r w)`.
    pub read: Tensor,
}

/// A memory with one write head, which finds slots that are free or looks them up, and read heads, which look slots up or go through them in the order
/// they were written in, forward or backward.
///
/// A step: usage and allocation ([`write_weights`]), writing, links and reading ([`read_weights`]), so that reads see what has just been
/// written. The controller emits for each step `w r` numbers of read keys; `w` each of write key, what is erased (before σ) and what is written; `r` read strengths
/// and one for the write; `r` free gates, allocation gate and write gate; and 3 modes for each read head: `w r + 3 w + 5 r + 3` in all.
///
/// Parameters: `interface`, the map of the controller's output to these.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, DncMemory, DncMemoryConfig, ParamStore};
/// let config = DncMemoryConfig { controller_size: 10, num_slots: 16, slot_width: 4, read_heads: 2 };
/// let store = ParamStore::new(0);
/// let memory = DncMemory::new(config, store.builder(DType::F32, &Device::Cpu))?;
/// let state = memory.start(3)?;
/// let controller = Tensor::ones((3, 10), DType::F32, &Device::Cpu)?;
/// let state = memory.step(&controller, &state, 0, &Context::eval())?;
/// assert_eq!(state.read.dims(), [3, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DncMemory {
    config: DncMemoryConfig,
    interface: Linear,
}

impl DncMemory {
    /// A memory with parameters from `vb`.
    ///
    /// # Errors
    /// When a size is 0, or a parameter exists with another shape or type.
    pub fn new(config: DncMemoryConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let DncMemoryConfig { controller_size: c, num_slots: n, slot_width: w, read_heads: r } =
            config;
        if [c, n, w, r].contains(&0) {
            bail!("dnc memory: expected positive sizes, got {config:?}");
        }
        let out = w * r + 3 * w + 5 * r + 3;
        let interface = linear(c, out, true, xavier_uniform(c, out), vb.pp("interface"))?;
        Ok(Self { config, interface })
    }

    /// The sizes.
    pub fn config(&self) -> &DncMemoryConfig {
        &self.config
    }

    /// The state before the first step of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<DncState> {
        let DncMemoryConfig { num_slots: n, slot_width: w, read_heads: r, .. } = self.config;
        let weight = self.interface.weight();
        let (dtype, device): (DType, &Device) = (weight.dtype(), weight.device());
        let zeros = |dims: &[usize]| Tensor::zeros(dims, dtype, device);
        Ok(DncState {
            memory: zeros(&[b, n, w])?,
            usage: zeros(&[b, n])?,
            precedence: zeros(&[b, n])?,
            link: zeros(&[b, n, n])?,
            write_weights: zeros(&[b, n])?,
            read_weights: zeros(&[b, r, n])?,
            read: zeros(&[b, r * w])?,
        })
    }

    /// The state after a step in which the controller gave `hidden (b, c)`. `step` numbers what is watched: `read_weights (b, r, n)`; `write_weights`,
    /// `usage` and `allocation`, `(b, 1, n)` each; `link (b, n, n)` and `memory (b, n, w)`; and, before their σ and softmax, `gates (b, r + 2)`
    /// and `read_modes (b, r, 3)`.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn step(
        &self,
        hidden: &Tensor,
        state: &DncState,
        step: usize,
        ctx: &Context,
    ) -> Result<DncState> {
        let DncMemoryConfig { num_slots: n, slot_width: w, read_heads: r, .. } = self.config;
        let (b, _) = hidden.dims2()?;
        let parts = split(&self.interface.forward(hidden)?, &[r * w, w, w, w, r, 1, r + 2, 3 * r])?;
        let [read_keys, write_key, erase, add, read_strengths, write_strength, gates, modes] =
            parts.as_slice()
        else {
            bail!("dnc memory: internal error: expected eight parts")
        };
        let row = |t: &Tensor| t.reshape((b, 1, w));
        let content = content_weights(&state.memory, &row(write_key)?, write_strength)?;
        let written = write_weights(
            &state.usage,
            &state.write_weights,
            &state.read_weights,
            &content.reshape((b, n))?,
            gates,
        )?;
        let one = |t: &Tensor| t.reshape((b, 1, n));
        let erase = row(&sigmoid(erase)?)?;
        let memory = write(&state.memory, &one(&written.weights)?, &erase, &row(add)?)?;
        let content = content_weights(&memory, &read_keys.reshape((b, r, w))?, read_strengths)?;
        let modes = modes.reshape((b, r, 3))?;
        let reading = read_weights(
            &state.link,
            &state.precedence,
            &written.weights,
            &state.read_weights,
            &content,
            &modes,
        )?;
        let read = read(&memory, &reading.weights)?.reshape((b, r * w))?;
        ctx.watch("read_weights", step, || Ok(reading.weights.clone()))?;
        ctx.watch("write_weights", step, || one(&written.weights))?;
        ctx.watch("usage", step, || one(&written.usage))?;
        ctx.watch("allocation", step, || one(&written.allocation))?;
        ctx.watch("gates", step, || Ok(gates.clone()))?;
        ctx.watch("read_modes", step, || Ok(modes.clone()))?;
        ctx.watch("link", step, || Ok(reading.link.clone()))?;
        ctx.watch("memory", step, || Ok(memory.clone()))?;
        Ok(DncState {
            memory,
            usage: written.usage,
            precedence: reading.precedence,
            link: reading.link,
            write_weights: written.weights,
            read_weights: reading.weights,
            read,
        })
    }
}
