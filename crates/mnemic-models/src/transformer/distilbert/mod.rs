//! DistilBERT: V. Sanh, L. Debut, J. Chaumond, T. Wolf 2019, arXiv 1910.01108.
//!
//! [BERT](super::bert)'s post-norm layers without segments and pooler: `x_0 = LN(word[ids] + position[0..t])`; there is no dropout on the
//! output of attention.
//!
//! Letters: b batch, t tokens, d dim, v vocab_size.
//!
//! Parameters have the names of the published checkpoints: `embeddings.*`, `transformer.layer.{i}.*`, below `distilbert.` in the models with a
//! head; `vocab_transform`, `vocab_layer_norm` and `vocab_projector.bias` for masked words, `pre_classifier` and `classifier`.
//!
//! Differences from the paper: none in the forward pass. Positions are absolute ones; sinusoidal ones are read as they are stored.

mod config;
mod heads;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, Embedding, LayerNorm, MultiHeadAttention, MultiHeadConfig, add, init, linear,
};

use super::bert::{Encoder, Layer};
use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::names::Prefixed;

pub use config::Config;
pub use heads::{
    DistilBertForMaskedLm, DistilBertForSequenceClassification, DistilBertForTokenClassification,
};

/// Beginnings of the names of all heads.
const HEADS: &[&str] = &[
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "pre_classifier.",
    "classifier.",
    "qa_outputs.",
];

/// The encoder, as `DistilBertModel`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::distilbert::{Config, DistilBertModel};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let config = Config { n_layers: 2, vocab_size: 50, ..Config::base() };
/// let store = ParamStore::new(0);
/// let model = DistilBertModel::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = TextBatch::from_rows(&[vec![2, 7, 3], vec![2, 3]], 0, Padding::Right, &Device::Cpu)?;
/// assert_eq!(model.forward(&batch, &Context::eval())?.dims(), [2, 3, 768]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct DistilBertModel {
    words: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    encoder: Encoder,
    dropout: f64,
    max_positions: usize,
}

impl DistilBertModel {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let (d, std) = (config.dim, config.initializer_range);
        let tables = vb.pp("embeddings");
        let table = |rows, name| Embedding::new(rows, d, init::normal(std), None, tables.pp(name));
        let layers = vb.pp("transformer.layer");
        let layers: Vec<Layer> =
            (0..config.n_layers).map(|i| layer(config, i, layers.pp(i))).collect::<Result<_>>()?;
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            norm: LayerNorm::new(d, config.norm(), tables.pp("LayerNorm"))?,
            encoder: Encoder::from_layers(layers),
            dropout: config.dropout,
            max_positions: config.max_position_embeddings,
        })
    }

    /// Reads a batch: `(b, t, d)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// When a row is longer than `max_position_embeddings` or an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let (b, t) = batch.dims()?;
        if t > self.max_positions {
            bail!("distilbert: {t} tokens, but there are {} positions", self.max_positions);
        }
        let ids = batch.input_ids();
        let places = Tensor::arange(0, t as u32, ids.device())?.broadcast_as((b, t))?;
        let places = self.positions.forward(&places.contiguous()?)?;
        let xs = self.norm.forward(&add(&self.words.forward(ids)?, &places)?)?;
        self.encoder.forward(&ctx.dropout(&xs, self.dropout)?, batch, ctx)
    }
}

fn layer(config: &Config, i: usize, vb: VarBuilder<'_>) -> Result<Layer> {
    let (d, f) = (config.dim, config.hidden_dim);
    let map =
        |n, m, name: &str| linear(n, m, true, init::normal(config.initializer_range), vb.pp(name));
    let norm = |name| LayerNorm::new(d, config.norm(), vb.pp(name));
    let heads = MultiHeadConfig {
        dropout: config.attention_dropout,
        ..MultiHeadConfig::new(d, config.n_heads)
    };
    let attention = MultiHeadAttention::from_projections(
        heads,
        [
            map(d, d, "attention.q_lin")?,
            map(d, d, "attention.k_lin")?,
            map(d, d, "attention.v_lin")?,
        ],
        map(d, d, "attention.out_lin")?,
    )?;
    Ok(Layer {
        attention: attention.for_inference()?.watched_as("attention", i),
        attention_norm: norm("sa_layer_norm")?,
        intermediate: map(d, f, "ffn.lin1")?.for_inference()?,
        activation: config.activation.activation(),
        output: map(f, d, "ffn.lin2")?.for_inference()?,
        output_norm: norm("output_layer_norm")?,
        dropouts: [0., config.dropout],
    })
}

impl PretrainedModel for DistilBertModel {
    type Config = Config;

    fn read_config(keys: serde_json::Map<String, serde_json::Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<serde_json::Map<String, serde_json::Value>> {
        config.keys("DistilBertModel")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        Prefixed { base: "distilbert.", heads: HEADS, own: &[], bare: true }.place(name)
    }
}
