//! Pointing at positions of an input: O. Vinyals, M. Fortunato, N. Jaitly, "Pointer Networks", arXiv 1506.03134 (2015), equation 3.
//!
//! Letters: b batch, t states that point, s positions, h hidden_size.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::additive::{additive_log_softmax, additive_scores};

use crate::{Linear, linear};

/// The additive pointer `u_j = vᵀ tanh(W_1 e_j + W_2 d)`, `p = softmax_j(u)`: its weights over positions are its output.
///
/// Parameters: `v (h)`, `w1.weight` and `w2.weight` `(h, h)`; there are no biases.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{ParamStore, Pointer, init};
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let pointer = Pointer::new(8, init::uniform(0.08), vb)?;
/// let positions = Tensor::ones((2, 5, 8), DType::F32, &Device::Cpu)?;
/// let keys = pointer.keys(&positions)?; // once for all states
/// let states = Tensor::ones((2, 3, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(pointer.log_probabilities(&states, &keys, None)?.dims(), [2, 3, 5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pointer {
    v: Tensor,
    positions: Linear,
    states: Linear,
}

impl Pointer {
    /// A pointer for states and positions of `hidden_size`, all weights drawn from `init`.
    ///
    /// # Errors
    /// When the size is 0, or a parameter exists with another shape or type.
    pub fn new(hidden_size: usize, init: Init, vb: VarBuilder<'_>) -> Result<Self> {
        let h = hidden_size;
        if h == 0 {
            bail!("pointer: hidden_size must be positive");
        }
        Ok(Self {
            v: vb.get_with_hints(h, "v", init)?,
            positions: linear(h, h, false, init, vb.pp("w1"))?,
            states: linear(h, h, false, init, vb.pp("w2"))?,
        })
    }

    /// `W_1 e_j` of positions `(b, s, h)`, which serves all states that point at them.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn keys(&self, positions: &Tensor) -> Result<Tensor> {
        self.positions.forward(positions)
    }

    /// The scores `u`, `(b, t, s)`, of `states (b, t, h)` and the [`keys`](Self::keys) `(b, s, h)`.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn scores(&self, states: &Tensor, keys: &Tensor) -> Result<Tensor> {
        additive_scores(&self.states.forward(states)?, keys, &self.v)
    }

    /// `log p`, `(b, t, s)`: of the positions where `mask` (u8, `(b, s)` or `(b, t, s)`) is 1; `-inf` at the others.
    ///
    /// # Errors
    /// When the shapes do not fit or the mask is not u8, naming them.
    pub fn log_probabilities(
        &self,
        states: &Tensor,
        keys: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        additive_log_softmax(&self.states.forward(states)?, keys, &self.v, mask)
    }
}
