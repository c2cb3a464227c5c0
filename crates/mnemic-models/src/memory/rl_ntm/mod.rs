//! RL-NTM: W. Zaremba, I. Sutskever, "Reinforcement Learning Neural Turing Machines", arXiv 1505.00521 (2015).
//!
//! A controller moves heads on an input tape, a memory tape and an output tape by hard decisions, so that a step costs the same however long the tapes are. What it reads,
//! writes and predicts is learnt by back-propagation, its moves by REINFORCE.
//!
//! A step: the LSTM takes the cells around the input and memory heads and the last moves. Linear in its `h_t` are the logits of the moves (times [`Config::slowdown`]; input and memory: back, stay, on; output: stay,
//! on), for each cell of the memory around its head what is kept, `σ`, and what is added, `tanh`, and the scores of a symbol. The symbol counts only where the output head moves on. With direct access, σ-gates
//! add input cells to what is written under the memory head, and input and memory cells, times a learnt factor, to the scores.
//!
//! The output head must not move past the last output, and must move when as many steps are left as outputs. Tapes are rings.
//!
//! Letters: b batch, n cells, m outputs, v symbols, w memory_width, h hidden_size.
//!
//! Parameters: `controller` (an [`Lstm`]), `moves (8, h)`, `keep` and `add` `(s w, h)` for the s cells seen, `output (v, h)`, each with a bias, and with direct access `write_gates (s, h)`, `read_gates (2 s, h)`
//! and `copy (1, 1)`.
//!
//! Differences from the paper: the baseline is the mean of the other sequences of the batch at the same step, not a network; all sequences of a batch have one length; the factor
//! of what is copied to the scores is learnt, from 5; the LSTM starts at 0.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Context, Linear, Lstm, RecurrentConfig, RecurrentInit, add, concat, init, linear,
    policy_gradient, read, read_tape, scale, select, sigmoid, split, stack, tanh, write_tape,
};

use crate::rollout::{Cells, Rollout, RolloutModel, advantages, likelihood, returns};

pub use config::Config;

/// Moves of the three heads: input and memory back, stay, on; output stay, on.
const MOVES: [usize; 3] = [3, 3, 2];
/// What makes a move impossible.
const FORBIDDEN: f32 = -1e10;

/// The machine.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::memory::rl_ntm::{Config, RlNtm};
/// use mnemic_models::{Cells, Context, ParamStore, RolloutModel};
/// let store = ParamStore::new(0);
/// let ntm = RlNtm::new(&Config::direct(6, 6), store.builder(DType::F32, &Device::Cpu))?;
/// let zeros = |n| Tensor::zeros((2, n, 6), DType::F32, &Device::Cpu);
/// let cells = Cells { inputs: zeros(8)?, query: None, targets: zeros(4)?, symbols: true };
/// let rollout = ntm.rollout(&cells, &Context::eval())?;
/// assert_eq!(rollout.scores.dims(), [2, 4, 6]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RlNtm {
    config: Config,
    controller: Lstm,
    moves: Linear,
    keep: Linear,
    add: Linear,
    output: Linear,
    direct: Option<Direct>,
}

/// What copies symbols past the LSTM.
#[derive(Debug, Clone)]
struct Direct {
    write_gates: Linear,
    read_gates: Linear,
    /// A map of one number to one: the learnt factor.
    copy: Linear,
}

/// Where the heads of a batch are, and what they have done.
struct Heads {
    input: Vec<usize>,
    memory: Vec<usize>,
    output: Vec<usize>,
    /// One-hot moves of the last step, 8 a row; zeros before the first.
    last: Vec<f32>,
    /// The moves of each step: for each row those of the three heads.
    moves: Vec<Vec<[usize; 3]>>,
    /// The step in which each row made each of its outputs.
    made: Vec<Vec<usize>>,
}

/// A pass: what was decided, from what, and the symbols' scores.
struct Run {
    heads: Heads,
    /// The logits of the moves of each step, one for each head, `(b, 3)`, `(b, 3)`, `(b, 2)`.
    logits: Vec<Vec<Tensor>>,
    /// `(b, m, v)`.
    scores: Tensor,
}

