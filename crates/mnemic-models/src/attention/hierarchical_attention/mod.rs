//! Hierarchical neural attention encoder, after E. Culurciello, "The fall of RNN / LSTM" (essay, towardsdatascience.com, April 2018).
//!
//! The essay asks for modules of attention that summarise the last, say, 100 vectors, and modules above them that look at 100 such modules, so that
//! 10,000 vectors are a few hops away. **It gives no equations, training, data or numbers: there is nothing to reproduce, and what is here is a definition
//! of our own.**
//!
//! Leaves `e_t = LN(W_e [x_t; …] + b_e)`; a tree of summaries and a readout `C_t` over what a counter to the base `b` has completed
//! ([`HierarchicalAttention`]); scores `y_t = W_y [C_t; e_t] + b`. From an input to a later output it is at most `Lv + 2` hops (leaf, a summary a level, readout; `2 Lv + 2` from the top
//! down), where an LSTM takes one for each step between.
//!
//! Letters: b batch, t time, i inputs, o outputs, d hidden_size; in formulas `b` is the branching and `Lv` the number of levels.
//!
//! Parameters: `embedding (d, conv_width i)` and `norm`, of leaves; `tree` ([`HierarchicalAttention`]); `output (o, 2d)`.
//!
//! Differences from the essay: none that it would tell apart. Choices where even an outline of it leaves several: `u⁰` is the readout's query without
//! a further map, and `C_t` has no output map, since `W_y` follows; λ is one table for the level and the place in the window; a descent expands the
//! `beam` heaviest nodes of each level of the frontier and of each node, and leaves the others out of the softmax; no dropout.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, HierarchicalAttention, HierarchicalState, Linear, concat, gather_steps, init, linear,
};

use super::leaves::Leaves;
use crate::sequence::{SequenceModel, check_inputs, wanted_steps};

pub use config::{Config, Readout};

/// The network.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::attention::hierarchical_attention::{Config, HierarchicalAttentionEncoder};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let config = Config { hidden_size: 8, branching: 4, levels: 2, ..Config::essay(9, 5) };
/// let store = ParamStore::new(0);
/// let model = HierarchicalAttentionEncoder::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let inputs = Tensor::zeros((2, 30, 9), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&inputs, None, &Context::eval())?.dims(), [2, 30, 5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HierarchicalAttentionEncoder {
    config: Config,
    leaves: Leaves,
    tree: HierarchicalAttention,
    output: Linear,
}

/// What the network carries from step to step.
#[derive(Debug, Clone)]
pub struct State {
    /// The last inputs `(b, i)`, the newest first.
    pub inputs: Vec<Tensor>,
    /// The nodes that may still be read.
    pub tree: HierarchicalState,
}

impl HierarchicalAttentionEncoder {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let Config { input_size: i, output_size: o, hidden_size: d, .. } = *config;
        Ok(Self {
            config: config.clone(),
            leaves: Leaves::new(i, d, config.conv_width, &vb)?,
            tree: HierarchicalAttention::new(config.layer(), vb.pp("tree"))?,
            output: linear(2 * d, o, true, init::xavier_uniform(2 * d, o), vb.pp("output"))?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tree of summaries.
    pub fn tree(&self) -> &HierarchicalAttention {
        &self.tree
    }

    /// The state before the first step.
    pub fn start(&self) -> State {
        State { inputs: vec![], tree: self.tree.start() }
    }

    /// The scores `(b, o)` of the next input `(b, i)`; the state becomes that after it.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn step(&self, input: &Tensor, state: &mut State, ctx: &Context) -> Result<Tensor> {
        state.inputs.insert(0, input.clone());
        state.inputs.truncate(self.leaves.window());
        let leaf = self.leaves.step(&state.inputs)?;
        let context = self.tree.step(&leaf, &mut state.tree, ctx)?;
        self.output.forward(&concat(&[context, leaf])?)
    }
}

impl SequenceModel for HierarchicalAttentionEncoder {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, t) = check_inputs("hierarchical attention", inputs, self.config.input_size)?;
        let wanted = wanted_steps(wanted, t)?;
        let leaves = self.leaves.forward(inputs)?;
        let contexts = self.tree.forward(&leaves, &wanted, ctx)?; // (b, q, d)
        let steps: Vec<usize> = (0..t).filter(|&step| wanted[step]).collect();
        let own = if steps.len() == t { leaves } else { gather_steps(&leaves, &vec![steps; b])? };
        self.output.forward(&concat(&[contexts, own])?)
    }
}
