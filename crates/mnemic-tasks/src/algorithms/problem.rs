//! A model and its generated sequences as the training engine sees them, and its test.

use std::f64::consts::LN_2;

use candle_core::{DType, Device, Tensor};
use mnemic_data::algorithms::{Algorithm, SequenceBatch};
use mnemic_models::{
    AnySequenceModel, Context, CrossEntropy, ParamStore, Reduction, SequenceModel, bce_with_logits,
    cross_entropy, scale,
};
use mnemic_train::{LossOutput, Problem, Validation};

use super::recipe::SequenceBatches;
use crate::Result;
use crate::error::engine;

/// How well a model does on some sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SequenceScore {
    /// Sequences.
    pub sequences: usize,
    /// The summed cross-entropy in bits.
    pub bits: f64,
    /// Wrong bits; wrong symbols where a step gives one.
    pub wrong_bits: usize,
    /// Sequences in which anything is wrong.
    pub wrong_sequences: usize,
    /// The share of a sequence's scored steps before its first error, summed over the sequences.
    pub right_before_error: f64,
}

impl SequenceScore {
    /// Cross-entropy in bits for each sequence.
    pub fn cost(&self) -> f64 {
        self.bits / self.sequences.max(1) as f64
    }

    /// Wrong bits for each sequence.
    pub fn wrong(&self) -> f64 {
        self.wrong_bits as f64 / self.sequences.max(1) as f64
    }

    /// The mean share of a sequence before its first error: 1 where nothing is wrong.
    pub fn fine(&self) -> f64 {
        self.right_before_error / self.sequences.max(1) as f64
    }

    /// Adds a sequence, of whose steps so many are wrong in so many places.
    fn count(&mut self, wrong: &[usize]) {
        let first = wrong.iter().position(|&n| n > 0);
        self.sequences += 1;
        self.wrong_bits += wrong.iter().sum::<usize>();
        self.wrong_sequences += usize::from(first.is_some());
        self.right_before_error += first.unwrap_or(wrong.len()) as f64 / wrong.len().max(1) as f64;
    }

    fn add(&mut self, other: Self) {
        self.sequences += other.sequences;
        self.bits += other.bits;
        self.wrong_bits += other.wrong_bits;
        self.wrong_sequences += other.wrong_sequences;
        self.right_before_error += other.right_before_error;
    }
}

/// The streams of random numbers that batches come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Training,
    Validation,
    Test,
}

impl Stream {
    /// The number of a batch in the generator's stream of a seed.
    pub(crate) fn number(self, i: usize) -> u64 {
        (self as u64) << 48 | i as u64
    }
}

/// Inputs, targets of the scored steps and which these are.
#[derive(Debug)]
pub struct Sequences {
    inputs: Tensor,
    targets: Targets,
    scored: Vec<bool>,
}

/// What is to be said at the scored steps.
#[derive(Debug)]
enum Targets {
    /// `(b, steps, o)`: zeros and ones.
    Bits(Tensor),
    /// A symbol of each sequence and step, `b` times the steps.
    Symbols(Vec<i64>),
}

impl Sequences {
    fn new(batch: SequenceBatch, device: &Device) -> Result<Self> {
        let SequenceBatch { batch_size: b, steps: t, input_size: i, output_size: o, .. } = batch;
        let count = batch.scored.iter().filter(|&&scored| scored).count();
        let rows = batch.targets.chunks_exact(o).zip(batch.scored.iter().cycle());
        let rows = rows.filter(|(_, scored)| **scored).map(|(row, _)| row);
        let targets = match batch.symbols {
            true => {
                let symbol = |row: &[f32]| row.iter().position(|&x| x > 0.5).unwrap_or(0) as i64;
                Targets::Symbols(rows.map(symbol).collect())
            }
            false => {
                let targets: Vec<f32> = rows.flatten().copied().collect();
                Targets::Bits(Tensor::from_vec(targets, (b, count, o), device)?)
            }
        };
        let inputs = Tensor::from_vec(batch.inputs, (b, t, i), device)?;
        Ok(Self { inputs, targets, scored: batch.scored })
    }

    /// The summed cross-entropy, and how much is wrong.
    fn score(&self, model: &AnySequenceModel, ctx: &Context) -> Result<(Tensor, SequenceScore)> {
        let scores = model.forward(&self.inputs, Some(&self.scored), ctx)?;
        let loss = match &self.targets {
            Targets::Bits(targets) => bce_with_logits(&scores, targets, Reduction::Sum)?,
            Targets::Symbols(targets) => {
                let options = CrossEntropy { reduction: Reduction::Sum, ..Default::default() };
                cross_entropy(&scores.flatten_to(1)?, targets, &options)?
            }
        };
        let mut score = SequenceScore {
            bits: loss.detach().to_dtype(DType::F64)?.to_scalar::<f64>()? / LN_2,
            ..Default::default()
        };
        let wrong = self.wrong(&scores.detach())?;
        let steps = scores.dim(1)?;
        wrong.chunks_exact(steps).for_each(|sequence| score.count(sequence));
        Ok((loss, score))
    }

