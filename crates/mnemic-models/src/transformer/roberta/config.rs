//! The config of RoBERTa.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::any::MODEL_TYPE;
use crate::error::{Error, Result};
use crate::transformer::bert;
use crate::transformer::config::{keys, read};

/// The `model_type`s of the same model, with the beginnings of their classes' names.
const FAMILIES: [(&str, &str); 3] =
    [("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"), ("camembert", "Camembert")];

/// The keys of RoBERTa's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The id of padding; positions count from the next number.
    #[serde(default = "pad_token_id")]
    pub pad_token_id: u32,
    /// The keys that BERT has as well.
    #[serde(flatten)]
    pub bert: bert::Config,
}

fn pad_token_id() -> u32 {
    1
}

impl Config {
    /// RoBERTa-base: 12 layers of 768, 125 M parameters (the paper's section 3).
    pub fn base() -> Self {
        let mut bert = bert::Config {
            vocab_size: 50_265,
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            ..bert::Config::base()
        };
        bert.other.insert(MODEL_TYPE.into(), "roberta".into());
        Self { pad_token_id: 1, bert }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "roberta config";
        self.bert.validate_as(place)?;
        if self.max_tokens() == 0 {
            let (pad, most) = (self.pad_token_id, self.bert.max_position_embeddings);
            let reason = format!(
                "expected max_position_embeddings above pad_token_id + 1, got {most} and {pad}"
            );
            return Err(Error::config(place, reason));
        }
        Ok(())
    }

    /// The most tokens of a row.
    pub fn max_tokens(&self) -> usize {
        self.bert
            .max_position_embeddings
            .saturating_sub((self.pad_token_id as usize).saturating_add(1))
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &FAMILIES.map(|(name, _)| name))
    }

    /// `part` is the class's name without the family's.
    pub(super) fn keys(&self, part: &str) -> Result<Map<String, Value>> {
        let own = self.bert.other.get(MODEL_TYPE).and_then(Value::as_str);
        let family = FAMILIES.iter().find(|(name, _)| own == Some(name)).unwrap_or(&FAMILIES[0]);
        keys(self, &format!("{}{part}", family.1))
    }
}
