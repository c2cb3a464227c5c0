//! LSTM with a continuous stack, queue or double-ended queue: E. Grefenstette, K. M. Hermann, M. Suleyman, P. Blunsom, arXiv 1506.02516
//! (2015), "Learning to Transduce with Unbounded Memory".
//!
//! A step: the LSTM takes `[W_e x_t; r_{t-1}]` to `h_t`; from `h_t` come what is pushed and popped and with it `r_t` ([`NeuralStack`]); the scores are linear in
//! `o_t = tanh(W_o h_t + b_o)`.
//!
//! Letters: b batch, t time, i inputs, o outputs, h hidden_size, m memory_width.
//!
//! Parameters: `embedding` (no bias), `controller` (an [`Lstm`]), `start.hidden` and `start.cell` `(layers h, 1)`, `memory` ([`NeuralStack`]), `transform (h, h)`,
//! `output`.
//!
//! Differences from the paper: `o_t` has the controller's width (the paper does not give it); the cell state before the first step is learnt
//! too; forget gates start open (bias 1).

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Context, Linear, Lstm, NeuralStack, NeuralStackState, RecurrentConfig, RecurrentInit, concat,
    init, linear, tanh,
};

use crate::sequence::{SequenceModel, check_inputs, step_through};

pub use config::{Config, Structure};

/// The network.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::neural_stack::{Config, NeuralStackLstm};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let config = Config { hidden_size: 16, memory_width: 8, ..Config::stack(20, 10) };
/// let store = ParamStore::new(0);
/// let model = NeuralStackLstm::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let inputs = Tensor::zeros((2, 5, 20), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&inputs, None, &Context::eval())?.dims(), [2, 5, 10]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NeuralStackLstm {
    config: Config,
    embedding: Linear,
    controller: Lstm,
    hidden: Linear,
    cell: Linear,
    memory: NeuralStack,
    transform: Linear,
    output: Linear,
}

/// What the network carries from step to step.
#[derive(Debug, Clone)]
pub struct State {
    /// Hidden and cell state of the controller, `(layers, b, h)` each.
    pub controller: (Tensor, Tensor),
    /// The memory.
    pub memory: NeuralStackState,
    /// Steps done.
    pub steps: usize,
}

impl NeuralStackLstm {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let Config { input_size: i, output_size: o, hidden_size: h, .. } = *config;
        let (embedding_size, layers) = (config.embedding_size, config.num_layers);
        let memory =
            NeuralStack::new(config.structure.into(), h, config.memory_width, vb.pp("memory"))?;
        let sizes = RecurrentConfig {
            num_layers: layers,
            ..RecurrentConfig::new(embedding_size + memory.read_size(), h)
        };
        let init = RecurrentInit::pytorch().with_gate_bias(1.);
        let start = |name| {
            let weight = vb.pp("start").get_with_hints(
                (layers * h, 1),
                name,
                Init::Randn { mean: 0., stdev: 0.1 },
            )?;
            Ok::<_, candle_core::Error>(Linear::new(weight, None))
        };
        // One-hot inputs choose rows of numbers like a word's: their size is not to depend on how many there are.
        let rows = Init::Randn { mean: 0., stdev: 0.1 };
        Ok(Self {
            config: config.clone(),
            embedding: linear(i, embedding_size, false, rows, vb.pp("embedding"))?,
            controller: Lstm::with_init(sizes, init, vb.pp("controller"))?,
            hidden: start("hidden")?,
            cell: start("cell")?,
            memory,
            transform: linear(h, h, true, init::xavier_uniform(h, h), vb.pp("transform"))?,
            output: linear(h, o, true, init::xavier_uniform(h, o), vb.pp("output"))?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state before the first step of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<State> {
        let (layers, h) = (self.config.num_layers, self.config.hidden_size);
        // A product with ones repeats a row, and passes its gradient on without candle's broadcast.
        let weight = self.hidden.weight();
        let ones = Tensor::ones((b, 1), weight.dtype(), weight.device())?;
        let repeat = |state: &Linear| -> Result<Tensor> {
            let rows = state.forward(&ones)?; // (b, layers h)
            match layers {
                1 => rows.reshape((1, b, h)),
                _ => rows.reshape((b, layers, h))?.transpose(0, 1),
            }
        };
        Ok(State {
            controller: (repeat(&self.hidden)?, repeat(&self.cell)?),
            memory: self.memory.start(b)?,
            steps: 0,
        })
    }

    /// One step on embedded inputs `(b, e)`: `h_t (b, h)`; the state becomes that after the step.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn step(&self, embedded: &Tensor, state: &mut State, ctx: &Context) -> Result<Tensor> {
        let input = concat(&[embedded.clone(), state.memory.read.clone()])?;
        let (hidden, cell) = (&state.controller.0, &state.controller.1);
        let out = self.controller.step(&input, Some((hidden, cell)), ctx)?;
        self.memory.step(&out.output, &mut state.memory, state.steps, ctx)?;
        state.controller = (out.hidden, out.cell);
        state.steps += 1;
        Ok(out.output)
    }
}

impl SequenceModel for NeuralStackLstm {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, _) = check_inputs("neural stack", inputs, self.config.input_size)?;
        let mut state = self.start(b)?;
        let hidden = step_through(&self.embedding.forward(inputs)?, wanted, |x| {
            self.step(x, &mut state, ctx)
        })?;
        self.output.forward(&tanh(&self.transform.forward(&hidden)?)?)
    }
}
