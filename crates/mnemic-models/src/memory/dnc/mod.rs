//! Differentiable Neural Computer (DNC): A. Graves, G. Wayne, M. Reynolds et al., "Hybrid computing using a neural network with dynamic external
//! memory", Nature 538, 471-476 (2016).
//!
//! A controller writes a matrix where it is free or by content, and reads it by content or in the order it was written in. A step: every layer l of
//! the controller, an LSTM, takes `[x_t; r_{t-1}; h_t^{l-1}]`; the memory's interface is linear in all layers' `[h_t^1; …]` ([`DncMemory`]); the scores
//! are linear in them and in what is read, `[h_t^1; …; r_t]`.
//!
//! Letters: b batch, t time, i inputs, o outputs, h hidden_size, l layers.
//!
//! Parameters: `controller.{l}` (an [`Lstm`] each), `memory` ([`DncMemory`]), `output`.
//!
//! Differences from the paper: forget gates start open (bias 1). Nothing is clipped in the forward pass (the authors' code clips the controller
//! and the scores to ±20), strengths are `1 + softplus` as in the paper (their code: softplus), and the usage's gradient passes on through what was
//! written (their code stops it).

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, DncMemory, DncState, Linear, Lstm, RecurrentConfig, RecurrentInit, concat, init,
    linear,
};

use crate::sequence::{SequenceModel, check_inputs, step_through};

pub use config::Config;

/// The computer.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::dnc::{Config, Dnc};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let store = ParamStore::new(0);
/// let dnc = Dnc::new(&Config::lstm(9, 8), store.builder(DType::F32, &Device::Cpu))?;
/// let ctx = Context::eval().watching();
/// let scores = dnc.forward(&Tensor::zeros((2, 5, 9), DType::F32, &Device::Cpu)?, None, &ctx)?;
/// assert_eq!(scores.dims(), [2, 5, 8]);
/// let trace = ctx.take_trace();
/// let usage = trace.iter().find(|entry| entry.name == "usage").unwrap();
/// assert_eq!(usage.value.dims(), [2, 1, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dnc {
    config: Config,
    controller: Vec<Lstm>,
    memory: DncMemory,
    output: Linear,
}

/// What the computer carries from step to step.
#[derive(Debug, Clone)]
pub struct State {
    /// Hidden and cell state of each layer after its first step, `(1, b, h)` each.
    pub controller: Vec<(Tensor, Tensor)>,
    /// The memory and its heads.
    pub memory: DncState,
    /// Steps done.
    pub steps: usize,
}

impl Dnc {
    /// A computer with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let h = config.hidden_size;
        let read = config.read_heads * config.slot_width;
        let init = RecurrentInit::pytorch().with_gate_bias(1.);
        let vb_controller = vb.pp("controller");
        let layer = |l: usize| {
            let below = if l == 0 { 0 } else { h };
            let sizes = RecurrentConfig::new(config.input_size + read + below, h);
            Lstm::with_init(sizes, init, vb_controller.pp(l))
        };
        let (from, to) = (config.num_layers * h + read, config.output_size);
        Ok(Self {
            config: config.clone(),
            controller: (0..config.num_layers).map(layer).collect::<Result<_>>()?,
            memory: DncMemory::new(config.memory(), vb.pp("memory"))?,
            output: linear(from, to, true, init::xavier_uniform(from, to), vb.pp("output"))?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state before the first of `b` sequences' steps.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<State> {
        Ok(State { controller: vec![], memory: self.memory.start(b)?, steps: 0 })
    }

    /// One step on `x (b, i)`: what the scores are linear in, `[h_t^1; …; r_t]`, and the next state.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn step(&self, x: &Tensor, state: &State, ctx: &Context) -> Result<(Tensor, State)> {
        let input = concat(&[x.clone(), state.memory.read.clone()])?;
        let mut controller = Vec::with_capacity(self.controller.len());
        let mut hidden: Vec<Tensor> = vec![];
        for (l, lstm) in self.controller.iter().enumerate() {
            let input = match hidden.last() {
                Some(below) => concat(&[input.clone(), below.clone()])?,
                None => input.clone(),
            };
            let before = state.controller.get(l).map(|(h, c)| (h, c));
            let out = lstm.step(&input, before, ctx)?;
            hidden.push(out.output);
            controller.push((out.hidden, out.cell));
        }
        let all = if let [only] = hidden.as_slice() { only.clone() } else { concat(&hidden)? };
        let memory = self.memory.step(&all, &state.memory, state.steps, ctx)?;
        let features = concat(&[all, memory.read.clone()])?;
        Ok((features, State { controller, memory, steps: state.steps + 1 }))
    }

    /// The scores of what [`step`](Self::step) gives, of any leading axes.
    ///
    /// # Errors
    /// When the width does not fit.
    pub fn scores(&self, features: &Tensor) -> Result<Tensor> {
        self.output.forward(features)
    }
}

impl SequenceModel for Dnc {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, _) = check_inputs("dnc", inputs, self.config.input_size)?;
        let mut state = self.start(b)?;
        let features = step_through(inputs, wanted, |x| {
            let (given, next) = self.step(x, &state, ctx)?;
            state = next;
            Ok(given)
        })?;
        self.scores(&features)
    }
}
