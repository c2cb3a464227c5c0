//! BERT: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, NAACL 2019, arXiv 1810.04805.
//!
//! A Transformer encoder, post-norm: `x_0 = LN(word[ids] + position[0..t] + token_type[segments])`; each layer is
//! `x = LN(x + attention(x))`, `x = LN(x + W_o gelu(W_i x + b_i) + b_o)`. The pooler is `tanh(W x_[CLS] + b)`.
//!
//! Letters: b batch, t tokens, d hidden_size, v vocab_size.
//!
//! Parameters have the names of the published checkpoints: `embeddings.*`, `encoder.layer.{i}.*`, `pooler.dense.*`, below `bert.` in the models with
//! a head. Checkpoints with or without that prefix are read, with `gamma` and `beta` for the norms' parameters as well.
//!
//! Differences from the paper: none in the forward pass. The head for the next sentence (`cls.seq_relationship`) is not read; positions are
//! absolute ones only.

mod config;
mod encoder;
mod heads;
#[cfg(test)]
mod tests;

use candle_core::{DType, IndexOp, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Embedding, LayerNorm, Linear, add, init, linear};

use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::names::Prefixed;

pub use config::Config;
pub(super) use encoder::Encoder;
pub use heads::{BertForMaskedLm, BertForSequenceClassification, BertForTokenClassification};

/// Beginnings of the names of all heads.
const HEADS: &[&str] = &["cls.", "classifier.", "qa_outputs."];

/// The encoder with its pooler, as `BertModel`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::bert::{BertModel, Config};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let config = Config { num_hidden_layers: 2, vocab_size: 50, ..Config::base() };
/// let store = ParamStore::new(0);
/// let model = BertModel::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = TextBatch::from_rows(&[vec![2, 7, 3], vec![2, 3]], 0, Padding::Right, &Device::Cpu)?;
/// let output = model.forward(&batch, &Context::eval())?;
/// assert_eq!(output.last_hidden_state.dims(), [2, 3, 768]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BertModel {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: Option<Linear>,
}

/// What [`BertModel`] gives.
#[derive(Debug, Clone)]
pub struct Output {
    /// `(b, t, d)`; rows at padding mean nothing.
    pub last_hidden_state: Tensor,
    /// `(b, d)`, where the model has a pooler.
    pub pooler_output: Option<Tensor>,
}

impl BertModel {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        Ok(Self::with_parts(config, config.add_pooling_layer, vb)?)
    }

    fn with_parts(config: &Config, pooler: bool, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, std) = (config.hidden_size, config.initializer_range);
        let pooler = match pooler {
            true => Some(linear(d, d, true, init::normal(std), vb.pp("pooler.dense"))?),
            false => None,
        };
        Ok(Self {
            embeddings: Embeddings::new(config, vb.pp("embeddings"))?,
            encoder: Encoder::new(config, vb.pp("encoder"))?,
            pooler,
        })
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// When a row is longer than `max_position_embeddings` or an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Output> {
        let xs = self.embeddings.forward(batch, ctx)?;
        let last_hidden_state = self.encoder.forward(&xs, batch, ctx)?;
        let first = |xs: &Tensor| xs.i((.., 0))?.contiguous(); // (b, d)
        let pooler_output = match &self.pooler {
            Some(map) => Some(map.forward(&first(&last_hidden_state)?)?.tanh()?),
            None => None,
        };
        Ok(Output { last_hidden_state, pooler_output })
    }
}

impl PretrainedModel for BertModel {
    type Config = Config;

    fn read_config(keys: serde_json::Map<String, serde_json::Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<serde_json::Map<String, serde_json::Value>> {
        config.keys("BertModel")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        Prefixed { base: "bert.", heads: HEADS, own: &[], bare: true }.place(name)
    }

    fn adapt(config: &mut Config, found: &std::collections::BTreeMap<String, Vec<usize>>) {
        config.add_pooling_layer = found.contains_key("pooler.dense.weight");
    }
}

/// Word, position and segment vectors, added and normalised.
#[derive(Debug, Clone)]
struct Embeddings {
    words: Embedding,
    positions: Embedding,
    token_types: Embedding,
    norm: LayerNorm,
    dropout: f64,
    max_positions: usize,
}

impl Embeddings {
    fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        let Config { hidden_size: d, .. } = *config;
        let table = |rows, name| {
            Embedding::new(rows, d, init::normal(config.initializer_range), None, vb.pp(name))
        };
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            token_types: table(config.type_vocab_size, "token_type_embeddings")?,
            norm: LayerNorm::new(d, config.norm(), vb.pp("LayerNorm"))?,
            dropout: config.hidden_dropout_prob,
            max_positions: config.max_position_embeddings,
        })
    }

    fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let (b, t) = batch.dims()?;
        if t > self.max_positions {
            bail!("bert: {t} tokens, but there are {} positions", self.max_positions);
        }
        let ids = batch.input_ids();
        let places =
            Tensor::arange(0, t as u32, ids.device())?.broadcast_as((b, t))?.contiguous()?;
        let types = match batch.token_type_ids() {
            Some(types) => types.clone(),
            None => Tensor::zeros((b, t), DType::U32, ids.device())?,
        };
        let xs = add(&self.words.forward(ids)?, &self.token_types.forward(&types)?)?;
        let xs = add(&xs, &self.positions.forward(&places)?)?; // (b, t, d)
        ctx.dropout(&self.norm.forward(&xs)?, self.dropout)
    }
}
