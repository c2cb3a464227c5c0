//! LSTM with a hierarchical attentive memory (LSTM+HAM): M. Andrychowicz, K. Kurach, "Learning Efficient Algorithms with Hierarchical Attentive
//! Memory", arXiv 1602.03218 (2016).
//!
//! The inputs are the leaves of a tree ([`HierarchicalMemory`]); the LSTM sees them through its accesses only, one for each output. A step: from `h_{t-1}` the memory goes down to
//! a leaf and gives its value; the LSTM takes that to `h_t`; the scores are linear in `h_t`; with `h_t` the leaf is written.
//!
//! Training maximises `E_A[log p(y | A, x)]` over the decisions A: the gradient is that of `log p(y | A, x)`, and `∇ log p(A_t) (R_t - R̄_t)` with the
//! log-likelihood `R_t` of the outputs from t on, later ones discounted (section 3.3, REINFORCE).
//!
//! Letters: b batch, n leaves, m outputs, i, o widths of inputs and outputs, h hidden_size.
//!
//! Parameters: `memory` ([`HierarchicalMemory`]), `controller` (an [`Lstm`]), `output`, and `query` where something is asked for.
//!
//! Differences from the paper: the baseline `R̄_t` is the mean of the other sequences of the batch at the same step; a query becomes the LSTM's first hidden state,
//! `tanh(W q + b)`; the paper's sizes are not certain.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Access, Context, Evaluations, HierarchicalMemory, Linear, Lstm, RecurrentConfig, RecurrentInit,
    Tree, add, concat, init, linear, policy_gradient, scale, stack, tanh,
};

use crate::rollout::{Cells, Rollout, RolloutModel, advantages, likelihood, returns};

pub use config::Config;

/// The network.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::ham::{Config, LstmHam};
/// use mnemic_models::{Cells, Context, ParamStore, RolloutModel};
/// let store = ParamStore::new(0);
/// let ham = LstmHam::new(&Config::lstm(6, 5, 0), store.builder(DType::F32, &Device::Cpu))?;
/// let zeros = |n, width| Tensor::zeros((2, n, width), DType::F32, &Device::Cpu);
/// let cells = Cells { inputs: zeros(8, 6)?, query: None, targets: zeros(8, 5)?, symbols: false };
/// let rollout = ham.rollout(&cells, &Context::eval())?;
/// assert_eq!(rollout.scores.dims(), [2, 8, 5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LstmHam {
    config: Config,
    memory: HierarchicalMemory,
    controller: Lstm,
    output: Linear,
    query: Option<Linear>,
}

/// The accesses of a pass, and what they led to.
#[derive(Debug, Clone)]
pub struct Run {
    /// `(b, m, o)`.
    pub scores: Tensor,
    /// One for each output.
    pub accesses: Vec<Access>,
    /// How often JOIN and SEARCH were computed, for one sequence.
    pub evaluations: Evaluations,
}

