//! The decoder: self-attention, attention over the encoder's output, feed-forward.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{FeedForward, Residual, TransformerConfig, check, finish};
use crate::{AttentionOptions, Context, LayerNorm, MultiHeadAttention};

/// One layer of the decoder (section 3.1): self-attention over the target, attention over the
/// encoder's output (the memory), then the feed-forward network.
///
/// Parameters, as PyTorch's `nn.TransformerDecoderLayer`: `self_attn` and `multihead_attn` (see
/// [`MultiHeadAttention`]), `linear1`, `linear2`, `norm1`, `norm2`, `norm3`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{
///     AttentionOptions, Context, ParamStore, TransformerConfig, TransformerDecoderLayer,
/// };
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let layer = TransformerDecoderLayer::new(&TransformerConfig::new(8, 2, 32), vb)?;
/// let tgt = Tensor::ones((2, 4, 8), DType::F32, &Device::Cpu)?; // (b, t, d)
/// let memory = Tensor::ones((2, 6, 8), DType::F32, &Device::Cpu)?; // (b, s, d)
/// let (causal, padded) = (AttentionOptions::causal(), AttentionOptions::padded(&[6, 3]));
/// let ys = layer.forward(&tgt, &memory, &causal, &padded, &Context::eval())?;
/// assert_eq!(ys.dims(), tgt.dims());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransformerDecoderLayer {
    d_model: usize,
    self_attn: MultiHeadAttention,
    multihead_attn: MultiHeadAttention,
    feed_forward: FeedForward,
    norm1: Residual,
    norm2: Residual,
    norm3: Residual,
}

const LAYER: &str = "transformer decoder layer";

impl TransformerDecoderLayer {
    /// A layer with parameters from `vb`.
    ///
    /// # Errors
    /// When a size is 0, `num_heads` does not divide `d_model`, a dropout is no probability, or a
    /// parameter exists with another shape or type.
    pub fn new(config: &TransformerConfig, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate(LAYER)?;
        let layer = Self {
            d_model: config.d_model,
            self_attn: config.attention(vb.pp("self_attn"))?,
            multihead_attn: config.attention(vb.pp("multihead_attn"))?,
            feed_forward: FeedForward::new(config, &vb)?,
            norm1: config.residual(vb.pp("norm1"))?,
            norm2: config.residual(vb.pp("norm2"))?,
            norm3: config.residual(vb.pp("norm3"))?,
        };
        Ok(layer.at_layer(0))
    }

    /// Records its attentions, `decoder_attention` and `cross_attention`, under this layer number
    /// (0 otherwise).
    pub fn at_layer(self, layer: usize) -> Self {
        Self {
            self_attn: self.self_attn.watched_as("decoder_attention", layer),
            multihead_attn: self.multihead_attn.watched_as("cross_attention", layer),
            ..self
        }
    }

    /// The layer's output of `tgt (b, t, d)` and `memory (b, s, d)`, of the shape of `tgt`. The
    /// first options are those of the self-attention (mostly causal), the second those of the
    /// attention over the memory.
    ///
    /// # Errors
    /// When the shapes or options do not fit, naming them.
    pub fn forward(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        tgt_options: &AttentionOptions<'_>,
        memory_options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        check(LAYER, "tgt", tgt, self.d_model)?;
        check(LAYER, "memory", memory, self.d_model)?;
        let xs = self
            .norm1
            .forward(tgt, ctx, |xs| self.self_attn.forward(xs, xs, xs, tgt_options, ctx))?;
        let xs = self.norm2.forward(&xs, ctx, |xs| {
            self.multihead_attn.forward(xs, memory, memory, memory_options, ctx)
        })?;
        self.norm3.forward(&xs, ctx, |xs| self.feed_forward.forward(xs, ctx))
    }
}

/// A stack of [`TransformerDecoderLayer`]s; parameters `layers.{i}` and, with a final norm, `norm`,
/// as PyTorch's `nn.TransformerDecoder`.
///
/// When watching, layer `i` records its weights as step `i` of `decoder_attention` and
/// `cross_attention`, so that they stay apart from the encoder's `attention`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{
///     AttentionOptions, Context, ParamStore, TransformerConfig, TransformerDecoder,
/// };
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let decoder = TransformerDecoder::new(&TransformerConfig::new(8, 2, 32), 2, false, vb)?;
/// let tgt = Tensor::ones((2, 4, 8), DType::F32, &Device::Cpu)?; // (b, t, d)
/// let memory = Tensor::ones((2, 6, 8), DType::F32, &Device::Cpu)?; // (b, s, d)
/// let (causal, padded) = (AttentionOptions::causal(), AttentionOptions::padded(&[6, 3]));
/// let ctx = Context::eval().watching();
/// assert_eq!(decoder.forward(&tgt, &memory, &causal, &padded, &ctx)?.dims(), tgt.dims());
/// let trace = ctx.take_trace();
/// assert_eq!((trace[3].name.as_str(), trace[3].step), ("cross_attention", 1));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransformerDecoder {
    layers: Vec<TransformerDecoderLayer>,
    norm: Option<LayerNorm>,
}

impl TransformerDecoder {
    /// A stack of `num_layers` layers. Pre-norm layers need the final norm.
    ///
    /// # Errors
    /// As [`TransformerDecoderLayer::new`].
    pub fn new(
        config: &TransformerConfig,
        num_layers: usize,
        final_norm: bool,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let layer = |i| {
            let layer = TransformerDecoderLayer::new(config, vb.pp("layers").pp(i))?;
            Ok(layer.at_layer(i))
        };
        let layers = (0..num_layers).map(layer).collect::<Result<_>>()?;
        let norm = final_norm.then(|| config.norm(vb.pp("norm"))).transpose()?;
        Ok(Self { layers, norm })
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[TransformerDecoderLayer] {
        &self.layers
    }

    /// The output of the last layer (normalised where there is a final norm) for `tgt (b, t, d)` and
    /// `memory (b, s, d)`, of the shape of `tgt`. Every layer gets the same options.
    ///
    /// # Errors
    /// When the shapes or options do not fit, naming them.
    pub fn forward(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        tgt_options: &AttentionOptions<'_>,
        memory_options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let mut xs = tgt.clone();
        for layer in &self.layers {
            xs = layer.forward(&xs, memory, tgt_options, memory_options, ctx)?;
        }
        finish(self.norm.as_ref(), xs)
    }
}
