//! What a model must say of itself to be read from a checkpoint and written to one.

use std::collections::BTreeMap;
use std::fmt;

use candle_nn::VarBuilder;
use serde_json::{Map, Value};

use crate::any::{AnyStoryModel, ModelConfig};
use crate::error::{Error, Result};

/// A model that [`from_pretrained`](crate::from_pretrained) reads and [`save_pretrained`](crate::save_pretrained) writes.
///
/// Its parameters bear the names that they have in checkpoints, so most models need no more than a config and a constructor;
/// [`place`](Self::place) is for checkpoints that say the same in another way.
pub trait PretrainedModel: Sized {
    /// What `config.json` says.
    type Config: Clone + fmt::Debug;

    /// The config from the keys of `config.json`.
    ///
    /// # Errors
    /// When a key is missing or makes no sense, naming it.
    fn read_config(keys: Map<String, Value>) -> Result<Self::Config>;

    /// The keys of `config.json`, `architectures` and `model_type` among them.
    ///
    /// # Errors
    /// When the config cannot be written as JSON.
    fn config_keys(config: &Self::Config) -> Result<Map<String, Value>>;

    /// The model with its parameters from `vb`. Called as well to learn the names and shapes of the parameters: it must ask for
    /// them with their shapes and make no other large tensor.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    fn build(config: &Self::Config, vb: VarBuilder<'_>) -> Result<Self>;

    /// Refuses a config that asks for far more than the `numbers` that a checkpoint holds, before anything is made.
    ///
    /// # Errors
    /// When it does.
    fn check_size(_config: &Self::Config, _numbers: u128) -> Result<()> {
        Ok(())
    }

    /// Which parameter the tensor `name` of a checkpoint is.
    fn place(_config: &Self::Config, name: &str) -> Place {
        Place::As(name.to_string())
    }

    /// Fits the config to what a checkpoint turns out to hold (names and shapes, once placed), such as a layer that may be absent.
    fn adapt(_config: &mut Self::Config, _found: &BTreeMap<String, Vec<usize>>) {}

    /// How the parameter `name` is written into a checkpoint.
    fn stored(_config: &Self::Config, name: &str) -> Place {
        Place::As(name.to_string())
    }

    /// Whether the parameter `name` belongs to a head, which may be new where a checkpoint has none
    /// ([`LoadOptions::new_head`](crate::LoadOptions)).
    fn is_head(_name: &str) -> bool {
        false
    }
}

/// Where a tensor belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The tensor of this name, as it is.
    As(String),
    /// The tensor of this name, a matrix, with rows and columns exchanged.
    Transposed(String),
    /// Nowhere: a buffer, a copy of a tied weight, or another model's head.
    Nowhere,
}

impl Place {
    /// The name in the model, and whether rows and columns are exchanged.
    pub(crate) fn target(self) -> Option<(String, bool)> {
        match self {
            Self::As(name) => Some((name, false)),
            Self::Transposed(name) => Some((name, true)),
            Self::Nowhere => None,
        }
    }
}

/// Keys of `config.json` beside the config's own.
pub(crate) const ARCHITECTURES: &str = "architectures";
const VERSION: &str = "mnemic_version";

impl PretrainedModel for AnyStoryModel {
    type Config = ModelConfig;

    fn read_config(mut keys: Map<String, Value>) -> Result<ModelConfig> {
        let names = keys.remove(ARCHITECTURES);
        if let Some(version) = keys.remove(VERSION)
            && !version.is_string()
        {
            return Err(Error::config(VERSION, "expected a string"));
        }
        let config = ModelConfig::from_keys(keys)?;
        let expected = Value::from(vec![config.type_name()]);
        if names.is_some_and(|names| names != expected) {
            let reason = format!("expected {expected} for {}", config.architecture());
            return Err(Error::config(ARCHITECTURES, reason));
        }
        Ok(config)
    }

    fn config_keys(config: &ModelConfig) -> Result<Map<String, Value>> {
        config.validate()?;
        let mut keys = config.all_keys()?;
        keys.insert(ARCHITECTURES.into(), vec![config.type_name()].into());
        keys.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
        Ok(keys)
    }

    fn build(config: &ModelConfig, vb: VarBuilder<'_>) -> Result<Self> {
        config.build(vb)
    }

    fn check_size(config: &ModelConfig, numbers: u128) -> Result<()> {
        let most = super::shapes::most(numbers);
        let place = || format!("{} config", config.architecture());
        let asked = config.num_parameters()?;
        if asked > most {
            let reason =
                format!("asks for {asked} parameters, but the weights are {numbers} numbers");
            return Err(Error::config(place(), reason));
        }
        let constants = config.num_constants();
        if constants > most {
            let reason = format!(
                "asks for {constants} position weights beside {numbers} weights: sentence_len is too large"
            );
            return Err(Error::config(place(), reason));
        }
        Ok(())
    }
}
