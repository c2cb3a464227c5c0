//! The config of Llama and its kin.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rope::Rope;
use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::config::{check_dropouts, check_sizes, keys, read};

/// The keys of `config.json` of Llama, Mistral (`sliding_window`) and Qwen2 (biases on queries, keys and values).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number v of tokens.
    pub vocab_size: usize,
    /// Width d.
    pub hidden_size: usize,
    /// Width of the feed-forward sub-layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number h of query heads.
    pub num_attention_heads: usize,
    /// Number of key-value heads; it divides h. h where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / h` where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Activation of the gate.
    #[serde(default = "silu")]
    pub hidden_act: HiddenAct,
    /// The length of text the model was made for. No limit: rotary positions go on.
    pub max_position_embeddings: usize,
    /// Standard deviation of new weights.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// `ε` of the norms.
    #[serde(default = "epsilon")]
    pub rms_norm_eps: f64,
    /// `θ` of the rotary positions, unless it stands in `rope_parameters`; 10,000 where it stands nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// `rope_theta`, `rope_type` and that type's numbers, as newer checkpoints have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Map<String, Value>>,
    /// `rope_type` (or `type`) and that type's numbers, as older checkpoints have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Map<String, Value>>,
    /// Whether the maps of attention have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether those of the feed-forward sub-layer have.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Dropout on attention weights.
    #[serde(default)]
    pub attention_dropout: f64,
    /// A query sees itself and this many keys less one before it; all where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Whether the output map is the table of embeddings.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// All other keys, kept for saving; `model_type` is one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn silu() -> HiddenAct {
    HiddenAct::Silu
}

fn epsilon() -> f64 {
    1e-6
}

fn initializer_range() -> f64 {
    0.02
}

const PLACE: &str = "llama config";

/// What `model_type` may be.
const TYPES: &[&str] = &["llama", "mistral", "qwen2"];

impl Config {
    /// Llama 7B (Touvron et al. 2023, table 2): 32 layers of 4096, 6.7 billion parameters.
    pub fn llama_7b() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "llama".into());
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: HiddenAct::Silu,
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope_theta: Some(10_000.),
            rope_parameters: None,
            rope_scaling: None,
            attention_bias: false,
            mlp_bias: false,
            attention_dropout: 0.,
            sliding_window: None,
            tie_word_embeddings: false,
            other,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        check_sizes(PLACE, &sizes)?;
        check_sizes(PLACE, &[("head_dim", self.head_width())])?;
        let (h, kv) = (self.num_attention_heads, self.kv_heads());
        if !h.is_multiple_of(kv) {
            let reason = format!("{kv} key-value heads do not divide {h} heads");
            return Err(Error::config(PLACE, reason));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(h) {
            let reason = format!("width {} is not a multiple of {h} heads", self.hidden_size);
            return Err(Error::config(PLACE, reason));
        }
        if h.checked_mul(self.head_width()).is_none_or(|width| width > u32::MAX as usize) {
            return Err(Error::config(
                PLACE,
                format!("head_dim {} is too large", self.head_width()),
            ));
        }
        check_dropouts(PLACE, &[("attention_dropout", self.attention_dropout)])?;
        self.check_layer_types()?;
        self.rope().map(|_| ())
    }

    /// All layers must be alike.
    fn check_layer_types(&self) -> Result<()> {
        let Some(types) = self.other.get("layer_types").and_then(Value::as_array) else {
            return Ok(());
        };
        let expected = match self.window() {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        match types.iter().find(|t| t.as_str() != Some(expected)) {
            None => Ok(()),
            Some(other) => {
                let reason = format!("layer_types must all be `{expected}`, got {other}");
                Err(Error::config(PLACE, reason))
            }
        }
    }

    pub(super) fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(super) fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn is_qwen(&self) -> bool {
        self.other.get("model_type").and_then(Value::as_str) == Some("qwen2")
    }

    /// Biases on queries, keys and values, and on the output of attention.
    pub(super) fn biases(&self) -> (bool, bool) {
        if self.is_qwen() { (true, false) } else { (self.attention_bias, self.attention_bias) }
    }

    /// Qwen2 has a key that turns its window off, which it is unless said.
    pub(super) fn window(&self) -> Option<usize> {
        let used = self.other.get("use_sliding_window").and_then(Value::as_bool);
        self.sliding_window.filter(|_| used.unwrap_or(!self.is_qwen()))
    }

    pub(super) fn rope(&self) -> Result<Rope> {
        if let Some(part) = self.other.get("partial_rotary_factor")
            && part.as_f64() != Some(1.)
        {
            let reason = format!("partial_rotary_factor must be 1, got {part}");
            return Err(Error::config(PLACE, reason));
        }
        let keys = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        Rope::new(self.rope_theta, keys, self.head_width())
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, TYPES)
    }

    pub(super) fn keys(&self) -> Result<Map<String, Value>> {
        let class = match self.other.get("model_type").and_then(Value::as_str) {
            Some("mistral") => "MistralForCausalLM",
            Some("qwen2") => "Qwen2ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        keys(self, class)
    }
}
