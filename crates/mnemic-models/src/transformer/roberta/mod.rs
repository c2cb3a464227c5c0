//! RoBERTa: Y. Liu, M. Ott, N. Goyal et al. 2019, arXiv 1907.11692; also XLM-RoBERTa (arXiv 1911.02116) and CamemBERT (arXiv 1911.03894).
//!
//! [BERT](super::bert)'s encoder with other positions: those of a row's tokens count from `pad_token_id + 1`, and padding has the position
//! `pad_token_id`. There is one segment.
//!
//! Letters: b batch, t tokens, d hidden_size, v vocab_size.
//!
//! Parameters have the names of the published checkpoints: `embeddings.*`, `encoder.layer.{i}.*`, `pooler.dense.*`, below `roberta.` in the
//! models with a head (in all three families); `lm_head.{dense,layer_norm,bias}`, `classifier.{dense,out_proj}` for whole texts and `classifier`
//! for tokens.
//!
//! Differences from the paper: none in the forward pass.

mod config;
mod heads;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Linear, init, linear};

use super::bert::{Embeddings, Encoder, Output};
use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::names::Prefixed;

pub use config::Config;
pub use heads::{
    RobertaForMaskedLm, RobertaForSequenceClassification, RobertaForTokenClassification,
};

/// Beginnings of the names of all heads.
const HEADS: &[&str] = &["lm_head.", "classifier.", "qa_outputs."];

/// The encoder with its pooler, as `RobertaModel`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::roberta::{Config, RobertaModel};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let mut config = Config::base();
/// (config.bert.num_hidden_layers, config.bert.vocab_size) = (2, 50);
/// let store = ParamStore::new(0);
/// let model = RobertaModel::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = TextBatch::from_rows(&[vec![0, 7, 2], vec![0, 2]], 1, Padding::Right, &Device::Cpu)?;
/// let output = model.forward(&batch, &Context::eval())?;
/// assert_eq!(output.last_hidden_state.dims(), [2, 3, 768]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RobertaModel {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: Option<Linear>,
    pad: u32,
    max_tokens: usize,
}

impl RobertaModel {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        Ok(Self::with_parts(config, config.bert.add_pooling_layer, vb)?)
    }

    fn with_parts(config: &Config, pooler: bool, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, std) = (config.bert.hidden_size, config.bert.initializer_range);
        let pooler = match pooler {
            true => Some(linear(d, d, true, init::normal(std), vb.pp("pooler.dense"))?),
            false => None,
        };
        Ok(Self {
            embeddings: Embeddings::new(&config.bert, vb.pp("embeddings"))?,
            encoder: Encoder::new(&config.bert, vb.pp("encoder"))?,
            pooler,
            pad: config.pad_token_id,
            max_tokens: config.max_tokens(),
        })
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// When a row has more than `max_position_embeddings - pad_token_id - 1` tokens or an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Output> {
        Output::new(self.states(batch, ctx)?, self.pooler.as_ref())
    }

    /// The last hidden states alone.
    pub(super) fn states(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let count = |row: &Vec<u8>| row.iter().filter(|&&m| m != 0).count();
        let longest = batch.attention_mask().iter().map(count).max().unwrap_or(0);
        if longest > self.max_tokens {
            bail!("roberta: {longest} tokens, but there are {} positions", self.max_tokens);
        }
        let places = batch.positions_from(self.pad + 1, self.pad)?;
        let xs = self.embeddings.forward(batch, &places, ctx)?;
        self.encoder.forward(&xs, batch, ctx)
    }
}

impl PretrainedModel for RobertaModel {
    type Config = Config;

    fn read_config(keys: serde_json::Map<String, serde_json::Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<serde_json::Map<String, serde_json::Value>> {
        config.keys("Model")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        Prefixed { base: "roberta.", heads: HEADS, own: &[], bare: true }.place(name)
    }

    fn adapt(config: &mut Config, found: &std::collections::BTreeMap<String, Vec<usize>>) {
        config.bert.add_pooling_layer = found.contains_key("pooler.dense.weight");
    }
}
