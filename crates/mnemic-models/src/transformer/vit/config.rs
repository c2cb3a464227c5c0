//! The config of the Vision Transformer.

use mnemic_layers::LayerNormConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::transformer::HiddenAct;
use crate::transformer::config::{
    check_dropouts, check_heads, check_sizes, keys, labels, num_labels, read,
};

/// The keys of ViT's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
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
    /// Standard deviation of new weights.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// `ε` of the norms.
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Points along a side of a picture.
    pub image_size: usize,
    /// Points p along a side of a patch; it divides `image_size`.
    pub patch_size: usize,
    /// Channels c of a picture.
    pub num_channels: usize,
    /// Whether the maps of queries, keys and values have biases.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// Whether [`VitModel`](super::VitModel) has a pooler. Not a key of the file: the checkpoint's tensors say it.
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

impl Config {
    /// ViT-Base/16 on pictures of 224 × 224 points (the paper's table 1): 12 layers of 768, 86 M parameters.
    pub fn base() -> Self {
        let mut other = Map::new();
        other.insert("model_type".into(), "vit".into());
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.,
            attention_probs_dropout_prob: 0.,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            image_size: 224,
            patch_size: 16,
            num_channels: 3,
            qkv_bias: true,
            add_pooling_layer: true,
            other,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense or is not supported, naming it.
    pub fn validate(&self) -> Result<()> {
        let place = "vit config";
        check_sizes(
            place,
            &[
                ("hidden_size", self.hidden_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("intermediate_size", self.intermediate_size),
                ("image_size", self.image_size),
                ("patch_size", self.patch_size),
                ("num_channels", self.num_channels),
                ("labels", self.num_labels()),
            ],
        )?;
        check_heads(place, self.hidden_size, self.num_attention_heads)?;
        let dropouts = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        check_dropouts(place, &dropouts)?;
        let (image, patch) = (self.image_size, self.patch_size);
        if !image.is_multiple_of(patch) || image > 1 << 16 || self.num_channels > 1 << 16 {
            let reason = format!(
                "expected an image_size below 65537 that is a multiple of patch_size {patch} and at most 65536 channels, got {image} and {}",
                self.num_channels
            );
            return Err(Error::config(place, reason));
        }
        if let Some(act) = self.other.get("pooler_act").filter(|act| *act != "tanh") {
            return Err(Error::config(place, format!("pooler_act must be tanh, got {act}")));
        }
        Ok(())
    }

    /// The number of patches of a picture.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size.max(1)).pow(2)
    }

    /// The names of a classifier's labels.
    pub fn labels(&self) -> Vec<String> {
        labels(&self.other)
    }

    /// Their number.
    pub fn num_labels(&self) -> usize {
        num_labels(&self.other)
    }

    pub(super) fn norm(&self) -> LayerNormConfig {
        LayerNormConfig { eps: self.layer_norm_eps, ..LayerNormConfig::default() }
    }

    pub(super) fn read(json: Map<String, Value>) -> Result<Self> {
        read(json, &["vit"])
    }

    pub(super) fn keys(&self, architecture: &str) -> Result<Map<String, Value>> {
        keys(self, architecture)
    }
}
