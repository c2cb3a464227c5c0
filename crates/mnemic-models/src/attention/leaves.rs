//! The encoder of single vectors that models of attention over a sequence start with.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{LayerNorm, LayerNormConfig, Linear, concat, init, linear};

/// `e_t = LN(W [x_t; x_{t-1}; …] + b)` over the last `window` inputs, zeros before the first: a causal convolution, without recurrence.
///
/// Parameters: `embedding (d, window i)` with a bias, `norm`.
#[derive(Debug, Clone)]
pub(super) struct Leaves {
    window: usize,
    embedding: Linear,
    norm: LayerNorm,
}

impl Leaves {
    pub(super) fn new(i: usize, d: usize, window: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let init = init::xavier_uniform(window * i, d);
        Ok(Self {
            window,
            embedding: linear(window * i, d, true, init, vb.pp("embedding"))?,
            norm: LayerNorm::new(d, LayerNormConfig::default(), vb.pp("norm"))?,
        })
    }

    /// `(b, t, d)` of `inputs (b, t, i)`.
    pub(super) fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let (_, t, _) = inputs.dims3()?;
        let earlier = |k: usize| match k {
            0 => Ok(inputs.clone()),
            _ => inputs.pad_with_zeros(1, k, 0)?.narrow(1, 0, t),
        };
        let window = (0..self.window).map(earlier).collect::<Result<Vec<_>>>()?;
        self.encode(&window)
    }

    /// `(b, d)` of the last inputs `(b, i)`, the newest first.
    pub(super) fn step(&self, last: &[Tensor]) -> Result<Tensor> {
        let zeros = last.first().map(Tensor::zeros_like).transpose()?;
        let missing = self.window.saturating_sub(last.len());
        let window = last.iter().take(self.window).cloned();
        let window: Vec<Tensor> = window.chain(zeros.into_iter().cycle().take(missing)).collect();
        self.encode(&window)
    }

    /// Inputs that a step needs.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    fn encode(&self, window: &[Tensor]) -> Result<Tensor> {
        let inputs = if window.len() == 1 { window[0].clone() } else { concat(window)? };
        self.norm.forward(&self.embedding.forward(&inputs)?)
    }
}
