//! The config of GPT-2.

use mnemic_layers::LayerNormConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::config::{check_dropouts, check_heads, check_sizes, keys, read};

/// The keys of GPT-2's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number v of tokens.
    pub vocab_size: usize,
    /// The most tokens of a row.
    pub n_positions: usize,
    /// Width d.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Number of heads; it divides `n_embd`.
    pub n_head: usize,
    /// Width of the feed-forward sub-layer; `4 n_embd` where `None`.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Its activation.
    #[serde(default = "gelu_new")]
    pub activation_function: HiddenAct,
    /// Dropout on the outputs of sub-layers.
    #[serde(default = "dropout")]
    pub resid_pdrop: f64,
    /// Dropout on embeddings.
    #[serde(default = "dropout")]
    pub embd_pdrop: f64,
    /// Dropout on attention weights.
    #[serde(default = "dropout")]
    pub attn_pdrop: f64,
    /// `ε` of the norms.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    /// Standard deviation of new weights; that of projections back to the stream is divided by `√(2 n_layer)`.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// Whether scores are divided by `√(n_embd / n_head)`.
    #[serde(default = "yes")]
    pub scale_attn_weights: bool,
    /// Whether scores of layer i are divided by `i + 1` as well.
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output map is the table of embeddings.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// All other keys, kept for saving; `model_type` is one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn gelu_new() -> HiddenAct {
    HiddenAct::GeluNew
}

fn dropout() -> f64 {
    0.1
}

fn epsilon() -> f64 {
    1e-5
}

fn initializer_range() -> f64 {
    0.02
}

fn yes() -> bool {
    true
}

impl Config {
    /// GPT-2, the smallest: 12 layers of 768, 124 M parameters (the paper's table 2).
    pub fn small() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "gpt2".into());
        other.insert("bos_token_id".into(), 50_256.into());
        other.insert("eos_token_id".into(), 50_256.into());
        Self {
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: HiddenAct::GeluNew,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            other,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "gpt2 config";
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer: layers", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.inner().unwrap_or(0)),
        ];
        check_sizes(place, &sizes)?;
        check_heads(place, self.n_embd, self.n_head)?;
        let dropouts = [
            ("resid_pdrop", self.resid_pdrop),
            ("embd_pdrop", self.embd_pdrop),
            ("attn_pdrop", self.attn_pdrop),
        ];
        check_dropouts(place, &dropouts)?;
        match self.other.get("add_cross_attention") {
            None | Some(Value::Bool(false) | Value::Null) => Ok(()),
            Some(got) => {
                let reason = format!("add_cross_attention must be false, got {got}");
                Err(Error::config(place, reason))
            }
        }
    }

    /// The width of the feed-forward sub-layer, unless it is beyond all numbers.
    pub(super) fn inner(&self) -> Option<usize> {
        self.n_inner.or_else(|| self.n_embd.checked_mul(4))
    }

    pub(super) fn norm(&self) -> LayerNormConfig {
        LayerNormConfig { eps: self.layer_norm_epsilon, ..LayerNormConfig::default() }
    }

    /// The factor of the scores of layer `i`.
    pub(super) fn scale(&self, i: usize) -> f64 {
        let width = (self.n_embd / self.n_head) as f64;
        let scale = if self.scale_attn_weights { width.sqrt().recip() } else { 1. };
        if self.scale_attn_by_inverse_layer_idx { scale / (i + 1) as f64 } else { scale }
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["gpt2"])
    }

    pub(super) fn keys(&self, architecture: &str) -> Result<Map<String, Value>> {
        keys(self, architecture)
    }
}
