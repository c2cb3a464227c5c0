//! Long short-term memory.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_kernels::recurrent::{lstm, lstm_step};

use super::stack::Stack;
use super::{RecurrentConfig, RecurrentInit};
use crate::Context;

/// Long short-term memory (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al.
/// 2000), gates i f g o, as PyTorch's `nn.LSTM`:
/// `c_t = f ∘ c_{t-1} + i ∘ g`, `h_t = o ∘ tanh(c_t)`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, Lstm, ParamStore, RecurrentConfig, RecurrentInit};
/// let store = ParamStore::new(0);
/// let init = RecurrentInit::orthogonal().with_gate_bias(1.);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let lstm = Lstm::with_init(RecurrentConfig::new(4, 8), init, vb)?;
/// let ctx = Context::eval();
/// let xs = Tensor::ones((2, 5, 4), DType::F32, &Device::Cpu)?;
/// let first = lstm.forward(&xs, None, None, &ctx)?;
/// let x = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
/// let next = lstm.step(&x, Some((&first.hidden, &first.cell)), &ctx)?;
/// assert_eq!(next.output.dims(), [2, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Lstm {
    stack: Stack,
}

/// What an [`Lstm`] gives back.
#[derive(Debug, Clone)]
pub struct RecurrentLstm {
    /// The last layer's hidden states, `(b, t, h · directions)`; `(b, h)` from `step`.
    pub output: Tensor,
    /// The hidden state of every layer and direction after the last step read,
    /// `(layers · directions, b, h)`.
    pub hidden: Tensor,
    /// The cell state of every layer and direction after the last step read,
    /// `(layers · directions, b, h)`.
    pub cell: Tensor,
}

impl Lstm {
    /// A stack with PyTorch's initial values.
    ///
    /// # Errors
    /// When a size is 0, dropout is no probability, or a parameter exists with another shape or
    /// type.
    pub fn new(config: RecurrentConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::with_init(config, RecurrentInit::pytorch(), vb)
    }

    /// A stack with chosen initial values; errors as [`Lstm::new`].
    pub fn with_init(
        config: RecurrentConfig,
        init: RecurrentInit,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { stack: Stack::new("lstm", 4, config, &init, &vb)? })
    }

    /// Runs over `xs` `(b, t, d)`, from `state` (hidden and cell, `(layers · directions, b, h)`
    /// each) or from zero, each row as long as `lengths` says.
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn forward(
        &self,
        xs: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
        lengths: Option<&[usize]>,
        ctx: &Context,
    ) -> Result<RecurrentLstm> {
        let state = state.map(|(h, c)| [h, c]);
        let (output, [hidden, cell]) =
            self.stack.run(xs, state, lengths, ctx, |xs, state, weights, steps| {
                let scan = lstm(xs, state.map(|[h, c]| (h, c)), weights, steps)?;
                Ok((scan.output, [scan.hidden, scan.cell]))
            })?;
        Ok(RecurrentLstm { output, hidden, cell })
    }

    /// One step on `xs` `(b, d)`, for decoding: the output is `(b, h)`. One direction only.
    ///
    /// # Errors
    /// When the shapes do not fit or the layer has two directions.
    pub fn step(
        &self,
        xs: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
        ctx: &Context,
    ) -> Result<RecurrentLstm> {
        let (xs, state) = (self.stack.one_step(xs)?, state.map(|(h, c)| [h, c]));
        let (output, [hidden, cell]) =
            self.stack.run(&xs, state, None, ctx, |xs, state, weights, _| {
                let state = state.map(|[h, c]| (h, c));
                let (hidden, cell) = lstm_step(&xs.squeeze(1)?, state, weights)?;
                Ok((hidden.unsqueeze(1)?, [hidden, cell]))
            })?;
        Ok(RecurrentLstm { output: output.squeeze(1)?, hidden, cell })
    }

    /// The sizes.
    pub fn config(&self) -> &RecurrentConfig {
        &self.stack.config
    }
}
