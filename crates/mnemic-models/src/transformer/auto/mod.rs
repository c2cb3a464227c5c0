//! Models of one kind, of the architecture that `config.json` names.
//!
//! The architecture is the one whose name stands in `architectures`, else the one of the `model_type`, else, where a converted file has
//! neither, the one whose keys are there. Each enum loads as the model in it would, and writes as it does.

mod causal;
#[cfg(test)]
mod encoder_tests;
mod encoders;
mod seq2seq;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use causal::{AutoCausalLm, AutoCausalLmConfig, AutoCausalLmState};
pub use encoders::{
    AutoEncoder, AutoEncoderConfig, AutoMaskedLm, AutoMaskedLmConfig, AutoSequenceClassifier,
    AutoSequenceClassifierConfig, AutoTokenClassifier, AutoTokenClassifierConfig, EncoderStates,
};
pub use seq2seq::{AutoSeq2SeqLm, AutoSeq2SeqLmConfig, AutoSeq2SeqLmState, OwnVocabulary};

use crate::any::MODEL_TYPE;
use crate::error::{Error, Result, shown};
use crate::pretrained::ARCHITECTURES;

/// What an architecture is known by.
struct Known {
    /// The class names of `architectures`.
    classes: &'static [&'static str],
    /// The names of `model_type`.
    types: &'static [&'static str],
    /// Keys that tell it where neither is there.
    keys: &'static [&'static str],
}

/// The place in `known` of the architecture that these keys name.
fn choose(kind: &str, known: &[Known], keys: &Map<String, Value>) -> Result<usize> {
    let classes = keys.get(ARCHITECTURES).and_then(Value::as_array);
    let mut classes = classes.into_iter().flatten().filter_map(Value::as_str).peekable();
    let model_type = keys.get(MODEL_TYPE).and_then(Value::as_str);
    let by_type = |name: &str| known.iter().position(|k| k.types.contains(&name));
    let found = match (classes.peek().copied(), model_type) {
        (None, None) => known
            .iter()
            .position(|k| !k.keys.is_empty() && k.keys.iter().all(|key| keys.contains_key(*key))),
        (None, Some(name)) => by_type(name),
        (Some(_), _) => {
            let class = |name| known.iter().position(|k| k.classes.contains(&name));
            classes.by_ref().find_map(class)
        }
    };
    found.ok_or_else(|| unknown(kind, known, keys))
}

/// [`choose`] of a base model, which is in the checkpoint of any class of its type.
fn choose_base(kind: &str, known: &[Known], keys: &Map<String, Value>) -> Result<usize> {
    let model_type = keys.get(MODEL_TYPE).and_then(Value::as_str);
    match model_type.and_then(|name| known.iter().position(|k| k.types.contains(&name))) {
        Some(found) => Ok(found),
        None => choose(kind, known, keys),
    }
}

fn unknown(kind: &str, known: &[Known], keys: &Map<String, Value>) -> Error {
    let list = |part: fn(&Known) -> &'static [&'static str]| {
        known.iter().flat_map(part).copied().collect::<Vec<_>>().join(", ")
    };
    let (classes, types) = (list(|k| k.classes), list(|k| k.types));
    let found = [ARCHITECTURES, MODEL_TYPE]
        .iter()
        .filter_map(|key| {
            Some(format!("{key} {}", shown(&keys.get(*key)?.to_string().replace('"', ""))))
        })
        .collect::<Vec<_>>();
    let found = if found.is_empty() { "neither".to_string() } else { found.join(", ") };
    let reason =
        format!("expected {kind}: architectures {classes}, or model_type {types}; got {found}");
    Error::config("config.json", reason)
}

