//! Neural Turing Machine (NTM): A. Graves, G. Wayne, I. Danihelka, arXiv 1410.5401 (2014).
//!
//! A controller reads and writes a matrix through heads whose soft weightings combine lookup by content with relative shifts, so that the
//! machine is differentiable throughout and learns programs such as copying. A step: the controller takes `[x_t; r_{t-1}]` to `h_t`; the heads,
//! linear in `h_t`, find their weightings, read `r_t` and write ([`NtmMemory`]); the output is linear in `[h_t; r_t]`.
//!
//! Letters: b batch, t time, i inputs, o outputs, h hidden_size.
//!
//! Parameters: `controller` (an [`Lstm`], or `controller.{l}` linear layers), `memory` ([`NtmMemory`]), `output`.
//!
//! Differences from the paper: it leaves open the order of reading and writing, the functions that keep the heads' numbers in
//! range, and the initial state; [`NtmMemory`] says what is done here (the order and the constant memory of Collier and Beel, ICANN 2018).
//! Nothing is clipped in the forward pass: the addressing is safe for any controls.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, Linear, Lstm, NtmMemory, NtmState, RecurrentConfig, RecurrentInit, concat, init,
    linear, tanh,
};

use crate::sequence::{SequenceModel, check_inputs, step_through};

pub use config::{Config, Controller};

/// The machine.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::ntm::{Config, Ntm};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let store = ParamStore::new(0);
/// let ntm = Ntm::new(&Config::lstm(9, 8), store.builder(DType::F32, &Device::Cpu))?;
/// let ctx = Context::eval().watching();
/// let scores = ntm.forward(&Tensor::zeros((2, 5, 9), DType::F32, &Device::Cpu)?, None, &ctx)?;
/// assert_eq!(scores.dims(), [2, 5, 8]);
/// let first = &ctx.take_trace()[0]; // the read heads' weightings in step 0
/// assert_eq!((first.name.as_str(), first.value.dims()), ("read_weights", &[2, 1, 128][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ntm {
    config: Config,
    controller: ControllerNet,
    memory: NtmMemory,
    output: Linear,
}

#[derive(Debug, Clone)]
enum ControllerNet {
    Lstm(Box<Lstm>),
    FeedForward(Vec<Linear>),
}

/// What the machine carries from step to step.
#[derive(Debug, Clone)]
pub struct State {
    /// Hidden and cell state of an LSTM controller after its first step, `(layers, b, h)` each.
    pub controller: Option<(Tensor, Tensor)>,
    /// The memory and its heads.
    pub memory: NtmState,
    /// Steps done.
    pub steps: usize,
}

impl Ntm {
    /// A machine with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let h = config.hidden_size;
        let read = config.read_heads * config.slot_width;
        let width = config.input_size + read;
        let vb_controller = vb.pp("controller");
        let controller = match config.controller {
            Controller::Lstm => {
                let sizes = RecurrentConfig {
                    num_layers: config.num_layers,
                    ..RecurrentConfig::new(width, h)
                };
                let init = RecurrentInit::pytorch().with_gate_bias(1.);
                ControllerNet::Lstm(Box::new(Lstm::with_init(sizes, init, vb_controller)?))
            }
            Controller::FeedForward => {
                let layer = |l: usize| {
                    let from = if l == 0 { width } else { h };
                    linear(from, h, true, init::xavier_uniform(from, h), vb_controller.pp(l))
                };
                ControllerNet::FeedForward(
                    (0..config.num_layers).map(layer).collect::<Result<_>>()?,
                )
            }
        };
        let (from, to) = (h + read, config.output_size);
        Ok(Self {
            config: config.clone(),
            controller,
            memory: NtmMemory::new(config.memory(), vb.pp("memory"))?,
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
        Ok(State { controller: None, memory: self.memory.start(b)?, steps: 0 })
    }

    /// One step on `x (b, i)`: what the output is linear in, `[h_t; r_t]`, and the next state.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn step(&self, x: &Tensor, state: &State, ctx: &Context) -> Result<(Tensor, State)> {
        let input = concat(&[x.clone(), state.memory.read.clone()])?;
        let (hidden, controller) = match &self.controller {
            ControllerNet::Lstm(lstm) => {
                let before = state.controller.as_ref().map(|(h, c)| (h, c));
                let out = lstm.step(&input, before, ctx)?;
                (out.output, Some((out.hidden, out.cell)))
            }
            ControllerNet::FeedForward(layers) => {
                let layer = |xs: Tensor, map: &Linear| tanh(&map.forward(&xs)?);
                (layers.iter().try_fold(input, layer)?, None)
            }
        };
        let memory = self.memory.step(&hidden, &state.memory, state.steps, ctx)?;
        let features = concat(&[hidden, memory.read.clone()])?;
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

impl SequenceModel for Ntm {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, _) = check_inputs("ntm", inputs, self.config.input_size)?;
        let mut state = self.start(b)?;
        let features = step_through(inputs, wanted, |x| {
            let (given, next) = self.step(x, &state, ctx)?;
            state = next;
            Ok(given)
        })?;
        self.scores(&features)
    }
}
