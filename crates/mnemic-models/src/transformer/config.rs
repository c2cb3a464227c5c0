//! What the configs of `transformers` have in common.

use mnemic_layers::Activation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::any::MODEL_TYPE;
use crate::error::{Error, Result, shown};
use crate::pretrained::ARCHITECTURES;

/// An activation under the names that configs give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HiddenAct {
    /// `x Φ(x)`.
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    /// The approximation of `x Φ(x)` by tanh.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// `max(0, x)`.
    #[serde(rename = "relu")]
    Relu,
    /// `x σ(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl HiddenAct {
    /// The function.
    pub fn activation(self) -> Activation {
        match self {
            Self::Gelu => Activation::Gelu,
            Self::GeluNew => Activation::GeluTanh,
            Self::Relu => Activation::Relu,
            Self::Silu => Activation::Silu,
        }
    }
}

/// A config from the keys of `config.json`, if its `model_type` is one of `types`. Keys that it does not know are kept in its field
/// `other`, which it flattens.
pub(super) fn read<C: DeserializeOwned>(keys: Map<String, Value>, types: &[&str]) -> Result<C> {
    match keys.get(MODEL_TYPE).and_then(Value::as_str) {
        Some(found) if types.contains(&found) => {}
        found => {
            let found = found.map_or("none".into(), |name| format!("`{}`", shown(name)));
            let reason = format!("expected {}, got {found}", types.join(" or "));
            return Err(Error::config(MODEL_TYPE, reason));
        }
    }
    serde_json::from_value(Value::Object(keys)).map_err(|e| Error::config("config", e.to_string()))
}

/// The keys of a config for `config.json` of the model class `architecture`.
pub(super) fn keys<C: Serialize>(config: &C, architecture: &str) -> Result<Map<String, Value>> {
    match serde_json::to_value(config) {
        Ok(Value::Object(mut keys)) => {
            keys.insert(ARCHITECTURES.into(), vec![architecture].into());
            Ok(keys)
        }
        Ok(_) => Err(Error::config(architecture, "the config is not an object")),
        Err(e) => Err(Error::config(architecture, e.to_string())),
    }
}

/// Refuses sizes of 0 and numbers of layers that no model has.
pub(super) fn check_sizes(place: &str, sizes: &[(&str, usize)]) -> Result<()> {
    for &(name, size) in sizes {
        let most = if name.contains("layers") { 1 << 10 } else { u32::MAX as usize };
        if size == 0 || size > most {
            let reason = format!("{name} must lie in 1 to {most}, got {size}");
            return Err(Error::config(place, reason));
        }
    }
    Ok(())
}

/// Refuses heads that do not divide the width, and dropouts that are no probabilities.
pub(super) fn check_heads(place: &str, width: usize, heads: usize) -> Result<()> {
    match width.is_multiple_of(heads) {
        true => Ok(()),
        false => {
            let reason = format!("width {width} is not a multiple of {heads} heads");
            Err(Error::config(place, reason))
        }
    }
}

/// Refuses what is no probability.
pub(super) fn check_dropouts(place: &str, dropouts: &[(&str, f64)]) -> Result<()> {
    match dropouts.iter().find(|(_, p)| !(0. ..=1.).contains(p)) {
        None => Ok(()),
        Some((name, p)) => Err(Error::config(place, format!("{name} must lie in [0, 1], got {p}"))),
    }
}

/// The number of labels of a classifier: as `id2label` or `num_labels` says, else 2.
pub(super) fn num_labels(other: &Map<String, Value>) -> usize {
    let listed = other.get("id2label").and_then(Value::as_object).map(Map::len);
    let counted = other.get("num_labels").and_then(Value::as_u64).map(|n| n as usize);
    listed.or(counted).unwrap_or(2)
}

/// The names of a classifier's labels: those of `id2label`, else `LABEL_0`, `LABEL_1`, …
pub(super) fn labels(other: &Map<String, Value>) -> Vec<String> {
    let names = other.get("id2label").and_then(Value::as_object);
    let name = |i: usize| names.and_then(|names| names.get(&i.to_string())?.as_str());
    let text = |i| name(i).map_or_else(|| format!("LABEL_{i}"), str::to_string);
    (0..num_labels(other)).map(text).collect()
}
