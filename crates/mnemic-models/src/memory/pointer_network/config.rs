//! The config of the pointer network.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::any::MODEL_TYPE;
use crate::config::positive;
use crate::error::Error;
use crate::pretrained::ARCHITECTURES;

/// The name in `model_type` and in recipes.
pub(super) const NAME: &str = "pointer-network";

/// The sizes of a [`PointerNetwork`](super::PointerNetwork).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Numbers of a point.
    pub input_size: usize,
    /// Width of encoder, decoder and pointer.
    pub hidden_size: usize,
    /// Weights and biases start uniform in `±init_range`.
    pub init_range: f64,
}

impl Config {
    /// The rows `Ptr-Net` of the paper's tables: points of the plane, 256 units (the paper has 256 or 512), `±0.08`.
    pub fn ptr_net() -> Self {
        Self { input_size: 2, hidden_size: 256, init_range: 0.08 }
    }

    /// [`Self::ptr_net`] with changes of single keys.
    ///
    /// # Errors
    /// When a key is unknown or a value makes no sense.
    pub fn with(changes: Map<String, Value>) -> crate::Result<Self> {
        let mut keys = Self::ptr_net().keys()?;
        keys.extend(changes);
        keys.remove(MODEL_TYPE);
        let bad = |e: serde_json::Error| Error::config(format!("{NAME} config"), e.to_string());
        let config: Self = serde_json::from_value(Value::Object(keys)).map_err(bad)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense, naming it.
    pub fn validate(&self) -> Result<()> {
        positive(NAME, &[("input_size", self.input_size), ("hidden_size", self.hidden_size)])?;
        if !self.init_range.is_finite() || self.init_range <= 0. {
            bail!("{NAME} config: init_range must be a positive number, got {}", self.init_range);
        }
        Ok(())
    }

    pub(super) fn read(mut keys: Map<String, Value>) -> crate::Result<Self> {
        keys.remove(ARCHITECTURES);
        match keys.remove(MODEL_TYPE) {
            Some(name) if name == NAME => {}
            other => {
                let got = other.unwrap_or_default();
                return Err(Error::config(MODEL_TYPE, format!("expected \"{NAME}\", got {got}")));
            }
        }
        let bad = |e: serde_json::Error| Error::config(format!("{NAME} config"), e.to_string());
        let config: Self = serde_json::from_value(Value::Object(keys)).map_err(bad)?;
        config.validate()?;
        Ok(config)
    }

    pub(super) fn keys(&self) -> crate::Result<Map<String, Value>> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut keys)) => {
                keys.insert(MODEL_TYPE.into(), NAME.into());
                Ok(keys)
            }
            Ok(_) => Err(Error::config(NAME, "the config is not an object")),
            Err(e) => Err(Error::config(NAME, e.to_string())),
        }
    }
}
