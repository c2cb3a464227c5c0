//! The config of BERT.

use mnemic_layers::LayerNormConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::config::{check_dropouts, check_heads, check_sizes, keys, read};

/// The keys of BERT's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number v of words.
    pub vocab_size: usize,
    /// Width d.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads; it divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward sub-layer.
    pub intermediate_size: usize,
    /// Its activation.
    pub hidden_act: HiddenAct,
    /// Dropout on embeddings and the outputs of sub-layers.
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Dropout before a classifier; `hidden_dropout_prob` where `None`.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// The most tokens of a row.
    pub max_position_embeddings: usize,
    /// Number of segments.
    pub type_vocab_size: usize,
    /// Standard deviation of new weights.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// `ε` of the norms.
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Whether [`BertModel`](super::BertModel) has a pooler. Not a key of the file: the checkpoint's tensors say it.
    #[serde(skip, default = "yes")]
    pub add_pooling_layer: bool,
    /// All other keys, kept for saving; `model_type` is one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn initializer_range() -> f64 {
    0.02
}

fn layer_norm_eps() -> f64 {
    1e-12
}

fn yes() -> bool {
    true
}

/// Keys that change the forward pass, with the value that is understood.
const FIXED: &[(&str, &str)] = &[
    ("position_embedding_type", "\"absolute\""),
    ("is_decoder", "false"),
    ("add_cross_attention", "false"),
];

impl Config {
    /// BERT-base, uncased: 12 layers of 768, 110 M parameters (the paper's section 3).
    pub fn base() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "bert".into());
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            add_pooling_layer: true,
            other,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "bert config";
        check_sizes(
            place,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("intermediate_size", self.intermediate_size),
                ("max_position_embeddings", self.max_position_embeddings),
                ("type_vocab_size", self.type_vocab_size),
                ("labels", self.num_labels()),
            ],
        )?;
        check_heads(place, self.hidden_size, self.num_attention_heads)?;
        check_dropouts(
            place,
            &[
                ("hidden_dropout_prob", self.hidden_dropout_prob),
                ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
                ("classifier_dropout", self.head_dropout()),
            ],
        )?;
        for (key, understood) in FIXED {
            if let Some(value) = self.other.get(*key)
                && value.to_string() != *understood
            {
                let reason = format!("{key} must be {understood}, got {value}");
                return Err(Error::config(place, reason));
            }
        }
        Ok(())
    }

    /// The names of a classifier's labels.
    pub fn labels(&self) -> Vec<String> {
        crate::transformer::config::labels(&self.other)
    }

    /// Their number.
    pub fn num_labels(&self) -> usize {
        crate::transformer::config::num_labels(&self.other)
    }

    /// Dropout before a classifier.
    pub(super) fn head_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    pub(super) fn norm(&self) -> LayerNormConfig {
        LayerNormConfig { eps: self.layer_norm_eps, ..LayerNormConfig::default() }
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["bert"])
    }

    pub(super) fn keys(&self, architecture: &str) -> Result<Map<String, Value>> {
        keys(self, architecture)
    }
}
