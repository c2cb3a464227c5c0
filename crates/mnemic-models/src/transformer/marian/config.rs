//! The config of Marian.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::bart::{self, yes};
use crate::transformer::config::{check_sizes, keys, read};

/// The keys of Marian's `config.json`: those of BART and two more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Whether the encoder's word vectors are the decoder's, too.
    #[serde(default = "yes")]
    pub share_encoder_decoder_embeddings: bool,
    /// The number of the decoder's words, where it has a table of its own; `vocab_size` where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder_vocab_size: Option<usize>,
    /// The keys that BART has as well.
    #[serde(flatten)]
    pub bart: bart::Config,
}

impl Config {
    /// A model of OPUS-MT with this vocabulary: 6 + 6 layers of 512, 8 heads. The last id is the pad token.
    pub fn opus_mt(vocab_size: usize) -> Self {
        let mut bart = bart::Config {
            vocab_size,
            d_model: 512,
            encoder_attention_heads: 8,
            encoder_ffn_dim: 2048,
            decoder_attention_heads: 8,
            decoder_ffn_dim: 2048,
            activation_function: HiddenAct::Silu,
            attention_dropout: 0.,
            activation_dropout: 0.,
            max_position_embeddings: 512,
            scale_embedding: true,
            ..bart::Config::base()
        };
        let pad = vocab_size.saturating_sub(1);
        bart.other.insert("model_type".into(), "marian".into());
        bart.other.insert("eos_token_id".into(), 0.into());
        bart.other.insert("pad_token_id".into(), pad.into());
        bart.other.insert("decoder_start_token_id".into(), pad.into());
        Self { share_encoder_decoder_embeddings: true, decoder_vocab_size: None, bart }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "marian config";
        self.bart.check(place)?;
        check_sizes(place, &[("decoder_vocab_size", self.target_vocab_size())])?;
        if self.share_encoder_decoder_embeddings && self.target_vocab_size() != self.bart.vocab_size
        {
            let (targets, v) = (self.target_vocab_size(), self.bart.vocab_size);
            let reason = format!(
                "decoder_vocab_size {targets} must be vocab_size {v} where both share a table"
            );
            return Err(Error::config(place, reason));
        }
        if !self.bart.d_model.is_multiple_of(2) {
            let reason =
                format!("d_model must be even for sines and cosines, got {}", self.bart.d_model);
            return Err(Error::config(place, reason));
        }
        Ok(())
    }

    /// The number of the decoder's words.
    pub fn target_vocab_size(&self) -> usize {
        self.decoder_vocab_size.unwrap_or(self.bart.vocab_size)
    }

    pub(super) fn pad_token_id(&self) -> Option<u32> {
        self.bart.other.get("pad_token_id")?.as_u64()?.try_into().ok()
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["marian"])
    }

    pub(super) fn keys(&self) -> Result<Map<String, Value>> {
        keys(self, "MarianMTModel")
    }
}
