//! The stack of post-norm layers, which RoBERTa and DistilBERT share.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Activation, Context, LayerNorm, Linear, MultiHeadAttention, MultiHeadConfig, add, init, linear,
};

use super::Config;
use crate::text::TextBatch;

/// `layer.{i}`, one after the other.
#[derive(Debug, Clone)]
pub(in crate::transformer) struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    pub(in crate::transformer) fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        let layer = |i| Layer::new(config, i, vb.pp("layer").pp(i));
        Ok(Self::from_layers((0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?))
    }

    /// Of layers that exist already.
    pub(in crate::transformer) fn from_layers(layers: Vec<Layer>) -> Self {
        Self { layers }
    }

    /// The last hidden state of `xs (b, t, d)`, of that shape.
    pub(in crate::transformer) fn forward(
        &self,
        xs: &Tensor,
        batch: &TextBatch,
        ctx: &Context,
    ) -> Result<Tensor> {
        let mut xs = xs.clone();
        ctx.watch("hidden_states", 0, || Ok(xs.clone()))?;
        for (i, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, batch, ctx)?;
            ctx.watch("hidden_states", i + 1, || Ok(xs.clone()))?;
        }
        Ok(xs)
    }
}

/// `x = LN(x + attention(x))`, `x = LN(x + W_o f(W_i x + b_i) + b_o)`.
#[derive(Debug, Clone)]
pub(in crate::transformer) struct Layer {
    pub(in crate::transformer) attention: MultiHeadAttention,
    pub(in crate::transformer) attention_norm: LayerNorm,
    pub(in crate::transformer) intermediate: Linear,
    pub(in crate::transformer) activation: Activation,
    pub(in crate::transformer) output: Linear,
    pub(in crate::transformer) output_norm: LayerNorm,
    /// Dropout on the outputs of attention and of the feed-forward sub-layer.
    pub(in crate::transformer) dropouts: [f64; 2],
}

impl Layer {
    fn new(config: &Config, i: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let map = |n, m, name: &str| {
            linear(n, m, true, init::normal(config.initializer_range), vb.pp(name))
        };
        let norm = |name| LayerNorm::new(d, config.norm(), vb.pp(name));
        let heads = MultiHeadConfig {
            dropout: config.attention_probs_dropout_prob,
            ..MultiHeadConfig::new(d, config.num_attention_heads)
        };
        let attention = MultiHeadAttention::from_projections(
            heads,
            [
                map(d, d, "attention.self.query")?,
                map(d, d, "attention.self.key")?,
                map(d, d, "attention.self.value")?,
            ],
            map(d, d, "attention.output.dense")?,
        )?;
        Ok(Self {
            attention: attention.for_inference()?.watched_as("attention", i),
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: map(d, f, "intermediate.dense")?.for_inference()?,
            activation: config.hidden_act.activation(),
            output: map(f, d, "output.dense")?.for_inference()?,
            output_norm: norm("output.LayerNorm")?,
            dropouts: [config.hidden_dropout_prob; 2],
        })
    }

    fn forward(&self, xs: &Tensor, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let ys = self.attention.forward(xs, xs, xs, &batch.options(), ctx)?;
        let xs = self.attention_norm.forward(&add(xs, &ctx.dropout(&ys, self.dropouts[0])?)?)?;
        let inner = self.activation.forward(&self.intermediate.forward(&xs)?)?; // (b, t, f)
        let ys = ctx.dropout(&self.output.forward(&inner)?, self.dropouts[1])?;
        self.output_norm.forward(&add(&xs, &ys)?)
    }
}