impl LstmHam {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (h, d, o, q) =
            (config.hidden_size, config.node_size, config.output_size, config.query_size);
        let init = RecurrentInit::pytorch().with_gate_bias(1.);
        let map =
            |from, to, name| linear(from, to, true, init::xavier_uniform(from, to), vb.pp(name));
        Ok(Self {
            config: config.clone(),
            memory: HierarchicalMemory::new(config.memory(), vb.pp("memory"))?,
            controller: Lstm::with_init(RecurrentConfig::new(d, h), init, vb.pp("controller"))?,
            output: map(h, o, "output")?,
            query: if q > 0 { Some(map(q, h, "query")?) } else { None },
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A pass that makes `m` outputs from `inputs (b, n, i)` and, where the config has one, a query `(b, q)`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn run(
        &self,
        inputs: &Tensor,
        query: Option<&Tensor>,
        m: usize,
        ctx: &Context,
    ) -> Result<Run> {
        self.run_by(
            inputs,
            query,
            m,
            &mut |t, hidden, tree| self.memory.descend(hidden, tree, t, ctx),
            ctx,
        )
    }

    /// [`run`](Self::run), with `descend` for an access by the hidden state.
    fn run_by(
        &self,
        inputs: &Tensor,
        query: Option<&Tensor>,
        m: usize,
        descend: &mut dyn FnMut(usize, &Tensor, &Tree) -> Result<Access>,
        ctx: &Context,
    ) -> Result<Run> {
        let (b, _, _) = inputs.dims3()?;
        let h = self.config.hidden_size;
        let mut tree = self.memory.build(inputs)?;
        let mut hidden = match (&self.query, query) {
            (Some(map), Some(query)) => tanh(&map.forward(query)?)?,
            (None, None) => Tensor::zeros((b, h), inputs.dtype(), inputs.device())?,
            (asked, given) => bail!(
                "ham: expected {} query, got {}",
                if asked.is_some() { "a" } else { "no" },
                if given.is_some() { "one" } else { "none" }
            ),
        };
        let mut cell = Tensor::zeros((1, b, h), inputs.dtype(), inputs.device())?;
        let (mut outputs, mut accesses) = (Vec::with_capacity(m), Vec::with_capacity(m));
        for t in 0..m {
            let access = descend(t, &hidden, &tree)?;
            let before = (&hidden.reshape((1, b, h))?, &cell);
            let out = self.controller.step(&access.value, Some(before), ctx)?;
            self.memory.write(&out.output, &access, &mut tree)?;
            (hidden, cell) = (out.output, out.cell);
            outputs.push(hidden.clone());
            accesses.push(access);
        }
        let scores = self.output.forward(&stack(&outputs)?)?;
        Ok(Run { scores, accesses, evaluations: tree.evaluations() })
    }

    /// The scalar that is minimised, given the log-likelihood of every output, `(b, m)` row by row.
    fn loss(&self, run: &Run, likelihood: Tensor, rewards: &[Vec<f64>]) -> Result<Tensor> {
        let b = rewards.len() as f64;
        let mut loss = scale(&likelihood, 1. / b)?;
        let advantages = advantages(&returns(rewards, self.config.discount));
        let logits: Vec<Tensor> = run.accesses.iter().map(|access| access.logits.clone()).collect();
        let depth = logits.first().map_or(Ok(0), |logits| logits.dim(1))?;
        if depth > 0 {
            let (mut chosen, mut weights) = (vec![], vec![]);
            for (row, advantages) in advantages.iter().enumerate() {
                for (access, &advantage) in run.accesses.iter().zip(advantages) {
                    chosen.extend(access.right[row].iter().map(|&right| usize::from(right)));
                    weights.extend(vec![advantage; depth]);
                }
            }
            let logits = concat(&logits)?.reshape(((), 1))?; // (b m D, 1)
            let policy = policy_gradient(&logits, &chosen, &weights, self.config.entropy)?;
            loss = add(&loss, &scale(&policy, 1. / b)?)?;
        }
        Ok(loss)
    }
}

impl RolloutModel for LstmHam {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn rollout(&self, cells: &Cells, ctx: &Context) -> Result<Rollout> {
        let (b, m, _) = cells.targets.dims3()?;
        let (b_in, _, width) = cells.inputs.dims3()?;
        if (b_in, width) != (b, self.config.input_size) || b * m == 0 {
            let (inputs, targets) = (cells.inputs.dims(), cells.targets.dims());
            bail!(
                "ham: expected inputs (b, n, {}) and as many targets, got {inputs:?} and {targets:?}",
                self.config.input_size
            );
        }
        let run = self.run(&cells.inputs, cells.query.as_ref(), m, ctx)?;
        let (negative, rewards) = likelihood(cells, &run.scores)?;
        let loss = match ctx.is_train() {
            true => Some(self.loss(&run, negative, &rewards)?),
            false => None,
        };
        let log_likelihood = rewards.iter().map(|row| row.iter().sum()).collect();
        Ok(Rollout { scores: run.scores, log_likelihood, loss })
    }
}
