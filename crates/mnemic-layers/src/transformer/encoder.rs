//! The encoder: self-attention and feed-forward.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{FeedForward, Residual, TransformerConfig, check, finish};
use crate::{AttentionOptions, Context, LayerNorm, MultiHeadAttention};

/// One layer of the encoder (section 3.1): self-attention, then the feed-forward network. With
/// causal options it is a layer of a decoder-only language model.
///
/// Parameters, as PyTorch's `nn.TransformerEncoderLayer`: `self_attn` (see
/// [`MultiHeadAttention`]), `linear1`, `linear2`, `norm1`, `norm2`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{
///     AttentionOptions, Context, ParamStore, TransformerConfig, TransformerEncoderLayer,
/// };
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let layer = TransformerEncoderLayer::new(&TransformerConfig::new(8, 2, 32), vb)?;
/// let xs = Tensor::ones((3, 5, 8), DType::F32, &Device::Cpu)?; // (b, t, d)
/// let ys = layer.forward(&xs, &AttentionOptions::causal(), &Context::train(0, 1))?;
/// assert_eq!(ys.dims(), xs.dims());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransformerEncoderLayer {
    d_model: usize,
    self_attn: MultiHeadAttention,
    feed_forward: FeedForward,
    norm1: Residual,
    norm2: Residual,
}

const LAYER: &str = "transformer encoder layer";

impl TransformerEncoderLayer {
    /// A layer with parameters from `vb`.
    ///
    /// # Errors
    /// When a size is 0, `num_heads` does not divide `d_model`, a dropout is no probability, or a
    /// parameter exists with another shape or type.
    pub fn new(config: &TransformerConfig, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate(LAYER)?;
        Ok(Self {
            d_model: config.d_model,
            self_attn: config.attention(vb.pp("self_attn"))?,
            feed_forward: FeedForward::new(config, &vb)?,
            norm1: config.residual(vb.pp("norm1"))?,
            norm2: config.residual(vb.pp("norm2"))?,
        })
    }

    /// Records its attention under this name and layer number (`attention` and 0 otherwise).
    pub fn watched_as(self, name: &'static str, layer: usize) -> Self {
        Self { self_attn: self.self_attn.watched_as(name, layer), ..self }
    }

    /// The layer's output of `src (b, t, d)`, of the same shape.
    ///
    /// # Errors
    /// When the shapes or options do not fit, naming them.
    pub fn forward(
        &self,
        src: &Tensor,
        options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        check(LAYER, "src", src, self.d_model)?;
        let xs =
            self.norm1.forward(src, ctx, |xs| self.self_attn.forward(xs, xs, xs, options, ctx))?;
        self.norm2.forward(&xs, ctx, |xs| self.feed_forward.forward(xs, ctx))
    }
}

/// A stack of [`TransformerEncoderLayer`]s; parameters `layers.{i}` and, with a final norm, `norm`,
/// as PyTorch's `nn.TransformerEncoder`.
///
/// When watching, layer `i` records its weights as step `i` of `attention`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{
///     AttentionOptions, Context, ParamStore, TransformerConfig, TransformerEncoder,
/// };
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let config = TransformerConfig { norm_first: true, ..TransformerConfig::new(8, 2, 32) };
/// let encoder = TransformerEncoder::new(&config, 2, true, vb.pp("encoder"))?;
/// let src = Tensor::ones((3, 5, 8), DType::F32, &Device::Cpu)?; // (b, s, d)
/// let options = AttentionOptions::padded(&[5, 4, 1]);
/// assert_eq!(encoder.forward(&src, &options, &Context::eval())?.dims(), src.dims());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransformerEncoder {
    layers: Vec<TransformerEncoderLayer>,
    norm: Option<LayerNorm>,
}

impl TransformerEncoder {
    /// A stack of `num_layers` layers. Pre-norm layers need the final norm.
    ///
    /// # Errors
    /// As [`TransformerEncoderLayer::new`].
    pub fn new(
        config: &TransformerConfig,
        num_layers: usize,
        final_norm: bool,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let layer = |i| {
            let layer = TransformerEncoderLayer::new(config, vb.pp("layers").pp(i))?;
            Ok(layer.watched_as("attention", i))
        };
        let layers = (0..num_layers).map(layer).collect::<Result<_>>()?;
        let norm = final_norm.then(|| config.norm(vb.pp("norm"))).transpose()?;
        Ok(Self { layers, norm })
    }

    /// Records the attention of its layers under this name instead of `attention`.
    pub fn watched_as(mut self, name: &'static str) -> Self {
        let layers = self.layers.into_iter().enumerate();
        self.layers = layers.map(|(i, layer)| layer.watched_as(name, i)).collect();
        self
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[TransformerEncoderLayer] {
        &self.layers
    }

    /// The output of the last layer (normalised where there is a final norm) for `src (b, t, d)`, of
    /// the same shape. Every layer gets the same options.
    ///
    /// # Errors
    /// When the shapes or options do not fit, naming them.
    pub fn forward(
        &self,
        src: &Tensor,
        options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let mut xs = src.clone();
        for layer in &self.layers {
            xs = layer.forward(&xs, options, ctx)?;
        }
        finish(self.norm.as_ref(), xs)
    }
}
