//! A model and its generated sequences as the training engine sees them, and its test.

use std::f64::consts::LN_2;

use candle_core::Device;
use mnemic_models::{Context, ParamStore};
use mnemic_train::{LossOutput, Phase, Problem, Validation};
use serde_json::Value;

use super::curriculum::Curriculum;
use super::learner::{AlgorithmNet, AlgorithmTask, Batch};
use super::recipe::SequenceBatches;
use super::score::SequenceScore;
use super::sequences::Ends;
use crate::Result;
use crate::error::engine;

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

/// Tests a model on `count` batches of `size` rows of the test stream of `seed`: sequences, or in patterns streams of sequences, of which the
/// whole ones count.
///
/// # Errors
/// When the task does not fit the model.
pub fn evaluate_sequences(
    model: &AlgorithmNet,
    task: &AlgorithmTask,
    (size, count): (usize, usize),
    seed: u64,
    device: &Device,
) -> Result<SequenceScore> {
    evaluate(model, task, (size, count), (seed, Stream::Test), device)
}

fn evaluate(
    model: &AlgorithmNet,
    task: &AlgorithmTask,
    (size, count): (usize, usize),
    (seed, stream): (u64, Stream),
    device: &Device,
) -> Result<SequenceScore> {
    let mut total = SequenceScore::default();
    for i in 0..count {
        let batch = Batch::load(task, size, (seed, stream.number(i)), Ends::Whole, device)?;
        total.add(batch.score(model, &Context::eval())?.1);
    }
    Ok(total)
}

/// A model that learns an algorithm.
pub struct AlgorithmProblem<'a> {
    /// What is trained.
    pub model: &'a AlgorithmNet,
    /// Its parameters.
    pub store: &'a ParamStore,
    /// The task.
    pub task: AlgorithmTask,
    /// How many sequences.
    pub batches: &'a SequenceBatches,
    /// How sizes grow in training.
    pub curriculum: Option<Curriculum>,
    /// How often they grew.
    pub grown: usize,
    /// The seed of the sequences.
    pub seed: u64,
    /// Where the parameters are.
    pub device: Device,
    /// Whatever must be the same for a run to go on.
    pub fingerprint: String,
}

/// The share of wrong sequences of the sizes that a curriculum has reached.
const REACHED: &str = "error_so_far";

impl AlgorithmProblem<'_> {
    /// The task with the sizes of training.
    fn training(&self) -> AlgorithmTask {
        match self.curriculum {
            Some(curriculum) => self.task.up_to(curriculum.most(self.grown)),
            None => self.task,
        }
    }

    fn validation(&self, task: &AlgorithmTask) -> mnemic_train::Result<SequenceScore> {
        let SequenceBatches { size, evaluation, .. } = *self.batches;
        let stream = (self.seed, Stream::Validation);
        evaluate(self.model, task, (size, evaluation), stream, &self.device).map_err(engine)
    }
}

impl Problem for AlgorithmProblem<'_> {
    type Batch = Batch;

    fn store(&self) -> &ParamStore {
        self.store
    }

    fn train_batches(&self, epoch: usize) -> mnemic_train::Result<Vec<Vec<usize>>> {
        let SequenceBatches { size, per_epoch, .. } = *self.batches;
        // A batch is named by its sequences: the first divided by their number is its own.
        let batch = |i: usize| ((epoch * per_epoch + i) * size..).take(size).collect();
        Ok((0..per_epoch).map(batch).collect())
    }

    fn load_batch(&self, indices: &[usize]) -> mnemic_train::Result<Batch> {
        let size = self.batches.size;
        let number = indices.first().map_or(0, |first| first / size);
        let number = Stream::Training.number(number);
        Batch::load(&self.training(), size, (self.seed, number), Ends::Cut, &self.device)
            .map_err(engine)
    }

    fn loss(&self, batch: &Batch, ctx: &Context) -> mnemic_train::Result<LossOutput> {
        let (loss, score) = batch.score(self.model, ctx).map_err(engine)?;
        Ok(LossOutput::new(loss, score.sequences)
            .with("bits", score.bits)
            .with("wrong_bits", score.wrong_bits as f64)
            .with("fine", score.right_before_error)
            .with("error", score.wrong_sequences as f64))
    }

    fn validate(&self) -> mnemic_train::Result<Validation> {
        let score = self.validation(&self.task)?;
        let validation = Validation::new(score.cost() * LN_2)
            .with("bits", score.cost())
            .with("wrong_bits", score.wrong())
            .with("fine", score.fine())
            .with("error", score.error());
        Ok(match self.curriculum {
            Some(Curriculum { below: Some(_), .. }) => {
                let so_far = self.validation(&self.training())?.error();
                validation.with(REACHED, so_far).with("grown", self.grown as f64)
            }
            _ => validation,
        })
    }

    fn begin_epoch(&mut self, epoch: usize) -> mnemic_train::Result<()> {
        if let Some(Curriculum { below: None, .. }) = self.curriculum {
            self.grown = epoch;
        }
        Ok(())
    }

    fn end_epoch(&mut self, _: usize, validation: &Validation) -> mnemic_train::Result<Phase> {
        if let Some(Curriculum { below: Some(below), .. }) = self.curriculum {
            let so_far = validation.metrics.get(REACHED);
            self.grown += usize::from(so_far.is_some_and(|&error| error <= below));
        }
        Ok(Phase::Same)
    }

    fn state(&self) -> Value {
        Value::from(self.grown)
    }

    fn load_state(&mut self, state: &Value) -> mnemic_train::Result<()> {
        self.grown = state.as_u64().map_or(0, |grown| grown as usize);
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
