//! The config of the recurrent encoder-decoder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::any::MODEL_TYPE;
use crate::error::{Error, Result};
use crate::pretrained::ARCHITECTURES;

/// The name in `model_type`, which converted files need not have.
const NAME: &str = "gru-seq2seq";

/// The keys of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The tokens that the encoder reads.
    #[serde(rename = "source_tokens", alias = "graphemes")]
    pub sources: Vec<String>,
    /// The tokens that the decoder writes.
    #[serde(rename = "target_tokens", alias = "phonemes")]
    pub targets: Vec<String>,
    /// Width h of the states and of the word vectors.
    pub hidden_size: usize,
    /// Number of layers of the encoder, and of the decoder.
    #[serde(default = "one")]
    pub num_layers: usize,
    /// Dropout on word vectors and on the outputs of the layers.
    #[serde(default)]
    pub dropout: f64,
    /// The id that the decoder begins with.
    pub start: u32,
    /// The id that ends what is written.
    pub end: u32,
    /// All other keys, kept for saving.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn one() -> usize {
    1
}

impl Config {
    /// One layer of `hidden_size` for these vocabularies; `<s>` and `</s>` of the targets are start and end, or the first two tokens where
    /// there are none.
    pub fn new(sources: Vec<String>, targets: Vec<String>, hidden_size: usize) -> Self {
        let place = |name: &str| targets.iter().position(|token| token == name);
        let (start, end) = (place("<s>").unwrap_or(0) as u32, place("</s>").unwrap_or(1) as u32);
        let mut other = Map::new();
        other.insert(MODEL_TYPE.into(), NAME.into());
        Self { sources, targets, hidden_size, num_layers: 1, dropout: 0., start, end, other }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense, naming it.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::config("gru-seq2seq config", reason));
        let layers = self.num_layers;
        if layers == 0 || layers > 1 << 10 {
            return refuse(format!("num_layers must lie in 1 to 1024, got {layers}"));
        }
        if self.hidden_size == 0 || self.hidden_size > u32::MAX as usize {
            return refuse(format!("hidden_size must be positive, got {}", self.hidden_size));
        }
        if self.sources.is_empty() {
            return refuse("source_tokens must not be empty".into());
        }
        if !(0. ..=1.).contains(&self.dropout) {
            return refuse(format!("dropout must lie in [0, 1], got {}", self.dropout));
        }
        for (name, id) in [("start", self.start), ("end", self.end)] {
            if id as usize >= self.targets.len() {
                let tokens = self.targets.len();
                return refuse(format!("{name} must be one of {tokens} target_tokens, got {id}"));
            }
        }
        Ok(())
    }

    /// The ids that the encoder reads for these tokens, and `</s>` where it is one; `<unk>` for those that it does not know.
    ///
    /// # Errors
    /// When a token is not known and there is no `<unk>`.
    pub fn source_ids<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> Result<Vec<u32>> {
        let place = |token: &str| self.sources.iter().position(|known| known == token);
        let id = |token| match place(token).or_else(|| place("<unk>")) {
            Some(id) => Ok(id as u32),
            None => Err(Error::config("source_tokens", format!("there is no `{token}`"))),
        };
        let mut ids = tokens.into_iter().map(id).collect::<Result<Vec<_>>>()?;
        ids.extend(place("</s>").map(|end| end as u32));
        Ok(ids)
    }

    /// The tokens that these ids of the decoder stand for, up to the end.
    pub fn target_tokens(&self, ids: &[u32]) -> Vec<&str> {
        let token = |&id: &u32| self.targets.get(id as usize).map_or("<unk>", String::as_str);
        ids.iter().take_while(|&&id| id != self.end).map(token).collect()
    }

    pub(super) fn read(mut json: Map<String, Value>) -> Result<Self> {
        let name = json.entry(MODEL_TYPE).or_insert_with(|| NAME.into());
        if name != NAME {
            return Err(Error::config(MODEL_TYPE, format!("expected {NAME}, got {name}")));
        }
        serde_json::from_value(Value::Object(json))
            .map_err(|e| Error::config("config", e.to_string()))
    }

    pub(super) fn keys(&self) -> Result<Map<String, Value>> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut keys)) => {
                keys.insert(ARCHITECTURES.into(), vec!["GruSeq2Seq"].into());
                Ok(keys)
            }
            Ok(_) => Err(Error::config(NAME, "the config is not an object")),
            Err(e) => Err(Error::config(NAME, e.to_string())),
        }
    }
}