/// An enum of models of one kind with its config.
macro_rules! kind {
    (
        $(#[$doc:meta])*
        $auto:ident, $config:ident, $kind:literal, $choose:path;
        $($(#[$variant_doc:meta])* $variant:ident($model:ty): [$($class:literal),+], [$($name:literal),+], [$($key:literal),*];)+
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub enum $auto {
            $($(#[$variant_doc])* $variant(Box<$model>),)+
        }

        #[doc = concat!("The config of an [`", stringify!($auto), "`].")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum $config {
            $($(#[$variant_doc])* $variant(Box<<$model as $crate::PretrainedModel>::Config>),)+
        }

        impl $auto {
            /// The name of the architecture, as `model_type` has it.
            pub fn architecture(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => [$($name),+][0],)+
                }
            }
        }

        impl $crate::PretrainedModel for $auto {
            type Config = $config;

            fn read_config(
                keys: serde_json::Map<String, serde_json::Value>,
            ) -> $crate::Result<$config> {
                const KNOWN: &[super::Known] = &[
                    $(super::Known { classes: &[$($class),+], types: &[$($name),+], keys: &[$($key),*] },)+
                ];
                let chosen = $choose($kind, KNOWN, &keys)?;
                let mut place = 0;
                $(
                    if chosen == place {
                        let config = <$model as $crate::PretrainedModel>::read_config(keys)?;
                        return Ok($config::$variant(Box::new(config)));
                    }
                    place += 1;
                )+
                Err($crate::Error::config("config.json", format!("there is no architecture {place}")))
            }

            fn config_keys(
                config: &$config,
            ) -> $crate::Result<serde_json::Map<String, serde_json::Value>> {
                match config {
                    $($config::$variant(c) => <$model as $crate::PretrainedModel>::config_keys(c),)+
                }
            }

            fn build(config: &$config, vb: candle_nn::VarBuilder<'_>) -> $crate::Result<Self> {
                match config {
                    $($config::$variant(c) => {
                        let model = <$model as $crate::PretrainedModel>::build(c, vb)?;
                        Ok(Self::$variant(Box::new(model)))
                    })+
                }
            }

            fn check_size(config: &$config, numbers: u128) -> $crate::Result<()> {
                match config {
                    $($config::$variant(c) => {
                        <$model as $crate::PretrainedModel>::check_size(c, numbers)
                    })+
                }
            }

            fn place(config: &$config, name: &str) -> $crate::Place {
                match config {
                    $($config::$variant(c) => <$model as $crate::PretrainedModel>::place(c, name),)+
                }
            }

            fn adapt(
                config: &mut $config,
                found: &std::collections::BTreeMap<String, Vec<usize>>,
            ) {
                match config {
                    $($config::$variant(c) => <$model as $crate::PretrainedModel>::adapt(c, found),)+
                }
            }

            fn stored(config: &$config, name: &str) -> $crate::Place {
                match config {
                    $($config::$variant(c) => <$model as $crate::PretrainedModel>::stored(c, name),)+
                }
            }
        }
    };
}

/// A [`kind`] of models that write, with its state.
macro_rules! auto {
    (
        $(#[$doc:meta])*
        $auto:ident, $config:ident, $state:ident, $kind:literal, encodes: $encodes:literal;
        $($(#[$variant_doc:meta])* $variant:ident($model:ty): [$($class:literal),+], [$($name:literal),+], [$($key:literal),*];)+
    ) => {
        super::kind! {
            $(#[$doc])*
            $auto, $config, $kind, super::choose;
            $($(#[$variant_doc])* $variant($model): [$($class),+], [$($name),+], [$($key),*];)+
        }

        #[doc = concat!("What an [`", stringify!($auto), "`] has read.")]
        #[derive(Debug, Clone)]
        pub enum $state {
            $($(#[$variant_doc])* $variant(Box<<$model as $crate::Autoregressive>::State>),)+
        }

        impl $crate::Autoregressive for $auto {
            type State = $state;

            fn vocab_size(&self) -> usize {
                match self {
                    $(Self::$variant(model) => model.vocab_size(),)+
                }
            }

            fn is_encoder_decoder(&self) -> bool {
                $encodes
            }

            fn max_positions(&self) -> Option<usize> {
                match self {
                    $(Self::$variant(model) => model.max_positions(),)+
                }
            }

            fn start(
                &self,
                batch: &$crate::TextBatch,
                ctx: &$crate::Context,
            ) -> candle_core::Result<$state> {
                match self {
                    $(Self::$variant(model) => {
                        Ok($state::$variant(Box::new(model.start(batch, ctx)?)))
                    })+
                }
            }

            fn step(
                &self,
                ids: &candle_core::Tensor,
                state: &mut $state,
                ctx: &$crate::Context,
            ) -> candle_core::Result<candle_core::Tensor> {
                match (self, state) {
                    $((Self::$variant(model), $state::$variant(state)) => {
                        model.step(ids, state, ctx)
                    })+
                    _ => candle_core::bail!("the state is not one of {}", self.architecture()),
                }
            }

            fn select(&self, state: &mut $state, rows: &[u32]) -> candle_core::Result<()> {
                match (self, state) {
                    $((Self::$variant(model), $state::$variant(state)) => {
                        model.select(state, rows)
                    })+
                    _ => candle_core::bail!("the state is not one of {}", self.architecture()),
                }
            }
        }
    };
}

use {auto, kind};
