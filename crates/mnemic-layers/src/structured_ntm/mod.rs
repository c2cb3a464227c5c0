//! Memories of two layers for the Neural Turing Machine, after W. Zhang, Y. Yu, B. Zhou, "Structured Memory for Neural Turing Machines", arXiv 1510.03931
//! (2015).
//!
//! Letters: b batch, c width of what the controller gives, n slots, w width of a slot, k write heads (one a layer that is written), a share of what is
//! kept.

#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::activation::{sigmoid, tanh};
use mnemic_kernels::concat::split;
use mnemic_kernels::memory::{address, blend, num_controls, read, write};
use mnemic_kernels::softmax::softmax;

use crate::init::xavier_uniform;
use crate::{Context, Linear, linear};

/// How the two layers of a [`StructuredMemory`] hang together. `h` is a head's write: erase, then add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryStructure {
    /// The heads write one layer, `M¹ ← h(M¹)`; a hidden one behind it follows slowly, `M² ← a M² + (1 - a) M¹`.
    Ntm1,
    /// The second layer mixes the first in and has a write head of its own: `M¹ ← h¹(M¹)`, `M² ← h²(a M² + (1 - a) M¹)`.
    Ntm2,
    /// Each layer mixes the other in before it is written: `M¹ ← h¹(a₁ M¹ + (1 - a₁) M²)`, `M² ← h²(a₂ M² + (1 - a₂) M¹)`, the latter with the new `M¹`.
    Ntm3,
}

impl MemoryStructure {
    /// The write heads: one a layer that is written.
    pub fn write_heads(self) -> usize {
        if self == Self::Ntm1 { 1 } else { 2 }
    }

    /// The shares `a`.
    fn shares(self) -> usize {
        if self == Self::Ntm3 { 2 } else { 1 }
    }
}

/// The sizes of a [`StructuredMemory`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StructuredMemoryConfig {
    /// How the layers hang together.
    pub structure: MemoryStructure,
    /// Width c of what the controller gives.
    pub controller_size: usize,
    /// Number n of slots of each layer.
    pub num_slots: usize,
    /// Width w of a slot.
    pub slot_width: usize,
    /// The largest shift of a weighting in one step.
    pub max_shift: usize,
    /// All shares `a`, in [0, 1]; `None`: they are learnt, from ½.
    pub share: Option<f64>,
}

/// Everything that the memory carries from step to step.
#[derive(Debug, Clone)]
pub struct StructuredState {
    /// The two layers, `(b, n, w)` each; the second is read.
    pub memory: [Tensor; 2],
    /// The weighting of the reading, `(b, 1, n)`.
    pub read_weights: Tensor,
    /// The weightings of the write heads, `(b, 1, n)` each.
    pub write_weights: Vec<Tensor>,
    /// What was read, `(b, w)`.
    pub read: Tensor,
}

/// A memory of two layers with a read head and one or two write heads.
///
/// In a step each write head finds its weighting on the layer that it writes, as it was (see [`address`]); the layers are mixed and written; then the read head finds its
/// weighting on the second layer as it is now, and reads. Both layers start at 1e-6 everywhere; what was read and the weightings before the first step are learnt.
///
/// Only the abstract of the paper is certain. The equations are this crate's own, made to agree with its outline, and are not to be taken for
/// the authors'.
///
/// Parameters: `read_head` and `write_head.{k}` (the maps of the controller's output to what a head emits), `read (1, w)`, `weights (1 + k, n)` (before `tanh` and
/// the softmax; the read head's first), and, where they are learnt, `share (1)` or `share.{l} (1)` before σ.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, MemoryStructure, ParamStore, StructuredMemory, StructuredMemoryConfig};
/// let config = StructuredMemoryConfig {
///     structure: MemoryStructure::Ntm2, controller_size: 10, num_slots: 16, slot_width: 4, max_shift: 1, share: None,
/// };
/// let store = ParamStore::new(0);
/// let memory = StructuredMemory::new(config, store.builder(DType::F32, &Device::Cpu))?;
/// let state = memory.start(3)?;
/// let controller = Tensor::ones((3, 10), DType::F32, &Device::Cpu)?;
/// let state = memory.step(&controller, &state, 0, &Context::eval())?;
/// assert_eq!(state.read.dims(), [3, 4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StructuredMemory {
    config: StructuredMemoryConfig,
    read_head: Linear,
    write_heads: Vec<Linear>,
    read: Tensor,
    weights: Tensor,
    shares: Vec<Share>,
}

#[derive(Debug, Clone)]
enum Share {
    /// Before σ.
    Learnt(Tensor),
    Fixed(Tensor),
}

impl Share {
    fn value(&self) -> Result<Tensor> {
        match self {
            Self::Learnt(raw) => sigmoid(raw),
            Self::Fixed(share) => Ok(share.clone()),
        }
    }
}

/// What a head gives before it is at its layer: its controls `(b, 1, …)`, and what it erases and adds, `(b, 1, w)`.
struct Head {
    controls: Tensor,
    erase: Tensor,
    add: Tensor,
}

/// The number that the memory starts from.
const START: f64 = 1e-6;

