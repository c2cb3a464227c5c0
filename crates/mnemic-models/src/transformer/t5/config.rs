//! The config of T5.

use mnemic_layers::RelativeBuckets;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::bart::yes;
use crate::transformer::config::{check_dropouts, check_sizes, keys, read};

/// The feed-forward sub-layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedForward {
    /// `W_o max(0, W_i x)`: version 1.0.
    #[serde(rename = "relu")]
    Relu,
    /// `W_o gelu(W_i x)`.
    #[serde(rename = "gelu")]
    Gelu,
    /// `W_o (gelu(W_0 x) ∘ W_1 x)` with the approximation of gelu by tanh: version 1.1.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
    /// `W_o (silu(W_0 x) ∘ W_1 x)`.
    #[serde(rename = "gated-silu")]
    GatedSilu,
}

impl FeedForward {
    pub(super) fn gated(self) -> bool {
        matches!(self, Self::GatedGelu | Self::GatedSilu)
    }

    pub(super) fn act(self) -> HiddenAct {
        match self {
            Self::Relu => HiddenAct::Relu,
            Self::Gelu => HiddenAct::Gelu,
            Self::GatedGelu => HiddenAct::GeluNew,
            Self::GatedSilu => HiddenAct::Silu,
        }
    }
}

/// The keys of T5's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number v of words.
    pub vocab_size: usize,
    /// Width d.
    pub d_model: usize,
    /// Width of a head; heads need not be as wide as the model together.
    pub d_kv: usize,
    /// Width of the feed-forward sub-layers.
    pub d_ff: usize,
    /// Number of the encoder's layers.
    pub num_layers: usize,
    /// Number of the decoder's layers; `num_layers` where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    /// Number of heads.
    pub num_heads: usize,
    /// Number of classes of distances.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// From this distance on all share a class.
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    /// Dropout on embeddings, attention weights, inner activations and the outputs of sub-layers.
    #[serde(default = "dropout_rate")]
    pub dropout_rate: f64,
    /// `ε` of the norms.
    #[serde(default = "layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Factor of the standard deviations of new weights.
    #[serde(default = "one")]
    pub initializer_factor: f64,
    /// The feed-forward sub-layer.
    #[serde(default = "relu")]
    pub feed_forward_proj: FeedForward,
    /// Whether the output layer is the table of word vectors.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether the decoder's output is multiplied by `1/√d` before the output layer; as `tie_word_embeddings` where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// All other keys, kept for saving; `model_type` is one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn buckets() -> usize {
    32
}

fn max_distance() -> usize {
    128
}

fn dropout_rate() -> f64 {
    0.1
}

fn layer_norm_epsilon() -> f64 {
    1e-6
}

fn one() -> f64 {
    1.
}

fn relu() -> FeedForward {
    FeedForward::Relu
}

impl Config {
    /// T5-small, version 1.0: 6 + 6 layers of 512, 8 heads, 60 M parameters (the paper's section 3.7).
    pub fn small() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "t5".into());
        for (key, id) in [("decoder_start_token_id", 0), ("pad_token_id", 0), ("eos_token_id", 1)] {
            other.insert(key.into(), id.into());
        }
        Self {
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.,
            feed_forward_proj: FeedForward::Relu,
            tie_word_embeddings: true,
            scale_decoder_outputs: None,
            other,
        }
    }

    /// T5-base, version 1.0: 12 + 12 layers of 768, 12 heads, 220 M parameters (the paper's section 3.1.1).
    pub fn base() -> Self {
        Self { d_model: 768, d_ff: 3072, num_layers: 12, num_heads: 12, ..Self::small() }
    }

    /// T5-small, version 1.1: 8 + 8 layers of 512, 6 heads, gated.
    pub fn small_v1_1() -> Self {
        Self {
            d_ff: 1024,
            num_layers: 8,
            num_heads: 6,
            feed_forward_proj: FeedForward::GatedGelu,
            tie_word_embeddings: false,
            ..Self::small()
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "t5 config";
        check_sizes(
            place,
            &[
                ("vocab_size", self.vocab_size),
                ("d_model", self.d_model),
                ("d_kv", self.d_kv),
                ("d_ff", self.d_ff),
                ("num_layers", self.num_layers),
                ("num_decoder_layers", self.decoder_layers()),
                ("num_heads", self.num_heads),
                ("d_kv times num_heads", self.d_kv.saturating_mul(self.num_heads)),
            ],
        )?;
        check_dropouts(place, &[("dropout_rate", self.dropout_rate)])?;
        for bidirectional in [true, false] {
            let checked = self.buckets(bidirectional).validate();
            checked.map_err(|e| Error::config(place, e.to_string()))?;
        }
        Ok(())
    }

    pub(super) fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    pub(super) fn buckets(&self, bidirectional: bool) -> RelativeBuckets {
        RelativeBuckets {
            bidirectional,
            num_buckets: self.relative_attention_num_buckets,
            max_distance: self.relative_attention_max_distance,
        }
    }

    pub(super) fn output_scale(&self) -> Option<f64> {
        let scaled = self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings);
        scaled.then(|| (self.d_model as f64).powf(-0.5))
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["t5", "mt5"])
    }

    pub(super) fn keys(&self, architecture: &str) -> Result<Map<String, Value>> {
        keys(self, architecture)
    }
}
