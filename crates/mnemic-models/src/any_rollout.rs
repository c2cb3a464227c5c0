//! Every model that takes hard decisions behind one type, chosen by name.

use candle_nn::VarBuilder;
use mnemic_layers::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::memory::{ham, rl_ntm};
use crate::pretrained::{ARCHITECTURES, PretrainedModel};
use crate::rollout::{Cells, Rollout, RolloutModel};

architectures! {
    /// The config of any of them. As JSON it is the architecture's own keys and `model_type`.
    RolloutConfig,
    /// A model of any of these architectures.
    AnyRolloutModel: RolloutModel, (usize, usize, usize);

    /// LSTM with a hierarchical attentive memory.
    "ham" Ham: ham::LstmHam, |(i, o, q)| ham::Config::lstm(i, o, q);
    /// Neural Turing Machine with hard addresses.
    "rl-ntm" RlNtm: rl_ntm::RlNtm, |(i, o, _)| rl_ntm::Config::direct(i, o);
}

impl RolloutConfig {
    /// The paper's config of an architecture for these widths of a cell, an output and a query (0 where nothing is asked for), with `changes` of single keys.
    ///
    /// ```
    /// use mnemic_models::RolloutConfig;
    /// let changes = serde_json::json!({ "node_size": 24 });
    /// let config = RolloutConfig::new("ham", (9, 8, 0), changes.as_object().unwrap().clone())?;
    /// assert_eq!(config.architecture(), "ham");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the architecture or a key is unknown, or a value makes no sense.
    pub fn new(
        architecture: &str,
        sizes: (usize, usize, usize),
        changes: Map<String, Value>,
    ) -> Result<Self> {
        Self::with_changes(architecture, sizes, changes)
    }
}

impl RolloutModel for AnyRolloutModel {
    fn input_size(&self) -> usize {
        self.inner().input_size()
    }

    fn output_size(&self) -> usize {
        self.inner().output_size()
    }

    fn rollout(&self, cells: &Cells, ctx: &Context) -> candle_core::Result<Rollout> {
        self.inner().rollout(cells, ctx)
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
        for &name in RolloutConfig::ARCHITECTURES {
            let changes = serde_json::json!({ "hidden_size": 6 });
            let changes = changes.as_object().unwrap().clone();
            let config = RolloutConfig::new(name, (3, 3, 0), changes).unwrap();
            let store = ParamStore::new(1);
            let model = config.build(store.builder(DType::F32, &Device::Cpu)).unwrap();
            let dir = tempfile::TempDir::new().unwrap();
            save_pretrained::<AnyRolloutModel>(dir.path(), &config, &store, &[]).unwrap();
            let again: Pretrained<AnyRolloutModel> =
                from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(again.config, config);
            let cells = Cells {
                inputs: waves(&[2, 4, 3], 1., 1., DType::F32),
                query: None,
                targets: waves(&[2, 2, 3], 2., 1., DType::F32),
                symbols: true,
            };
            let scores = |m: &AnyRolloutModel| m.rollout(&cells, &Context::eval()).unwrap().scores;
            assert_close(name, &scores(&again.model), &scores(&model), 0., 0.);
        }
        let error = RolloutConfig::new("hma", (3, 3, 0), Map::new()).unwrap_err().to_string();
        assert!(error.contains("ham, rl-ntm"), "{error}");
    }
}
