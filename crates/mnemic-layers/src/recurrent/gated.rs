//! The recurrent networks that read the facts of an episode, gated by attention (DMN, DMN+).

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::recurrent::{
    Steps, Weights, attention_gru, attention_gru_projected, gated_gru,
};

use super::RecurrentInit;
use super::init::Layer;

/// The attention GRU of DMN+ (Xiong et al. 2016, section 3.3): a GRU whose update gate is the
/// scalar attention `g_t`, `h_t = g_t n + (1 - g_t) h_{t-1}` with
/// `n = tanh(W_n x + b_n + r ∘ (U_n h_{t-1} + c_n))`.
///
/// Parameters `weight_ih (2h, d)`, `weight_hh (2h, h)`, `bias_ih (2h)`, `bias_hh (2h)`, gates r n.
#[derive(Debug, Clone)]
pub struct AttentionGru {
    weights: Weights,
}

impl AttentionGru {
    /// A layer with all parameters uniform in `±1/sqrt(h)`.
    ///
    /// # Errors
    /// When a size is 0, or a parameter exists with another shape or type.
    pub fn new(input_size: usize, hidden_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Self::with_init(input_size, hidden_size, RecurrentInit::pytorch(), vb)
    }

    /// A layer with chosen initial values; errors as [`AttentionGru::new`].
    pub fn with_init(
        input_size: usize,
        hidden_size: usize,
        init: RecurrentInit,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { weights: weights("attention_gru", 2, input_size, hidden_size, &init, &vb)? })
    }

    /// The state `(b, h)` after reading `facts` `(b, n, d)` with `gates` `(b, n)` from a state of
    /// zeros. Facts after a row's length are not read, whatever their gate.
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn forward(
        &self,
        facts: &Tensor,
        gates: &Tensor,
        lengths: Option<&[usize]>,
    ) -> Result<Tensor> {
        check("attention_gru", facts, &self.weights)?;
        let steps = Steps { lengths, reverse: false };
        Ok(attention_gru(facts, gates, None, &self.weights, steps)?.state)
    }

    /// The input products `W x + b` `(b, n, 2h)` of `facts` `(b, n, d)`, which several passes over
    /// them share; for [`AttentionGru::forward_projected`].
    ///
    /// # Errors
    /// When the width does not fit.
    pub fn project(&self, facts: &Tensor) -> Result<Tensor> {
        check("attention_gru", facts, &self.weights)?;
        mnemic_kernels::linear::linear(facts, &self.weights.w_ih, self.weights.b_ih.as_ref())
    }

    /// [`AttentionGru::forward`] over the products of [`AttentionGru::project`].
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn forward_projected(
        &self,
        inputs: &Tensor,
        gates: &Tensor,
        lengths: Option<&[usize]>,
    ) -> Result<Tensor> {
        let steps = Steps { lengths, reverse: false };
        let (w_hh, b_hh) = (&self.weights.w_hh, self.weights.b_hh.as_ref());
        Ok(attention_gru_projected(inputs, gates, None, w_hh, b_hh, steps)?.state)
    }
}

/// The gated GRU of DMN's episodes (Kumar et al. 2015, section 2.3):
/// `h_t = g_t GRU(x_t, h_{t-1}) + (1 - g_t) h_{t-1}`.
///
/// Parameters `weight_ih (3h, d)`, `weight_hh (3h, h)`, `bias_ih (3h)`, `bias_hh (3h)`, gates r z
/// n.
#[derive(Debug, Clone)]
pub struct GatedGru {
    weights: Weights,
}

impl GatedGru {
    /// A layer with all parameters uniform in `±1/sqrt(h)`.
    ///
    /// # Errors
    /// When a size is 0, or a parameter exists with another shape or type.
    pub fn new(input_size: usize, hidden_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Self::with_init(input_size, hidden_size, RecurrentInit::pytorch(), vb)
    }

    /// A layer with chosen initial values; errors as [`GatedGru::new`].
    pub fn with_init(
        input_size: usize,
        hidden_size: usize,
        init: RecurrentInit,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self { weights: weights("gated_gru", 3, input_size, hidden_size, &init, &vb)? })
    }

    /// The state `(b, h)` after reading `facts` `(b, n, d)` with `gates` `(b, n)` from a state of
    /// zeros. A gate of 0 skips its fact.
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn forward(
        &self,
        facts: &Tensor,
        gates: &Tensor,
        lengths: Option<&[usize]>,
    ) -> Result<Tensor> {
        check("gated_gru", facts, &self.weights)?;
        let steps = Steps { lengths, reverse: false };
        Ok(gated_gru(facts, gates, None, &self.weights, steps)?.state)
    }
}

fn weights(
    op: &str,
    gates: usize,
    input_size: usize,
    hidden_size: usize,
    init: &RecurrentInit,
    vb: &VarBuilder<'_>,
) -> Result<Weights> {
    if input_size == 0 || hidden_size == 0 {
        bail!("{op}: sizes must be positive, got input {input_size} and hidden {hidden_size}");
    }
    Layer { op, suffix: "", gates, input_size, hidden_size, bias: true }.weights(init, vb)
}

fn check(op: &str, facts: &Tensor, weights: &Weights) -> Result<()> {
    let d = weights.w_ih.dim(1)?;
    if facts.rank() != 3 || facts.dim(2)? != d {
        bail!("{op}: expected facts (b, n, {d}), got {:?}", facts.dims());
    }
    Ok(())
}
