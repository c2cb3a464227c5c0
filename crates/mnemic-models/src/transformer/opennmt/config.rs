//! The config of OpenNMT's Transformer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::any::MODEL_TYPE;
use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::bart::yes;
use crate::transformer::config::{check_dropouts, check_heads, check_sizes, keys, read};

/// The name in `model_type`, which converted files need not have.
const NAME: &str = "opennmt";

/// The keys of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Width d.
    pub d_model: usize,
    /// Number of heads; it divides `d_model`.
    pub nhead: usize,
    /// Number of layers of the encoder, and of the decoder.
    pub num_layers: usize,
    /// Width of the feed-forward sub-layers.
    pub dim_feedforward: usize,
    /// Activation of the feed-forward sub-layers.
    pub activation: HiddenAct,
    /// Dropout on embeddings, attention weights, inner activations and the outputs of sub-layers.
    #[serde(default)]
    pub dropout: f64,
    /// Whether the norms stand before the sub-layers; nothing else is supported.
    #[serde(default = "yes")]
    pub norm_first: bool,
    /// `ε` of the norms.
    pub layer_norm_eps: f64,
    /// Whether word vectors are multiplied by `√d`.
    pub scale_embedding: bool,
    /// The number of the first position.
    pub first_position: usize,
    /// The id of padding.
    pub blank: u32,
    /// The id that the decoder begins with.
    pub start: u32,
    /// The id that ends what is written.
    pub end: u32,
    /// The tokens that the encoder reads.
    #[serde(rename = "source_tokens")]
    pub sources: Vec<String>,
    /// The tokens that the decoder writes.
    #[serde(rename = "target_tokens")]
    pub targets: Vec<String>,
    /// All other keys, kept for saving.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Config {
    /// The paper's base model (Vaswani et al. 2017, table 3) for these vocabularies, which begin with blank, start and end.
    pub fn base(sources: Vec<String>, targets: Vec<String>) -> Self {
        let mut other = Map::new();
        other.insert(MODEL_TYPE.into(), NAME.into());
        Self {
            d_model: 512,
            nhead: 8,
            num_layers: 6,
            dim_feedforward: 2048,
            activation: HiddenAct::Relu,
            dropout: 0.1,
            norm_first: true,
            layer_norm_eps: 1e-5,
            scale_embedding: true,
            first_position: 1,
            blank: 0,
            start: 1,
            end: 2,
            sources,
            targets,
            other,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "opennmt config";
        check_sizes(
            place,
            &[
                ("d_model", self.d_model),
                ("nhead", self.nhead),
                ("num_layers", self.num_layers),
                ("dim_feedforward", self.dim_feedforward),
                ("source_tokens", self.sources.len()),
                ("target_tokens", self.targets.len()),
            ],
        )?;
        check_heads(place, self.d_model, self.nhead)?;
        check_dropouts(place, &[("dropout", self.dropout)])?;
        let refuse = |reason: String| Err(Error::config(place, reason));
        if !self.d_model.is_multiple_of(2) {
            return refuse(format!(
                "d_model must be even for sines and cosines, got {}",
                self.d_model
            ));
        }
        if !self.norm_first {
            return refuse("norm_first must be true".into());
        }
        if self.first_position > u32::MAX as usize {
            return refuse(format!("first_position is too large: {}", self.first_position));
        }
        for (name, id) in [("blank", self.blank), ("start", self.start), ("end", self.end)] {
            if id as usize >= self.targets.len() {
                return refuse(format!(
                    "{name} must be one of {} tokens, got {id}",
                    self.targets.len()
                ));
            }
        }
        Ok(())
    }

    /// The number of the encoder's word vectors: its tokens and the unknown one.
    pub fn source_vocab_size(&self) -> usize {
        self.sources.len() + 1
    }

    /// The number of the decoder's word vectors: its tokens and the unknown one.
    pub fn target_vocab_size(&self) -> usize {
        self.targets.len() + 1
    }

    /// The ids that the encoder reads for these tokens; the last id for those that it does not know.
    pub fn source_ids<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
        let place = |token| self.sources.iter().position(|known| known == token);
        let id = |token| place(token).unwrap_or(self.sources.len()) as u32;
        tokens.into_iter().map(id).collect()
    }

    /// The tokens that these ids of the decoder stand for, up to the end; `<unk>` for the unknown one.
    pub fn target_tokens(&self, ids: &[u32]) -> Vec<&str> {
        let token = |&id: &u32| self.targets.get(id as usize).map_or("<unk>", String::as_str);
        ids.iter().take_while(|&&id| id != self.end).map(token).collect()
    }

    pub(super) fn read(mut json: Map<String, Value>) -> Result<Self> {
        json.entry(MODEL_TYPE).or_insert_with(|| NAME.into());
        read(json, &[NAME])
    }

    pub(super) fn keys(&self) -> Result<Map<String, Value>> {
        keys(self, "OpenNmtTransformer")
    }
}