impl StructuredMemory {
    /// A memory with parameters from `vb`.
    ///
    /// # Errors
    /// When a size or the share makes no sense, or a parameter exists with another shape or type.
    pub fn new(config: StructuredMemoryConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let StructuredMemoryConfig { controller_size: c, num_slots: n, slot_width: w, .. } = config;
        let bad_share = config.share.is_some_and(|share| !(0. ..=1.).contains(&share));
        if [c, n, w].contains(&0) || config.max_shift >= n || bad_share {
            bail!(
                "structured memory: expected positive sizes, a shift below the slots and a share from 0 to 1, got {config:?}"
            );
        }
        let controls = num_controls(w, config.max_shift);
        let heads = config.structure.write_heads();
        let head = |out, vb| linear(c, out, true, xavier_uniform(c, out), vb);
        let start = |rows, width, name| {
            vb.get_with_hints((rows, width), name, Init::Randn { mean: 0., stdev: 0.1 })
        };
        let share = |l: usize| match config.share {
            Some(share) => {
                let share = Tensor::full(share, 1, vb.device())?.to_dtype(vb.dtype())?;
                Ok(Share::Fixed(share))
            }
            None => {
                let vb = vb.pp("share");
                let raw = vb.get_with_hints(1, &l.to_string(), Init::Const(0.))?;
                Ok::<_, candle_core::Error>(Share::Learnt(raw))
            }
        };
        Ok(Self {
            config,
            read_head: head(controls, vb.pp("read_head"))?,
            write_heads: (0..heads)
                .map(|k| head(controls + 2 * w, vb.pp("write_head").pp(k)))
                .collect::<Result<_>>()?,
            read: start(1, w, "read")?,
            weights: start(1 + heads, n, "weights")?,
            shares: (0..config.structure.shares()).map(share).collect::<Result<_>>()?,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &StructuredMemoryConfig {
        &self.config
    }

    /// The shares `a`, `(1)` each.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn shares(&self) -> Result<Vec<Tensor>> {
        self.shares.iter().map(Share::value).collect()
    }

    /// The state before the first step of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<StructuredState> {
        let StructuredMemoryConfig { num_slots: n, slot_width: w, .. } = self.config;
        let heads = 1 + self.write_heads.len();
        let (dtype, device): (DType, &Device) = (self.read.dtype(), self.read.device());
        // A product with ones repeats a row, and passes its gradient on without candle's broadcast.
        let ones = Tensor::ones((b, 1), dtype, device)?;
        let repeat = |row: Tensor| Linear::new(row.reshape(((), 1))?, None).forward(&ones);
        let weights = repeat(softmax(&self.weights)?)?; // (b, heads n)
        let weights = split(&weights, &vec![n; heads])?;
        let mut weights = weights.iter().map(|w| w.reshape((b, 1, n)));
        let Some(read_weights) = weights.next().transpose()? else {
            bail!("structured memory: internal error: no read head")
        };
        let empty = Tensor::full(START, (b, n, w), device)?.to_dtype(dtype)?;
        Ok(StructuredState {
            memory: [empty.clone(), empty],
            read_weights,
            write_weights: weights.collect::<Result<_>>()?,
            read: repeat(tanh(&self.read)?)?,
        })
    }

    /// The state after a step in which the controller gave `hidden (b, c)`. `step` numbers what is watched: `read_weights` and `write_weights`, `(b, 1, n)` and `(b, k,
    /// n)`; `memory`, the layer that is read.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn step(
        &self,
        hidden: &Tensor,
        state: &StructuredState,
        step: usize,
        ctx: &Context,
    ) -> Result<StructuredState> {
        let StructuredMemoryConfig { max_shift, slot_width: w, .. } = self.config;
        let (b, _) = hidden.dims2()?;
        let heads = self.write_heads.iter().map(|head| self.head(head, hidden));
        let heads = heads.collect::<Result<Vec<Head>>>()?;
        let layers = state.memory.iter().zip(&state.write_weights).zip(&heads);
        let find = |((memory, before), head): ((&Tensor, &Tensor), &Head)| {
            address(memory, before, &head.controls, max_shift)
        };
        let write_weights = layers.map(find).collect::<Result<Vec<Tensor>>>()?;
        let memory = self.written(&state.memory, &write_weights, &heads)?;
        let controls = self.read_head.forward(hidden)?.unsqueeze(1)?;
        let read_weights = address(&memory[1], &state.read_weights, &controls, max_shift)?;
        let read = read(&memory[1], &read_weights)?.reshape((b, w))?;
        ctx.watch("read_weights", step, || Ok(read_weights.clone()))?;
        ctx.watch("write_weights", step, || Tensor::cat(&write_weights, 1))?;
        ctx.watch("memory", step, || Ok(memory[1].clone()))?;
        Ok(StructuredState { memory, read_weights, write_weights, read })
    }

    fn head(&self, head: &Linear, hidden: &Tensor) -> Result<Head> {
        let w = self.config.slot_width;
        let controls = num_controls(w, self.config.max_shift);
        let parts = split(&head.forward(hidden)?, &[controls, w, w])?;
        let [controls, erase, add] = parts.as_slice() else {
            bail!("structured memory: internal error: expected three parts")
        };
        Ok(Head {
            controls: controls.unsqueeze(1)?,
            erase: sigmoid(erase)?.unsqueeze(1)?,
            add: tanh(add)?.unsqueeze(1)?,
        })
    }

    /// Both layers after the step.
    fn written(
        &self,
        [first, second]: &[Tensor; 2],
        weights: &[Tensor],
        heads: &[Head],
    ) -> Result<[Tensor; 2]> {
        let shares = self.shares()?;
        let by = |k: usize, memory: &Tensor| match (heads.get(k), weights.get(k)) {
            (Some(head), Some(weights)) => write(memory, weights, &head.erase, &head.add),
            _ => bail!("structured memory: internal error: no write head {k}"),
        };
        let first = match (self.config.structure, shares.as_slice()) {
            (MemoryStructure::Ntm3, [share, _]) => by(0, &blend(first, second, share)?)?,
            _ => by(0, first)?,
        };
        let Some(share) = shares.last() else {
            bail!("structured memory: internal error: no share")
        };
        let mixed = blend(second, &first, share)?;
        let second = match self.config.structure {
            MemoryStructure::Ntm1 => mixed,
            _ => by(1, &mixed)?,
        };
        Ok([first, second])
    }
}
