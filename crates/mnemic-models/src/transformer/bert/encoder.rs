//! The stack of layers, which RoBERTa shares.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Activation, Context, LayerNorm, Linear, MultiHeadAttention, MultiHeadConfig, add, init, linear,
};

use super::Config;
use crate::text::TextBatch;

/// `layer.{i}`.
#[derive(Debug, Clone)]
pub(in crate::transformer) struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    pub(in crate::transformer) fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        let layer = |i| Layer::new(config, i, vb.pp("layer").pp(i));
        Ok(Self { layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()? })
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

#[derive(Debug, Clone)]
struct Layer {
    attention: MultiHeadAttention,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    output_norm: LayerNorm,
    dropout: f64,
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
            attention: attention.watched_as("attention", i),
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: map(d, f, "intermediate.dense")?,
            activation: config.hidden_act.activation(),
            output: map(f, d, "output.dense")?,
            output_norm: norm("output.LayerNorm")?,
            dropout: config.hidden_dropout_prob,
        })
    }

    fn forward(&self, xs: &Tensor, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let ys = self.attention.forward(xs, xs, xs, &batch.options(), ctx)?;
        let xs = self.attention_norm.forward(&add(xs, &ctx.dropout(&ys, self.dropout)?)?)?;
        let inner = self.activation.forward(&self.intermediate.forward(&xs)?)?; // (b, t, f)
        let ys = ctx.dropout(&self.output.forward(&inner)?, self.dropout)?;
        self.output_norm.forward(&add(&xs, &ys)?)
    }
}
