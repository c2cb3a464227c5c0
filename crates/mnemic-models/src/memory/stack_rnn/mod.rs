//! Stack-augmented recurrent network and list RNN: A. Joulin, T. Mikolov, arXiv 1503.01007 (2015), "Inferring Algorithmic Patterns with Stack-Augmented Recurrent
//! Nets".
//!
//! A step (section 3.2; numbers of equations left out, the symbols are the paper's):
//!
//! - `h_t = σ(U x_t + R h_{t-1} + Σ_s P_s s_{t-1,s}[0:k])`: the hidden layer sees the first k cells of every stack;
//! - actions `softmax(A_s h_t)` and the pushed `σ(D_s h_t)` move each stack ([`ActionStacks`]);
//! - `y_t = V h_t`, the scores of the next symbol.
//!
//! Without `R`, as in the paper's counting tasks, the stacks are all that is remembered. `h_t` answers before the stacks move.
//!
//! A sequence is one fused operation ([`ActionStacks::scan`]); where something is rounded or watched, and on other devices, it goes step by step.
//!
//! Letters: b batch, t time, i inputs, o outputs, m hidden_size, S stacks, k visible_cells.
//!
//! Parameters: `input.weight` U `(m, i)`, `recurrent.weight` R `(m, m)` where there is one, `visible.weight` P `(m, S k)`, `memory` ([`ActionStacks`]: A, D),
//! `output.weight` V `(o, m)`. There are no biases. Each starts as the sum of three numbers uniform in ±0.1.
//!
//! Differences from the paper: sequences start with empty stacks and `h_0 = 0`, and gradients go back to their start (the paper goes on for 1000 sequences
//! and cuts gradients after 50 steps); of a list the cells around the head are seen, an even number with one more on the right (the paper does not
//! say which); INSERT moves what was under the head to the left, and nothing on the right.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{ActionStackState, ActionStacks, Context, Linear, add, init, sigmoid};

use crate::sequence::{SequenceModel, check_inputs, step_through, take_steps};

pub use config::{Config, Structure};

/// The network.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::stack_rnn::{Config, StackRnn};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let store = ParamStore::new(0);
/// let model = StackRnn::new(&Config::stack(3, 3), store.builder(DType::F32, &Device::Cpu))?;
/// let inputs = Tensor::zeros((2, 5, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&inputs, None, &Context::eval())?.dims(), [2, 5, 3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StackRnn {
    config: Config,
    input: Linear,
    recurrent: Option<Linear>,
    visible: Linear,
    memory: ActionStacks,
    output: Linear,
}

/// What the network carries from step to step.
#[derive(Debug, Clone)]
pub struct State {
    /// The hidden layer, `(b, m)`; none before the first step.
    pub hidden: Option<Tensor>,
    /// The stacks.
    pub memory: ActionStackState,
    /// Steps done.
    pub steps: usize,
}

impl StackRnn {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let Config { input_size: i, output_size: o, hidden_size: m, .. } = *config;
        let map = |from: usize, to: usize, name: &str| {
            let weight = init::three_uniforms(&vb.pp(name), (to, from), "weight", 0.1)?;
            Ok::<_, candle_core::Error>(Linear::new(weight, None))
        };
        Ok(Self {
            config: config.clone(),
            input: map(i, m, "input")?,
            recurrent: config.recurrence.then(|| map(m, m, "recurrent")).transpose()?,
            visible: map(config.stacks * config.visible_cells, m, "visible")?,
            memory: ActionStacks::new(config.memory(), m, vb.pp("memory"))?,
            output: map(m, o, "output")?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same network, with or without rounding outside of training.
    pub fn with_rounding(mut self, rounding: bool) -> Self {
        self.config.rounding = rounding;
        self.memory = self.memory.with_rounding(rounding);
        self
    }

    /// The state before the first step of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn start(&self, b: usize) -> Result<State> {
        Ok(State { hidden: None, memory: self.memory.start(b)?, steps: 0 })
    }

    /// One step on `U x_t (b, m)`: `h_t (b, m)`; the state becomes that after the step.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn step(&self, embedded: &Tensor, state: &mut State, ctx: &Context) -> Result<Tensor> {
        let mut sum = add(embedded, &self.visible.forward(&state.memory.visible)?)?;
        if let (Some(recurrent), Some(hidden)) = (&self.recurrent, &state.hidden) {
            sum = add(&sum, &recurrent.forward(hidden)?)?;
        }
        let hidden = sigmoid(&sum)?;
        self.memory.step(&hidden, &mut state.memory, state.steps, ctx)?;
        state.hidden = Some(hidden.clone());
        state.steps += 1;
        Ok(hidden)
    }
}

impl SequenceModel for StackRnn {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, _) = check_inputs("stack RNN", inputs, self.config.input_size)?;
        let embedded = self.input.forward(inputs)?; // (b, t, m)
        let hidden = if self.memory.scans(ctx) {
            let all = self.memory.scan(&embedded, &self.visible, self.recurrent.as_ref())?;
            take_steps(&all, wanted)?
        } else {
            let mut state = self.start(b)?;
            step_through(&embedded, wanted, |x| self.step(x, &mut state, ctx))?
        };
        self.output.forward(&hidden)
    }
}
