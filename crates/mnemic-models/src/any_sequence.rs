//! Every model that learns algorithms step by step behind one type, chosen by name.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mnemic_layers::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attention::{causal_self_attention, hierarchical_attention};
use crate::error::{Error, Result};
use crate::memory::{dnc, neural_stack, ntm, stack_rnn, structured_ntm};
use crate::pretrained::{ARCHITECTURES, PretrainedModel};
use crate::recurrent::lstm_transducer;
use crate::sequence::SequenceModel;

architectures! {
    /// The config of any of them. As JSON it is the architecture's own keys and `model_type`.
    SequenceConfig,
    /// A model of any of these architectures.
    AnySequenceModel: SequenceModel, (usize, usize);

    /// Neural Turing Machine.
    "ntm" Ntm: ntm::Ntm, |(i, o)| ntm::Config::lstm(i, o);
    /// Neural Turing Machine with a memory of two layers.
    "structured-ntm" StructuredNtm: structured_ntm::StructuredNtm, |(i, o)| structured_ntm::Config::ntm1(i, o);
    /// Differentiable Neural Computer.
    "dnc" Dnc: dnc::Dnc, |(i, o)| dnc::Config::lstm(i, o);
    /// LSTM that answers at every step.
    "lstm-transducer" LstmTransducer: lstm_transducer::LstmTransducer, |(i, o)| lstm_transducer::Config::lstm(i, o);
    /// LSTM with a continuous stack, queue or deque.
    "neural-stack" NeuralStack: neural_stack::NeuralStackLstm, |(i, o)| neural_stack::Config::stack(i, o);
    /// Recurrent network with stacks or lists that are moved by soft actions.
    "stack-rnn" StackRnn: stack_rnn::StackRnn, |(i, o)| stack_rnn::Config::stack(i, o);
    /// Attention over a tree of summaries.
    "hierarchical-attention" HierarchicalAttention: hierarchical_attention::HierarchicalAttentionEncoder, |(i, o)| hierarchical_attention::Config::essay(i, o);
    /// One block of causal attention.
    "causal-self-attention" CausalSelfAttention: causal_self_attention::CausalSelfAttention, |(i, o)| causal_self_attention::Config::block(i, o);
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
        sizes: (usize, usize),
        changes: Map<String, Value>,
    ) -> Result<Self> {
        Self::with_changes(architecture, sizes, changes)
    }
}

impl AnySequenceModel {
    /// The same model with actions in full (or soft ones) outside of training; `None` where an architecture has no actions to round.
    pub fn with_rounding(&self, rounding: bool) -> Option<Self> {
        match self {
            Self::StackRnn(model) => {
                Some(Self::StackRnn(Box::new(model.as_ref().clone().with_rounding(rounding))))
            }
            _ => None,
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
            error.contains("`nmt`")
                && error.contains("ntm, structured-ntm, dnc, lstm-transducer, neural-stack"),
            "{error}"
        );
        let changes = serde_json::json!({ "num_slots": 0 });
        let error = SequenceConfig::new("ntm", (3, 2), changes.as_object().unwrap().clone());
        assert!(error.unwrap_err().to_string().contains("num_slots"));
    }
}
