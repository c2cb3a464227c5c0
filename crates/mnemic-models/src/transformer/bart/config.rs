//! The config of BART, whose keys Marian shares.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::config::{check_dropouts, check_heads, check_sizes, keys, read};

/// The keys of BART's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number v of words.
    pub vocab_size: usize,
    /// Width d.
    pub d_model: usize,
    /// Number of the encoder's layers.
    pub encoder_layers: usize,
    /// Number of its heads; it divides `d_model`.
    pub encoder_attention_heads: usize,
    /// Width of its feed-forward sub-layers.
    pub encoder_ffn_dim: usize,
    /// Number of the decoder's layers.
    pub decoder_layers: usize,
    /// Number of its heads; it divides `d_model`.
    pub decoder_attention_heads: usize,
    /// Width of its feed-forward sub-layers.
    pub decoder_ffn_dim: usize,
    /// Activation of the feed-forward sub-layers.
    pub activation_function: HiddenAct,
    /// Dropout on embeddings and the outputs of sub-layers.
    pub dropout: f64,
    /// Dropout on attention weights.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout after the activation.
    #[serde(default)]
    pub activation_dropout: f64,
    /// The most tokens of a row.
    pub max_position_embeddings: usize,
    /// Standard deviation of new weights.
    #[serde(default = "init_std")]
    pub init_std: f64,
    /// Whether word vectors are multiplied by `√d`.
    #[serde(default)]
    pub scale_embedding: bool,
    /// Whether the output layer is the table of word vectors.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether there is a `final_logits_bias`. Not a key of the file: the checkpoint's tensors say it.
    #[serde(skip, default = "yes")]
    pub final_logits_bias: bool,
    /// All other keys, kept for saving; `model_type` is one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn init_std() -> f64 {
    0.02
}

pub(in crate::transformer) fn yes() -> bool {
    true
}

/// Keys of early configs that change the forward pass, with the value that is understood.
const FIXED: &[(&str, bool)] = &[("normalize_before", false), ("add_final_layer_norm", false)];

impl Config {
    /// BART-base: 6 + 6 layers of 768, 139 M parameters (the paper's section 2.1).
    pub fn base() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "bart".into());
        Self {
            vocab_size: 50_265,
            d_model: 768,
            encoder_layers: 6,
            encoder_attention_heads: 12,
            encoder_ffn_dim: 3072,
            decoder_layers: 6,
            decoder_attention_heads: 12,
            decoder_ffn_dim: 3072,
            activation_function: HiddenAct::Gelu,
            dropout: 0.1,
            attention_dropout: 0.1,
            activation_dropout: 0.1,
            max_position_embeddings: 1024,
            init_std: 0.02,
            scale_embedding: false,
            tie_word_embeddings: true,
            final_logits_bias: true,
            other,
        }
    }

    /// BART-large: 12 + 12 layers of 1024, 406 M parameters (the paper's section 2.1).
    pub fn large() -> Self {
        Self {
            d_model: 1024,
            encoder_layers: 12,
            encoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            decoder_layers: 12,
            decoder_attention_heads: 16,
            decoder_ffn_dim: 4096,
            ..Self::base()
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        self.check("bart config")
    }

    pub(in crate::transformer) fn check(&self, place: &str) -> Result<()> {
        check_sizes(
            place,
            &[
                ("vocab_size", self.vocab_size),
                ("d_model", self.d_model),
                ("encoder_layers", self.encoder_layers),
                ("encoder_attention_heads", self.encoder_attention_heads),
                ("encoder_ffn_dim", self.encoder_ffn_dim),
                ("decoder_layers", self.decoder_layers),
                ("decoder_attention_heads", self.decoder_attention_heads),
                ("decoder_ffn_dim", self.decoder_ffn_dim),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        check_heads(place, self.d_model, self.encoder_attention_heads)?;
        check_heads(place, self.d_model, self.decoder_attention_heads)?;
        check_dropouts(
            place,
            &[
                ("dropout", self.dropout),
                ("attention_dropout", self.attention_dropout),
                ("activation_dropout", self.activation_dropout),
            ],
        )?;
        for (key, understood) in FIXED {
            if let Some(value) = self.other.get(*key)
                && value.as_bool() != Some(*understood)
            {
                let reason = format!("{key} must be {understood}, got {value}");
                return Err(Error::config(place, reason));
            }
        }
        Ok(())
    }

    /// The factor of the word vectors.
    pub(in crate::transformer) fn scale(&self) -> f64 {
        match self.scale_embedding {
            true => (self.d_model as f64).sqrt(),
            false => 1.,
        }
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["bart"])
    }

    pub(super) fn keys(&self) -> Result<Map<String, Value>> {
        keys(self, "BartForConditionalGeneration")
    }
}
