//! The config of DistilBERT.

use mnemic_layers::LayerNormConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::transformer::HiddenAct;
use crate::transformer::config::{
    check_dropouts, check_heads, check_sizes, keys, labels, num_labels, read,
};

/// The keys of DistilBERT's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number v of words.
    pub vocab_size: usize,
    /// Width d.
    pub dim: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of heads; it divides `dim`.
    pub n_heads: usize,
    /// Width of the feed-forward sub-layer.
    pub hidden_dim: usize,
    /// Its activation.
    #[serde(default = "gelu")]
    pub activation: HiddenAct,
    /// Dropout on embeddings and the output of the feed-forward sub-layer.
    pub dropout: f64,
    /// Dropout on attention weights.
    pub attention_dropout: f64,
    /// Dropout before a classifier of whole texts.
    #[serde(default = "seq_classif_dropout")]
    pub seq_classif_dropout: f64,
    /// The most tokens of a row.
    pub max_position_embeddings: usize,
    /// Standard deviation of new weights.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// All other keys, kept for saving; `model_type` is one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn gelu() -> HiddenAct {
    HiddenAct::Gelu
}

fn seq_classif_dropout() -> f64 {
    0.2
}

fn initializer_range() -> f64 {
    0.02
}

impl Config {
    /// DistilBERT-base, uncased: 6 layers of 768, 66 M parameters (the paper's section 3).
    pub fn base() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "distilbert".into());
        Self {
            vocab_size: 30_522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: HiddenAct::Gelu,
            dropout: 0.1,
            attention_dropout: 0.1,
            seq_classif_dropout: 0.2,
            max_position_embeddings: 512,
            initializer_range: 0.02,
            other,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "distilbert config";
        check_sizes(
            place,
            &[
                ("vocab_size", self.vocab_size),
                ("dim", self.dim),
                ("n_layers", self.n_layers),
                ("n_heads", self.n_heads),
                ("hidden_dim", self.hidden_dim),
                ("max_position_embeddings", self.max_position_embeddings),
                ("labels", self.num_labels()),
            ],
        )?;
        check_heads(place, self.dim, self.n_heads)?;
        check_dropouts(
            place,
            &[
                ("dropout", self.dropout),
                ("attention_dropout", self.attention_dropout),
                ("seq_classif_dropout", self.seq_classif_dropout),
            ],
        )
    }

    /// The names of a classifier's labels.
    pub fn labels(&self) -> Vec<String> {
        labels(&self.other)
    }

    /// Their number.
    pub fn num_labels(&self) -> usize {
        num_labels(&self.other)
    }

    /// `ε` is no key of the file.
    pub(super) fn norm(&self) -> LayerNormConfig {
        LayerNormConfig { eps: 1e-12, ..LayerNormConfig::default() }
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["distilbert"])
    }

    pub(super) fn keys(&self, architecture: &str) -> Result<Map<String, Value>> {
        keys(self, architecture)
    }
}
