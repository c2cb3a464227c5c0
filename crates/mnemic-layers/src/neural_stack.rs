//! The continuous stack, queue and double-ended queue with what drives them: E. Grefenstette, K. M. Hermann, M. Suleyman, P. Blunsom, arXiv
//! 1506.02516 (2015), section 3.
//!
//! Letters: b batch, c width of what the controller gives, n rows so far, m width of a row, e ends (2 of a deque, else 1).

use std::collections::VecDeque;

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::activation::{sigmoid, tanh};
use mnemic_kernels::concat::{concat, split};
use mnemic_kernels::memory::stack::{Structure, read, step};

use crate::init::xavier_uniform;
use crate::{Context, Linear, linear};

/// A stack, queue or deque of vectors without bound, written and read by a controller.
///
/// From what the controller gives, `c_t`, each end gets the strength to push `d = σ(W_d c_t + b_d)`, to pop `u = σ(W_u c_t + b_u)` and the row `v = tanh(W_v c_t + b_v)`
/// (section 3.2); see [`step`] for what follows. `b_u` starts at -1, without which learning depends on the seed (appendix B).
///
/// Parameters: `push` and `pop` `(e, c)`, `value (e m, c)`, each with `weight` and `bias`; the top's come first.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, NeuralStack, ParamStore, Structure};
/// let store = ParamStore::new(0);
/// let stack = NeuralStack::new(Structure::Deque, 10, 4, store.builder(DType::F32, &Device::Cpu))?;
/// let mut state = stack.start(3)?;
/// stack.step(&Tensor::ones((3, 10), DType::F32, &Device::Cpu)?, &mut state, 0, &Context::eval())?;
/// assert_eq!((state.read.dims(), state.rows.len()), (&[3, 8][..], 2));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NeuralStack {
    structure: Structure,
    width: usize,
    push: Linear,
    pop: Linear,
    value: Linear,
}

/// What the stack holds. Rows are shared between the states of all steps.
#[derive(Debug, Clone)]
pub struct NeuralStackState {
    /// The strengths `(b, n)`, the bottom first.
    pub strengths: Tensor,
    /// The rows, `(b, m)` each, the bottom first.
    pub rows: VecDeque<Tensor>,
    /// What was read, `(b, e m)`: of a deque the top first.
    pub read: Tensor,
}

impl NeuralStack {
    /// A memory of rows of `width` for a controller that gives `controller_size` numbers.
    ///
    /// # Errors
    /// When a size is 0, or a parameter exists with another shape or type.
    pub fn new(
        structure: Structure,
        controller_size: usize,
        width: usize,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let (c, e) = (controller_size, structure.readings());
        if c == 0 || width == 0 {
            bail!("neural stack: expected positive sizes, got {c} and {width}");
        }
        let map = |to: usize, vb: VarBuilder<'_>| linear(c, to, true, xavier_uniform(c, to), vb);
        let pop = vb.pp("pop");
        let weight = pop.get_with_hints((e, c), "weight", xavier_uniform(c, e))?;
        let bias = pop.get_with_hints(e, "bias", Init::Const(-1.))?;
        Ok(Self {
            structure,
            width,
            push: map(e, vb.pp("push"))?,
            pop: Linear::new(weight, Some(bias)),
            value: map(e * width, vb.pp("value"))?,
        })
    }

    /// The structure.
    pub fn structure(&self) -> Structure {
        self.structure
    }

    /// The width of what is read in a step, `e m`.
    pub fn read_size(&self) -> usize {
        self.structure.readings() * self.width
    }

    /// The empty memory of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<NeuralStackState> {
        let (dtype, device): (DType, &Device) =
            (self.value.weight().dtype(), self.value.weight().device());
        Ok(NeuralStackState {
            strengths: Tensor::zeros((b, 0), dtype, device)?,
            rows: VecDeque::new(),
            read: Tensor::zeros((b, self.read_size()), dtype, device)?,
        })
    }

    /// A step in which the controller gave `hidden (b, c)`. `step` numbers what is watched: `commands` (push and pop of each end in turn, `(b, 2 e)`),
    /// `strengths (b, n)` and
    /// `read_weights (b, n)` (of a deque `read_weights_top` and `read_weights_bottom`).
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn step(
        &self,
        hidden: &Tensor,
        state: &mut NeuralStackState,
        number: usize,
        ctx: &Context,
    ) -> Result<()> {
        let commands = self.commands(hidden, number, ctx)?;
        let values = tanh(&self.value.forward(hidden)?)?;
        let next = step(self.structure, &state.strengths, &commands)?;
        match self.structure {
            Structure::Deque => {
                let ends = split(&values, &[self.width, self.width])?;
                let [top, bottom] = ends.as_slice() else {
                    bail!("neural stack: internal error: expected two rows")
                };
                state.rows.push_back(top.clone());
                state.rows.push_front(bottom.clone());
            }
            _ => state.rows.push_back(values),
        }
        let rows = state.rows.make_contiguous();
        let reads: Vec<Tensor> =
            next.weights.iter().map(|weights| read(weights, rows)).collect::<Result<_>>()?;
        state.read = if reads.len() == 1 { reads[0].clone() } else { concat(&reads)? };
        state.strengths = next.strengths;
        ctx.watch("strengths", number, || Ok(state.strengths.clone()))?;
        let names: &[&str] = match self.structure {
            Structure::Deque => &["read_weights_top", "read_weights_bottom"],
            _ => &["read_weights"],
        };
        for (name, weights) in names.iter().zip(next.weights) {
            ctx.watch(name, number, || Ok(weights))?;
        }
        Ok(())
    }

    /// Push and pop of each end in turn, `(b, 2 e)`.
    fn commands(&self, hidden: &Tensor, number: usize, ctx: &Context) -> Result<Tensor> {
        let (push, pop) = (self.push.forward(hidden)?, self.pop.forward(hidden)?);
        let commands = match self.structure {
            Structure::Deque => {
                let (push, pop) = (split(&push, &[1, 1])?, split(&pop, &[1, 1])?);
                let turns = push.into_iter().zip(pop).flat_map(|(push, pop)| [push, pop]);
                concat(&turns.collect::<Vec<_>>())?
            }
            _ => concat(&[push, pop])?,
        };
        let commands = sigmoid(&commands)?;
        ctx.watch("commands", number, || Ok(commands.clone()))?;
        Ok(commands)
    }
}
