//! The layers whose state is one vector: RNN and GRU.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_kernels::recurrent::{Nonlinearity, Reset, gru, rnn};

use super::stack::Stack;
use super::{Recurrent, RecurrentConfig, RecurrentInit};
use crate::Context;

/// Elman's recurrent network (1990), `h_t = φ(W x_t + b + U h_{t-1} + c)`, as PyTorch's `nn.RNN`.
#[derive(Debug, Clone)]
pub struct Rnn {
    stack: Stack,
    nonlinearity: Nonlinearity,
}

impl Rnn {
    /// A stack with PyTorch's initial values.
    ///
    /// # Errors
    /// When a size is 0, dropout is no probability, or a parameter exists with another shape or
    /// type.
    pub fn new(
        config: RecurrentConfig,
        nonlinearity: Nonlinearity,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Self::with_init(config, nonlinearity, RecurrentInit::pytorch(), vb)
    }

    /// A stack with chosen initial values; errors as [`Rnn::new`].
    pub fn with_init(
        config: RecurrentConfig,
        nonlinearity: Nonlinearity,
        init: RecurrentInit,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { stack: Stack::new("rnn", 1, config, &init, &vb)?, nonlinearity })
    }

    /// Runs over `xs` `(b, t, d)`, from `state` `(layers · directions, b, h)` or from zero, each
    /// row as long as `lengths` says.
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn forward(
        &self,
        xs: &Tensor,
        state: Option<&Tensor>,
        lengths: Option<&[usize]>,
        ctx: &Context,
    ) -> Result<Recurrent> {
        let phi = self.nonlinearity;
        let (output, [state]) =
            self.stack.run(xs, state.map(|s| [s]), lengths, ctx, |xs, h0, weights, steps| {
                let scan = rnn(xs, h0.map(|[h]| h), weights, phi, steps)?;
                Ok((scan.output, [scan.state]))
            })?;
        Ok(Recurrent { output, state })
    }

    /// One step on `xs` `(b, d)`, for decoding: the output is `(b, h)`. One direction only.
    ///
    /// # Errors
    /// When the shapes do not fit or the layer has two directions.
    pub fn step(&self, xs: &Tensor, state: Option<&Tensor>, ctx: &Context) -> Result<Recurrent> {
        squeeze(self.forward(&self.stack.one_step(xs)?, state, None, ctx)?)
    }

    /// The sizes.
    pub fn config(&self) -> &RecurrentConfig {
        &self.stack.config
    }
}

/// The gated recurrent unit (Cho et al. 2014), gates r z n, as PyTorch's `nn.GRU`:
/// `h_t = (1 - z) ∘ n + z ∘ h_{t-1}` with `n = tanh(W_n x_t + b_n + r ∘ (U_n h_{t-1} + c_n))`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, Gru, ParamStore, RecurrentConfig};
/// let store = ParamStore::new(0);
/// let cfg = RecurrentConfig { bidirectional: true, ..RecurrentConfig::new(4, 8) };
/// let gru = Gru::new(cfg, store.builder(DType::F32, &Device::Cpu).pp("reader"))?;
/// let xs = Tensor::ones((2, 5, 4), DType::F32, &Device::Cpu)?;
/// let out = gru.forward(&xs, None, Some(&[5, 3]), &Context::eval())?;
/// assert_eq!((out.output.dims(), out.state.dims()), (&[2, 5, 16][..], &[2, 2, 8][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gru {
    stack: Stack,
    reset: Reset,
}

impl Gru {
    /// A stack with PyTorch's initial values.
    ///
    /// # Errors
    /// When a size is 0, dropout is no probability, or a parameter exists with another shape or
    /// type.
    pub fn new(config: RecurrentConfig, vb: VarBuilder<'_>) -> Result<Self> {
        Self::with_init(config, RecurrentInit::pytorch(), vb)
    }

    /// A stack with chosen initial values; errors as [`Gru::new`].
    pub fn with_init(
        config: RecurrentConfig,
        init: RecurrentInit,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { stack: Stack::new("gru", 3, config, &init, &vb)?, reset: Reset::After })
    }

    /// The same layer with its reset gate where `reset` says; [`Reset::Before`] is that of Cho et
    /// al. 2014. Weights of one form do not fit the other.
    pub fn with_reset(self, reset: Reset) -> Self {
        Self { reset, ..self }
    }

    /// Runs over `xs` `(b, t, d)`, from `state` `(layers · directions, b, h)` or from zero, each
    /// row as long as `lengths` says.
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn forward(
        &self,
        xs: &Tensor,
        state: Option<&Tensor>,
        lengths: Option<&[usize]>,
        ctx: &Context,
    ) -> Result<Recurrent> {
        let (output, [state]) =
            self.stack.run(xs, state.map(|s| [s]), lengths, ctx, |xs, h0, weights, steps| {
                let scan = gru(xs, h0.map(|[h]| h), weights, self.reset, steps)?;
                Ok((scan.output, [scan.state]))
            })?;
        Ok(Recurrent { output, state })
    }

    /// [`Gru::forward`] from a state of zeros, with the outputs of the last layer's directions
    /// apart, `(b, t, h)` each.
    ///
    /// # Errors
    /// As [`Gru::forward`].
    pub fn forward_apart(
        &self,
        xs: &Tensor,
        lengths: Option<&[usize]>,
        ctx: &Context,
    ) -> Result<Vec<Tensor>> {
        let (outputs, _) =
            self.stack.run_apart(xs, None, lengths, ctx, |xs, h0, weights, steps| {
                let scan = gru(xs, h0.map(|[h]: &[Tensor; 1]| h), weights, self.reset, steps)?;
                Ok((scan.output, [scan.state]))
            })?;
        Ok(outputs)
    }

    /// One step on `xs` `(b, d)`, for decoding: the output is `(b, h)`. One direction only.
    ///
    /// # Errors
    /// When the shapes do not fit or the layer has two directions.
    pub fn step(&self, xs: &Tensor, state: Option<&Tensor>, ctx: &Context) -> Result<Recurrent> {
        squeeze(self.forward(&self.stack.one_step(xs)?, state, None, ctx)?)
    }

    /// The sizes.
    pub fn config(&self) -> &RecurrentConfig {
        &self.stack.config
    }
}

fn squeeze(out: Recurrent) -> Result<Recurrent> {
    Ok(Recurrent { output: out.output.squeeze(1)?, state: out.state })
}
