//! An LSTM that answers at every step: what machines with a memory are measured against (Graves et al. 2014, arXiv 1410.5401, section 4).
//!
//! Parameters: `lstm` (an [`Lstm`] stack) and `output`, linear in the last layer's hidden state; `embedding` (no bias) where the inputs are embedded
//! first, as for symbols (Grefenstette et al. 2015, arXiv 1506.02516). Differences from the papers: forget gates start open (bias 1).

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Context, Linear, Lstm, RecurrentConfig, RecurrentInit, init, linear, stack, unbind,
};
use serde::{Deserialize, Serialize};

use crate::sequence::{SequenceModel, wanted_steps};

/// The sizes of an [`LstmTransducer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// Width of a layer.
    pub hidden_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Width of the embedded inputs; none where the LSTM reads them as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
}

impl Config {
    /// Three layers of 256, the paper's row `copy` (table 3).
    pub fn lstm(input_size: usize, output_size: usize) -> Self {
        Self { input_size, output_size, hidden_size: 256, num_layers: 3, embedding_size: None }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one is 0, naming it.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [
            ("input_size", self.input_size),
            ("output_size", self.output_size),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
            ("embedding_size", self.embedding_size.unwrap_or(1)),
        ] {
            if size == 0 {
                bail!("lstm transducer config: {name} must be positive");
            }
        }
        Ok(())
    }
}

/// The network.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::recurrent::lstm_transducer::{Config, LstmTransducer};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let config = Config { hidden_size: 16, ..Config::lstm(9, 8) };
/// let store = ParamStore::new(0);
/// let lstm = LstmTransducer::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let inputs = Tensor::zeros((2, 3, 9), DType::F32, &Device::Cpu)?;
/// let scores = lstm.forward(&inputs, Some(&[false, true, true]), &Context::eval())?;
/// assert_eq!(scores.dims(), [2, 2, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LstmTransducer {
    config: Config,
    embedding: Option<Linear>,
    lstm: Lstm,
    output: Linear,
}

impl LstmTransducer {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (i, h, o) = (config.input_size, config.hidden_size, config.output_size);
        let sizes = RecurrentConfig {
            num_layers: config.num_layers,
            ..RecurrentConfig::new(config.embedding_size.unwrap_or(i), h)
        };
        let rows = Init::Randn { mean: 0., stdev: 0.1 };
        let embed = |to| linear(i, to, false, rows, vb.pp("embedding"));
        let init = RecurrentInit::pytorch().with_gate_bias(1.);
        Ok(Self {
            config: config.clone(),
            embedding: config.embedding_size.map(embed).transpose()?,
            lstm: Lstm::with_init(sizes, init, vb.pp("lstm"))?,
            output: linear(h, o, true, init::xavier_uniform(h, o), vb.pp("output"))?,
        })
    }
}

impl SequenceModel for LstmTransducer {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let embedded = self.embedding.as_ref().map(|map| map.forward(inputs)).transpose()?;
        let inputs = embedded.as_ref().unwrap_or(inputs);
        let hidden = self.lstm.forward(inputs, None, None, ctx)?.output; // (b, t, h)
        let wanted = wanted_steps(wanted, inputs.dim(1)?)?;
        if wanted.iter().all(|&wanted| wanted) {
            return self.output.forward(&hidden);
        }
        let steps = unbind(&hidden)?.into_iter().zip(wanted);
        let steps: Vec<Tensor> = steps.filter(|(_, wanted)| *wanted).map(|(xs, _)| xs).collect();
        self.output.forward(&stack(&steps)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use mnemic_layers::ParamStore;
    use mnemic_testing::{assert_close, waves};

    use super::*;
    use crate::testing::without_gradient;

    #[test]
    fn wanted_steps_are_those_of_the_whole_and_gradients_reach_everything() {
        let config = Config { hidden_size: 5, num_layers: 2, ..Config::lstm(3, 2) };
        let store = ParamStore::new(1);
        let lstm = LstmTransducer::new(&config, store.builder(DType::F64, &Device::Cpu)).unwrap();
        let inputs = waves(&[2, 4, 3], 1., 1., DType::F64);
        let ctx = Context::eval();
        let whole = lstm.forward(&inputs, None, &ctx).unwrap();
        let some = lstm.forward(&inputs, Some(&[false, true, false, true]), &ctx).unwrap();
        for (i, step) in [1, 3].into_iter().enumerate() {
            let expected = whole.narrow(1, step, 1).unwrap();
            assert_close("step", &some.narrow(1, i, 1).unwrap(), &expected, 1e-12, 1e-12);
        }
        let loss = some.sqr().unwrap().sum_all().unwrap();
        assert_eq!(without_gradient(&store, &loss), Vec::<String>::new());
        assert!(lstm.forward(&inputs, Some(&[false; 4]), &ctx).is_err());
        assert!(lstm.forward(&inputs, Some(&[true; 3]), &ctx).is_err());
    }
}
