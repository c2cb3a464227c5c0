//! Every model that learns algorithms behind one type, chosen by name.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mnemic_layers::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attention::{causal_self_attention, hierarchical_attention};
use crate::error::{Error, Result};
use crate::memory::{neural_stack, ntm};
use crate::pretrained::{ARCHITECTURES, PretrainedModel};
use crate::recurrent::lstm_transducer;
use crate::sequence::SequenceModel;

/// From a list of architectures: name, variant, module and type of the model, and the constructor of the paper's config, which takes
/// the widths of inputs and outputs.
macro_rules! sequence_models {
    ($($(#[$about:meta])* $name:literal $variant:ident: $module:ident::$model:ident, $paper:ident;)*) => {
        /// The config of any of them. As JSON it is the architecture's own keys and `model_type`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        #[non_exhaustive]
        pub enum SequenceConfig {
            $($(#[$about])* #[serde(rename = $name)] $variant($module::Config),)*
        }

        /// A model of any of these architectures.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum AnySequenceModel {
            $($(#[$about])* $variant(Box<$module::$model>),)*
        }

        impl SequenceConfig {
            /// The names of the architectures.
            pub const ARCHITECTURES: &[&str] = &[$($name),*];

            fn paper(architecture: &str, input_size: usize, output_size: usize) -> Option<Self> {
                match architecture {
                    $($name => Some(Self::$variant($module::Config::$paper(input_size, output_size))),)*
                    _ => None,
                }
            }

            /// The name of the architecture.
            pub fn architecture(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($model),)*
                }
            }

            /// Checks the values.
            ///
            /// # Errors
            /// When one makes no sense, naming it.
            pub fn validate(&self) -> Result<()> {
                match self {
                    $(Self::$variant(config) => config.validate()?,)*
                }
                Ok(())
            }

            /// The model with its parameters from `vb`.
            ///
            /// # Errors
            /// When the config is not valid, or a parameter exists with another shape or type.
            pub fn build(&self, vb: VarBuilder<'_>) -> Result<AnySequenceModel> {
                Ok(match self {
                    $(Self::$variant(config) => {
                        AnySequenceModel::$variant(Box::new($module::$model::new(config, vb)?))
                    })*
                })
            }
        }

        impl AnySequenceModel {
            fn inner(&self) -> &dyn SequenceModel {
                match self {
                    $(Self::$variant(model) => model.as_ref(),)*
                }
            }
        }
    };
}

sequence_models! {
    /// Neural Turing Machine.
    "ntm" Ntm: ntm::Ntm, lstm;
    /// LSTM that answers at every step.
    "lstm-transducer" LstmTransducer: lstm_transducer::LstmTransducer, lstm;
    /// LSTM with a continuous stack, queue or deque.
    "neural-stack" NeuralStack: neural_stack::NeuralStackLstm, stack;
    /// Attention over a tree of summaries.
    "hierarchical-attention" HierarchicalAttention: hierarchical_attention::HierarchicalAttentionEncoder, essay;
    /// One block of causal attention.
    "causal-self-attention" CausalSelfAttention: causal_self_attention::CausalSelfAttention, block;
}

impl SequenceConfig {
    /// The paper's config of an architecture for these widths of inputs and outputs, with `changes` of single keys.
    ///
    /// ```
    /// use mnemic_models::SequenceConfig;
    /// let changes = serde_json::json!({ "num_slots": 64 });
    /// let config = SequenceConfig::new("ntm", (9, 8), changes.as_object().unwrap().clone())?;
    /// assert_eq!(config.architecture(), "ntm");
    /// let error = SequenceConfig::new("ntm", (9, 8), serde_json::from_str(r#"{"slots": 1}"#)?).unwrap_err();
    /// assert!(error.to_string().contains("slots"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the architecture or a key is unknown, or a value makes no sense.
    pub fn new(
        architecture: &str,
        (input_size, output_size): (usize, usize),
        changes: Map<String, Value>,
    ) -> Result<Self> {
        let Some(base) = Self::paper(architecture, input_size, output_size) else {
            let reason = format!("expected one of {}", Self::ARCHITECTURES.join(", "));
            return Err(Error::config(format!("architecture `{architecture}`"), reason));
        };
        let mut keys = base.keys()?;
        keys.extend(changes);
        Self::from_keys(keys)
    }

    fn from_keys(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(keys))
            .map_err(|e| Error::config("config", e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    fn keys(&self) -> Result<Map<String, Value>> {
        match serde_json::to_value(self) {
            Ok(Value::Object(keys)) => Ok(keys),
            Ok(_) => Err(Error::config(self.architecture(), "the config is not an object")),
            Err(e) => Err(Error::config(self.architecture(), e.to_string())),
        }
    }
}

impl SequenceModel for AnySequenceModel {
    fn input_size(&self) -> usize {
        self.inner().input_size()
    }

    fn output_size(&self) -> usize {
        self.inner().output_size()
    }

    fn forward(
        &self,
        inputs: &Tensor,
        wanted: Option<&[bool]>,
        ctx: &Context,
    ) -> candle_core::Result<Tensor> {
        self.inner().forward(inputs, wanted, ctx)
    }
}

impl PretrainedModel for AnySequenceModel {
    type Config = SequenceConfig;

    fn read_config(mut keys: Map<String, Value>) -> Result<SequenceConfig> {
        keys.remove(ARCHITECTURES);
        SequenceConfig::from_keys(keys)
    }

    fn config_keys(config: &SequenceConfig) -> Result<Map<String, Value>> {
        let mut keys = config.keys()?;
        keys.insert(ARCHITECTURES.into(), vec![config.type_name()].into());
        Ok(keys)
    }

    fn build(config: &SequenceConfig, vb: VarBuilder<'_>) -> Result<Self> {
        config.build(vb)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use mnemic_layers::ParamStore;
    use mnemic_testing::{assert_close, waves};

    use super::*;
    use crate::{Pretrained, from_pretrained, save_pretrained};

    #[test]
    fn all_are_saved_and_read_again() {
        for &name in SequenceConfig::ARCHITECTURES {
            let changes = serde_json::json!({ "hidden_size": 6 });
            let changes = changes.as_object().unwrap().clone();
            let config = SequenceConfig::new(name, (3, 2), changes).unwrap();
            let store = ParamStore::new(1);
            let model = config.build(store.builder(DType::F32, &Device::Cpu)).unwrap();
            let dir = tempfile::TempDir::new().unwrap();
            save_pretrained::<AnySequenceModel>(dir.path(), &config, &store, &[]).unwrap();
            let again: Pretrained<AnySequenceModel> =
                from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(again.config, config);
            let inputs = waves(&[2, 4, 3], 1., 1., DType::F32);
            let scores = |m: &AnySequenceModel| m.forward(&inputs, None, &Context::eval()).unwrap();
            assert_close(name, &scores(&again.model), &scores(&model), 0., 0.);
        }
    }

    #[test]
    fn unknown_names_and_keys_are_refused() {
        let error = SequenceConfig::new("nmt", (3, 2), Map::new()).unwrap_err().to_string();
        assert!(
            error.contains("`nmt`") && error.contains("ntm, lstm-transducer, neural-stack"),
            "{error}"
        );
        let changes = serde_json::json!({ "num_slots": 0 });
        let error = SequenceConfig::new("ntm", (3, 2), changes.as_object().unwrap().clone());
        assert!(error.unwrap_err().to_string().contains("num_slots"));
    }
}