/// Says which move a head makes: step, row, head, logits.
type Decide<'a> = dyn FnMut(usize, usize, usize, &[f64]) -> usize + 'a;

impl RlNtm {
    /// A machine with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let Config { input_size: v, output_size: o, hidden_size: h, memory_width: w, .. } = *config;
        let seen = config.seen();
        let width = seen * (v + w) + MOVES.iter().sum::<usize>();
        let map =
            |to: usize, name: &str| linear(h, to, true, init::xavier_uniform(h, to), vb.pp(name));
        let init = RecurrentInit::pytorch().with_gate_bias(1.);
        let direct = match config.direct_access {
            true => Some(Direct {
                write_gates: map(seen, "write_gates")?,
                read_gates: map(2 * seen, "read_gates")?,
                copy: Linear::new(vb.get_with_hints((1, 1), "copy", Init::Const(5.))?, None),
            }),
            false => None,
        };
        Ok(Self {
            config: config.clone(),
            controller: Lstm::with_init(RecurrentConfig::new(width, h), init, vb.pp("controller"))?,
            moves: map(MOVES.iter().sum(), "moves")?,
            keep: map(seen * w, "keep")?,
            add: map(seen * w, "add")?,
            output: map(o, "output")?,
            direct,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The steps of a pass over `n` cells that makes `m` outputs: there, back, and out once more.
    pub fn steps(n: usize, m: usize) -> usize {
        2 * n + m
    }

    fn run(&self, cells: &Cells, decide: &mut Decide<'_>, ctx: &Context) -> Result<Run> {
        let (b, n, _) = cells.inputs.dims3()?;
        let m = cells.targets.dim(1)?;
        let (dtype, device): (DType, &Device) = (cells.inputs.dtype(), cells.inputs.device());
        let tape = n.max(self.config.seen());
        let mut memory = Tensor::zeros((b, tape, self.config.memory_width), dtype, device)?;
        let mut heads = Heads::new(b);
        let (mut logits, mut scores, mut state) = (vec![], vec![], None::<(Tensor, Tensor)>);
        let steps = Self::steps(n, m);
        for t in 0..steps {
            let radius = self.config.radius;
            let seen = read_tape(&cells.inputs, &heads.input, radius)?;
            let stored = read_tape(&memory, &heads.memory, radius)?;
            let width: usize = MOVES.iter().sum();
            let last = Tensor::from_slice(&heads.last, (b, width), device)?.to_dtype(dtype)?;
            let flat = |t: &Tensor| t.reshape((b, t.dim(1)? * t.dim(2)?));
            let observed = concat(&[flat(&seen)?, flat(&stored)?, last])?;
            let before = state.as_ref().map(|(h, c)| (h, c));
            let out = self.controller.step(&observed, before, ctx)?;
            let hidden = out.output;
            state = Some((out.hidden, out.cell));
            scores.push(self.scores(&hidden, &seen, &stored)?);
            heads.watch(t, (n, tape), ctx, dtype, device)?;
            let written = self.written(&hidden, &seen)?;
            memory = write_tape(&memory, &heads.memory, &written.0, &written.1)?;
            let moves = scale(&self.moves.forward(&hidden)?, self.config.slowdown)?;
            let moves = self.allowed(&moves, &heads, (m, steps - t))?;
            heads.go(t, &moves, (n, tape), decide)?;
            logits.push(moves);
        }
        let outputs = (0..m).map(|j| {
            let choice: Vec<usize> = heads.made.iter().map(|made| made[j]).collect();
            select(&scores, &choice)
        });
        let scores = stack(&outputs.collect::<Result<Vec<_>>>()?)?;
        Ok(Run { heads, logits, scores })
    }

    /// The scores of a symbol, `(b, v)`.
    fn scores(&self, hidden: &Tensor, seen: &Tensor, stored: &Tensor) -> Result<Tensor> {
        let scores = self.output.forward(hidden)?;
        let Some(direct) = &self.direct else { return Ok(scores) };
        let (b, s, v) = seen.dims3()?;
        let gates = sigmoid(&direct.read_gates.forward(hidden)?)?;
        let parts = split(&gates, &[s, s])?;
        let copied = |cells: &Tensor, gates: &Tensor| {
            read(cells, &gates.reshape((b, 1, s))?)?.reshape((b, v))
        };
        let copied = add(&copied(seen, &parts[0])?, &copied(stored, &parts[1])?)?;
        let copied = direct.copy.forward(&copied.reshape((b * v, 1))?)?.reshape((b, v))?;
        add(&scores, &copied)
    }

    /// What is kept of the memory's cells and added to them, `(b, s, w)` each.
    fn written(&self, hidden: &Tensor, seen: &Tensor) -> Result<(Tensor, Tensor)> {
        let (b, s, v) = seen.dims3()?;
        let w = self.config.memory_width;
        let keep = sigmoid(&self.keep.forward(hidden)?)?.reshape((b, s, w))?;
        let mut added = tanh(&self.add.forward(hidden)?)?;
        if let Some(direct) = &self.direct {
            let gates = sigmoid(&direct.write_gates.forward(hidden)?)?;
            let copied = read(seen, &gates.reshape((b, 1, s))?)?.reshape((b, v))?;
            let beside = Tensor::zeros((b, self.config.radius * w), seen.dtype(), seen.device())?;
            added = add(&added, &concat(&[beside.clone(), copied, beside])?)?;
        }
        Ok((keep, added.reshape((b, s, w))?))
    }

    /// The logits of the three heads, what is impossible made so.
    fn allowed(
        &self,
        moves: &Tensor,
        heads: &Heads,
        (m, left): (usize, usize),
    ) -> Result<Vec<Tensor>> {
        let width: usize = MOVES.iter().sum();
        let mut mask = vec![0f32; heads.output.len() * width];
        for (mask, &made) in mask.chunks_exact_mut(width).zip(&heads.output) {
            if self.config.forward_only {
                mask[0] = FORBIDDEN;
            }
            if made == m {
                mask[width - 1] = FORBIDDEN;
            } else if m - made >= left {
                mask[width - 2] = FORBIDDEN;
            }
        }
        let mask = Tensor::from_vec(mask, moves.dims(), moves.device())?.to_dtype(moves.dtype())?;
        split(&add(moves, &mask)?, &MOVES)
    }

    /// The scalar that is minimised, given the log-likelihood of every output, `(b, m)` row by row.
    fn loss(&self, run: &Run, negative: &Tensor, rewards: &[Vec<f64>]) -> Result<Tensor> {
        let (b, steps) = (rewards.len(), run.logits.len());
        let mut at_steps = vec![vec![0.; steps]; b];
        for ((row, rewards), made) in at_steps.iter_mut().zip(rewards).zip(&run.heads.made) {
            for (&step, &reward) in made.iter().zip(rewards) {
                row[step] = reward;
            }
        }
        let mut weights = advantages(&returns(&at_steps, 1.));
        for (weights, made) in weights.iter_mut().zip(&run.heads.made) {
            // Once all outputs are made, moves change nothing any more.
            let last = made.last().copied().unwrap_or(0);
            weights.iter_mut().skip(last + 1).for_each(|w| *w = 0.);
        }
        let weights: Vec<f64> = weights.concat();
        let mut loss = scale(negative, 1. / b as f64)?;
        for (head, actions) in MOVES.iter().enumerate() {
            let logits: Vec<Tensor> = run.logits.iter().map(|step| step[head].clone()).collect();
            let logits = concat(&logits)?.reshape((b * steps, *actions))?;
            let moves = (0..b).flat_map(|row| run.heads.moves.iter().map(move |m| m[row][head]));
            let chosen: Vec<usize> = moves.collect();
            let policy = policy_gradient(&logits, &chosen, &weights, self.config.entropy)?;
            loss = add(&loss, &scale(&policy, 1. / b as f64)?)?;
        }
        Ok(loss)
    }
}

impl Heads {
    fn new(b: usize) -> Self {
        Self {
            input: vec![0; b],
            memory: vec![0; b],
            output: vec![0; b],
            last: vec![0.; b * MOVES.iter().sum::<usize>()],
            moves: vec![],
            made: vec![vec![]; b],
        }
    }

    /// Moves all heads; rows whose output head moves on have made an output in step `t`.
    fn go(
        &mut self,
        t: usize,
        logits: &[Tensor],
        (n, tape): (usize, usize),
        decide: &mut Decide<'_>,
    ) -> Result<()> {
        let host = |t: &Tensor| t.detach().to_dtype(DType::F64)?.to_vec2::<f64>();
        let logits = logits.iter().map(host).collect::<Result<Vec<_>>>()?;
        self.last.fill(0.);
        let mut moves = Vec::with_capacity(self.output.len());
        for row in 0..self.output.len() {
            let mut chosen = [0; 3];
            for (head, (chosen, logits)) in chosen.iter_mut().zip(&logits).enumerate() {
                *chosen = decide(t, row, head, &logits[row]);
            }
            let [input, memory, output] = chosen;
            self.input[row] = (self.input[row] + n + input - 1) % n;
            self.memory[row] = (self.memory[row] + tape + memory - 1) % tape;
            if output == 1 {
                self.output[row] += 1;
                self.made[row].push(t);
            }
            let last = &mut self.last[8 * row..][..8];
            [last[input], last[3 + memory], last[6 + output]] = [1.; 3];
            moves.push(chosen);
        }
        self.moves.push(moves);
        Ok(())
    }

    /// Records where the heads are, `(b, 1, n)`.
    fn watch(
        &self,
        t: usize,
        (n, tape): (usize, usize),
        ctx: &Context,
        dtype: DType,
        device: &Device,
    ) -> Result<()> {
        let one_hot = |at: &[usize], n: usize| {
            let mut rows = vec![0f32; at.len() * n];
            rows.chunks_exact_mut(n).zip(at).for_each(|(row, &at)| row[at] = 1.);
            Tensor::from_vec(rows, (at.len(), 1, n), device)?.to_dtype(dtype)
        };
        ctx.watch("input_head", t, || one_hot(&self.input, n))?;
        ctx.watch("memory_head", t, || one_hot(&self.memory, tape))
    }
}

/// A move drawn with the logits' probabilities, by a number in [0, 1); without one the likeliest, the first of equal ones.
fn drawn(logits: &[f64], uniform: Option<f64>) -> usize {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let Some(uniform) = uniform else {
        return logits.iter().position(|&z| z == most).unwrap_or(0);
    };
    let weights: Vec<f64> = logits.iter().map(|z| (z - most).exp()).collect();
    let mut left = uniform * weights.iter().sum::<f64>();
    for (action, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0. {
            return action;
        }
    }
    // Rounding: the last move that is possible.
    weights.iter().rposition(|&w| w > 0.).unwrap_or(0)
}

impl RolloutModel for RlNtm {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn rollout(&self, cells: &Cells, ctx: &Context) -> Result<Rollout> {
        let (b, n, width) = cells.inputs.dims3()?;
        let (b_out, m, _) = cells.targets.dims3()?;
        if (b_out, width) != (b, self.config.input_size) || b * n * m == 0 {
            let (inputs, targets) = (cells.inputs.dims(), cells.targets.dims());
            bail!(
                "rl-ntm: expected inputs (b, n, {}) and as many targets, got {inputs:?} and {targets:?}",
                self.config.input_size
            );
        }
        let rng = ctx.rng();
        let mut decide = |t: usize, row: usize, head: usize, logits: &[f64]| {
            drawn(logits, rng.map(|rng| rng.uniform(((t * b + row) * 3 + head) as u64)))
        };
        let run = self.run(cells, &mut decide, ctx)?;
        let (negative, rewards) = likelihood(cells, &run.scores)?;
        let loss = match ctx.is_train() {
            true => Some(self.loss(&run, &negative, &rewards)?),
            false => None,
        };
        let log_likelihood = rewards.iter().map(|row| row.iter().sum()).collect();
        Ok(Rollout { scores: run.scores, log_likelihood, loss })
    }
}
