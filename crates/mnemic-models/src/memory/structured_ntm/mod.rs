//! Neural Turing Machine with a memory of two layers, after W. Zhang, Y. Yu, B. Zhou, "Structured Memory for Neural Turing Machines", arXiv 1510.03931
//! (2015).
//!
//! A second layer that changes slowly smooths what is read. A step: the controller, an LSTM, takes `[x_t; r_{t-1}]` to `h_t`; the heads, linear in `h_t`, write
//! the layers and read the second one ([`StructuredMemory`]); the scores are linear in `[h_t; r_t]`.
//!
//! Letters: b batch, t time, i inputs, o outputs, h hidden_size.
//!
//! Parameters: `controller` (an [`Lstm`]), `memory` ([`StructuredMemory`]), `output`.
//!
//! Differences from the paper: only its abstract is certain, its equations are not. How the layers hang together is defined here, to agree with its outline
//! ([`MemoryStructure`](mnemic_layers::MemoryStructure)), and results are those of these definitions. One read head.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, Linear, Lstm, RecurrentConfig, RecurrentInit, StructuredMemory, StructuredState,
    concat, init, linear,
};

use crate::sequence::{SequenceModel, check_inputs, step_through};

pub use config::{Config, Structure};

/// The machine.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::structured_ntm::{Config, Structure, StructuredNtm};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let config = Config { structure: Structure::Ntm2, ..Config::ntm1(9, 8) };
/// let store = ParamStore::new(0);
/// let ntm = StructuredNtm::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let inputs = Tensor::zeros((2, 5, 9), DType::F32, &Device::Cpu)?;
/// assert_eq!(ntm.forward(&inputs, None, &Context::eval())?.dims(), [2, 5, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StructuredNtm {
    config: Config,
    controller: Lstm,
    memory: StructuredMemory,
    output: Linear,
}

/// What the machine carries from step to step.
#[derive(Debug, Clone)]
pub struct State {
    /// Hidden and cell state of the controller after its first step, `(layers, b, h)` each.
    pub controller: Option<(Tensor, Tensor)>,
    /// The memory and its heads.
    pub memory: StructuredState,
    /// Steps done.
    pub steps: usize,
}

impl StructuredNtm {
    /// A machine with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (h, w) = (config.hidden_size, config.slot_width);
        let sizes = RecurrentConfig {
            num_layers: config.num_layers,
            ..RecurrentConfig::new(config.input_size + w, h)
        };
        let init = RecurrentInit::pytorch().with_gate_bias(1.);
        let (from, to) = (h + w, config.output_size);
        Ok(Self {
            config: config.clone(),
            controller: Lstm::with_init(sizes, init, vb.pp("controller"))?,
            memory: StructuredMemory::new(config.memory(), vb.pp("memory"))?,
            output: linear(from, to, true, init::xavier_uniform(from, to), vb.pp("output"))?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The memory.
    pub fn memory(&self) -> &StructuredMemory {
        &self.memory
    }

    /// The state before the first of `b` sequences' steps.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<State> {
        Ok(State { controller: None, memory: self.memory.start(b)?, steps: 0 })
    }

    /// One step on `x (b, i)`: what the scores are linear in, `[h_t; r_t]`, and the next state.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn step(&self, x: &Tensor, state: &State, ctx: &Context) -> Result<(Tensor, State)> {
        let input = concat(&[x.clone(), state.memory.read.clone()])?;
        let before = state.controller.as_ref().map(|(h, c)| (h, c));
        let out = self.controller.step(&input, before, ctx)?;
        let memory = self.memory.step(&out.output, &state.memory, state.steps, ctx)?;
        let features = concat(&[out.output, memory.read.clone()])?;
        let controller = Some((out.hidden, out.cell));
        Ok((features, State { controller, memory, steps: state.steps + 1 }))
    }
}

impl SequenceModel for StructuredNtm {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, _) = check_inputs("structured ntm", inputs, self.config.input_size)?;
        let mut state = self.start(b)?;
        let features = step_through(inputs, wanted, |x| {
            let (given, next) = self.step(x, &state, ctx)?;
            state = next;
            Ok(given)
        })?;
        self.output.forward(&features)
    }
}
