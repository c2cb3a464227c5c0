//! The layers of the Transformer (Vaswani et al. 2017, section 3), with PyTorch's parameters.
//!
//! A sub-layer `f` is wrapped as `LayerNorm(x + Dropout(f(x)))` (post-norm, the paper's text) or,
//! with `norm_first`, as `x + Dropout(f(LayerNorm(x)))` (pre-norm, the paper's later code; Xiong et
//! al. 2020), which needs a final norm after the stack. The feed-forward sub-layer is
//! `f(x) = W_2 φ(W_1 x + b_1) + b_2`.
//!
//! Letters: b batch, t and s lengths, d the model's width.
//!
//! Embeddings, their scaling by `√d` and the output layer belong to the model;
//! [`sinusoidal_positions`] gives the paper's positions. Attention over padded places is masked by
//! the [`AttentionOptions`](crate::AttentionOptions); outputs at padded places are finite but mean
//! nothing.

mod decoder;
mod encoder;
mod positions;

pub use decoder::{TransformerDecoder, TransformerDecoderLayer};
pub use encoder::{TransformerEncoder, TransformerEncoderLayer};
pub use positions::{SinusoidLayout, sinusoidal_positions};

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::activation;
use mnemic_kernels::arithmetic::add;

use crate::init::xavier_uniform;
use crate::{
    Context, LayerNorm, LayerNormConfig, Linear, MultiHeadAttention, MultiHeadConfig, linear,
};

/// The function `φ` of the feed-forward sub-layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(0, x)`, the paper's.
    Relu,
    /// `x Φ(x)` with the normal distribution `Φ` (Hendrycks & Gimpel 2016).
    Gelu,
    /// The approximation of `x Φ(x)` by tanh: GPT-2's.
    GeluTanh,
    /// `x σ(x)`, also called swish.
    Silu,
}

impl Activation {
    /// `φ(xs)`, element by element.
    pub fn forward(self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Relu => activation::relu(xs),
            Activation::Gelu => activation::gelu(xs),
            Activation::GeluTanh => activation::gelu_tanh(xs),
            Activation::Silu => activation::silu(xs),
        }
    }
}

/// The sizes of a Transformer's layers. Parameters start Xavier uniform, biases at 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransformerConfig {
    /// The model's width d.
    pub d_model: usize,
    /// Number of heads; it divides `d_model`.
    pub num_heads: usize,
    /// Width of the feed-forward sub-layer.
    pub dim_feedforward: usize,
    /// Probability of dropout on the output of each sub-layer.
    pub dropout: f64,
    /// Probability of dropout on the attention weights.
    pub attention_dropout: f64,
    /// Probability of dropout after the activation of the feed-forward sub-layer.
    pub activation_dropout: f64,
    /// The activation of the feed-forward sub-layer.
    pub activation: Activation,
    /// Whether each sub-layer is normalised before (pre-norm) instead of after.
    pub norm_first: bool,
    /// The norms' `ε`.
    pub layer_norm_eps: f64,
    /// Whether linear maps and norms have biases.
    pub bias: bool,
}

impl TransformerConfig {
    /// The paper's form: post-norm, ReLU, biases, `ε` 1e-5; no dropout.
    pub fn new(d_model: usize, num_heads: usize, dim_feedforward: usize) -> Self {
        Self {
            d_model,
            num_heads,
            dim_feedforward,
            dropout: 0.,
            attention_dropout: 0.,
            activation_dropout: 0.,
            activation: Activation::Relu,
            norm_first: false,
            layer_norm_eps: 1e-5,
            bias: true,
        }
    }

    /// All three dropouts at `p`, as PyTorch's layers have it. (The paper has the first alone.)
    pub fn with_dropout(self, p: f64) -> Self {
        Self { dropout: p, attention_dropout: p, activation_dropout: p, ..self }
    }

    fn validate(&self, op: &str) -> Result<()> {
        if self.d_model == 0 || self.dim_feedforward == 0 {
            bail!("{op}: d_model and dim_feedforward must be positive, got {self:?}");
        }
        for (name, p) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("activation_dropout", self.activation_dropout),
        ] {
            if !(0. ..=1.).contains(&p) {
                bail!("{op}: {name} must lie in [0, 1], got {p}");
            }
        }
        Ok(())
    }

    fn attention(&self, vb: VarBuilder<'_>) -> Result<MultiHeadAttention> {
        let config = MultiHeadConfig {
            bias: self.bias,
            dropout: self.attention_dropout,
            ..MultiHeadConfig::new(self.d_model, self.num_heads)
        };
        MultiHeadAttention::new(config, vb)
    }

    fn norm(&self, vb: VarBuilder<'_>) -> Result<LayerNorm> {
        let config = LayerNormConfig { eps: self.layer_norm_eps, weight: true, bias: self.bias };
        LayerNorm::new(self.d_model, config, vb)
    }

    fn residual(&self, vb: VarBuilder<'_>) -> Result<Residual> {
        let norm = self.norm(vb)?;
        Ok(Residual { norm, norm_first: self.norm_first, dropout: self.dropout })
    }
}

/// What stands around a sub-layer.
#[derive(Debug, Clone)]
struct Residual {
    norm: LayerNorm,
    norm_first: bool,
    dropout: f64,
}

impl Residual {
    fn forward(
        &self,
        xs: &Tensor,
        ctx: &Context,
        sub_layer: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.norm_first {
            let ys = sub_layer(&self.norm.forward(xs)?)?;
            return add(xs, &ctx.dropout(&ys, self.dropout)?);
        }
        self.norm.forward(&add(xs, &ctx.dropout(&sub_layer(xs)?, self.dropout)?)?)
    }
}

/// `W_2 φ(W_1 x + b_1) + b_2`; parameters `linear1` and `linear2`.
#[derive(Debug, Clone)]
struct FeedForward {
    linear1: Linear,
    linear2: Linear,
    activation: Activation,
    dropout: f64,
}

impl FeedForward {
    /// `vb` is that of the layer.
    fn new(config: &TransformerConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let TransformerConfig { d_model: d, dim_feedforward: f, bias, .. } = *config;
        let init = xavier_uniform(d, f);
        Ok(Self {
            linear1: linear(d, f, bias, init, vb.pp("linear1"))?,
            linear2: linear(f, d, bias, init, vb.pp("linear2"))?,
            activation: config.activation,
            dropout: config.activation_dropout,
        })
    }

    fn forward(&self, xs: &Tensor, ctx: &Context) -> Result<Tensor> {
        let inner = self.activation.forward(&self.linear1.forward(xs)?)?; // (b, t, f)
        self.linear2.forward(&ctx.dropout(&inner, self.dropout)?)
    }
}

/// That `xs` is `(b, t, d)`.
fn check(op: &str, name: &str, xs: &Tensor, d: usize) -> Result<()> {
    match xs.dims() {
        &[_, _, width] if width == d => Ok(()),
        got => bail!("{op}: expected {name} (b, t, {d}), got {got:?}"),
    }
}

/// The final norm of a stack, where it has one.
fn finish(norm: Option<&LayerNorm>, xs: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&xs),
        None => Ok(xs),
    }
}