    /// How much is wrong at each scored step of each sequence: bits, or whether the symbol is another.
    fn wrong(&self, scores: &Tensor) -> Result<Vec<usize>> {
        let scores = scores.flatten_to(1)?.to_vec2::<f32>()?;
        Ok(match &self.targets {
            Targets::Bits(targets) => {
                let targets = targets.flatten_to(1)?.to_vec2::<f32>()?;
                let pairs = scores.iter().zip(&targets);
                let differ = |(s, t): (&f32, &f32)| (*s > 0.) != (*t > 0.5);
                pairs.map(|(s, t)| s.iter().zip(t).filter(|&pair| differ(pair)).count()).collect()
            }
            Targets::Symbols(targets) => {
                let best = |row: &Vec<f32>| {
                    let all = row.iter().enumerate();
                    all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i as i64)
                };
                scores.iter().zip(targets).map(|(row, &t)| usize::from(best(row) != t)).collect()
            }
        })
    }
}

/// Tests a model on `count` batches of `size` sequences of the test stream of `seed`.
///
/// # Errors
/// When the task does not fit the model.
pub fn evaluate_sequences(
    model: &AnySequenceModel,
    task: &Algorithm,
    (size, count): (usize, usize),
    seed: u64,
    device: &Device,
) -> Result<SequenceScore> {
    evaluate(model, task, (size, count), (seed, Stream::Test), device)
}

fn evaluate(
    model: &AnySequenceModel,
    task: &Algorithm,
    (size, count): (usize, usize),
    (seed, stream): (u64, Stream),
    device: &Device,
) -> Result<SequenceScore> {
    let mut total = SequenceScore::default();
    for i in 0..count {
        let batch = Sequences::new(task.batch(size, seed, stream.number(i))?, device)?;
        total.add(batch.score(model, &Context::eval())?.1);
    }
    Ok(total)
}

/// A model that learns an algorithm.
pub struct AlgorithmProblem<'a> {
    /// What is trained.
    pub model: &'a AnySequenceModel,
    /// Its parameters.
    pub store: &'a ParamStore,
    /// The task.
    pub task: Algorithm,
    /// How many sequences.
    pub batches: &'a SequenceBatches,
    /// The seed of the sequences.
    pub seed: u64,
    /// Where the parameters are.
    pub device: Device,
    /// Whatever must be the same for a run to go on.
    pub fingerprint: String,
}

impl Problem for AlgorithmProblem<'_> {
    type Batch = Sequences;

    fn store(&self) -> &ParamStore {
        self.store
    }

    fn train_batches(&self, epoch: usize) -> mnemic_train::Result<Vec<Vec<usize>>> {
        let SequenceBatches { size, per_epoch, .. } = *self.batches;
        // A batch is named by its sequences: the first divided by their number is its own.
        let batch = |i: usize| ((epoch * per_epoch + i) * size..).take(size).collect();
        Ok((0..per_epoch).map(batch).collect())
    }

    fn load_batch(&self, indices: &[usize]) -> mnemic_train::Result<Sequences> {
        let size = self.batches.size;
        let number = Stream::Training.number(indices.first().map_or(0, |first| first / size));
        let batch = self.task.batch(size, self.seed, number).map_err(|e| engine(e.into()))?;
        Sequences::new(batch, &self.device).map_err(engine)
    }

    fn loss(&self, batch: &Sequences, ctx: &Context) -> mnemic_train::Result<LossOutput> {
        let (loss, score) = batch.score(self.model, ctx).map_err(engine)?;
        let mean = scale(&loss, 1. / score.sequences.max(1) as f64)?;
        Ok(LossOutput::new(mean, score.sequences)
            .with("bits", score.bits)
            .with("wrong_bits", score.wrong_bits as f64)
            .with("fine", score.right_before_error)
            .with("error", score.wrong_sequences as f64))
    }

    fn validate(&self) -> mnemic_train::Result<Validation> {
        let SequenceBatches { size, evaluation, .. } = *self.batches;
        let stream = (self.seed, Stream::Validation);
        let score = evaluate(self.model, &self.task, (size, evaluation), stream, &self.device)
            .map_err(engine)?;
        let wrong = score.wrong_sequences as f64 / score.sequences.max(1) as f64;
        Ok(Validation::new(score.cost() * LN_2)
            .with("bits", score.cost())
            .with("wrong_bits", score.wrong())
            .with("fine", score.fine())
            .with("error", wrong))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
