//! A model and its bAbI examples as the training engine sees them.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use mnemic_data::{Batch, Encoded, Sampling, batches};
use mnemic_models::{
    AnyStoryModel, Context, HostIds, ParamStore, Phase, StoryBatch, StoryModel, answer_loss, scale,
};
use mnemic_train::{LossOutput, Phase as TrainPhase, Problem, Validation};

use crate::babi::BabiData;
use crate::error::engine;
use crate::recipe::BatchConfig;
use crate::{Error, Result};

/// Examples that are evaluated at once.
const EVAL_BATCH: usize = 500;

/// The padded batch as tensors on a device, with the answers.
///
/// # Errors
/// When the lengths do not fit the tables, which those of a [`Batch`] always do; when the device fails.
pub fn to_tensors(batch: &Batch, device: &Device) -> Result<(StoryBatch, Vec<u32>)> {
    let (b, n, j) = (batch.batch_size, batch.num_sentences, batch.sentence_len);
    let story = StoryBatch {
        story: Tensor::from_slice(&batch.story, (b, n, j), &Device::Cpu)?,
        story_lengths: batch.story_lengths.clone(),
        sentence_lengths: batch.sentence_lengths.clone(),
        question: Tensor::from_slice(&batch.question, (b, batch.question_len), &Device::Cpu)?,
        question_lengths: batch.question_lengths.clone(),
        supports: batch.supports.clone(),
        host: HostIds::default(),
    };
    Ok((story.on(device)?, batch.answers.clone()))
}

/// How many answers of a model are wrong, and how sure it is of the right ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Examples.
    pub examples: usize,
    /// Wrong answers.
    pub errors: usize,
    /// The summed loss.
    pub loss: f64,
}

impl Score {
    /// Wrong answers in percent.
    pub fn error_percent(&self) -> f64 {
        100. * self.errors as f64 / self.examples.max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.examples += other.examples;
        self.errors += other.errors;
        self.loss += other.loss;
    }
}

/// Tests a model that lives on `device` on examples; the scores by task number.
///
/// # Errors
/// When the examples do not fit the model.
pub fn evaluate(
    model: &AnyStoryModel,
    examples: &Encoded,
    device: &Device,
) -> Result<BTreeMap<u8, Score>> {
    let mut scores = BTreeMap::<u8, Score>::new();
    let tasks: Vec<u8> = examples.tasks().collect();
    let mut by_task = BTreeMap::<u8, Vec<usize>>::new();
    for (i, task) in tasks.into_iter().enumerate() {
        by_task.entry(task).or_default().push(i);
    }
    for (task, indices) in by_task {
        for chunk in indices.chunks(EVAL_BATCH) {
            let (batch, answers) = to_tensors(&examples.batch(chunk)?, device)?;
            let logits = model.forward(&batch, &Context::eval())?.logits;
            scores.entry(task).or_default().add(Score {
                examples: chunk.len(),
                errors: count_errors(&logits, &answers)?,
                loss: scalar(&answer_loss(&logits, &answers)?)?,
            });
        }
    }
    Ok(scores)
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

fn count_errors(logits: &Tensor, answers: &[u32]) -> Result<usize> {
    let best = logits.argmax(1)?.to_vec1::<u32>()?;
    Ok(best.iter().zip(answers).filter(|(a, b)| a != b).count())
}

/// A model that learns bAbI tasks.
pub struct BabiProblem<'a> {
    model: &'a AnyStoryModel,
    store: &'a ParamStore,
    data: &'a BabiData,
    batches: &'a BatchConfig,
    seed: u64,
    phase: Phase,
    lengths: Vec<usize>,
    fingerprint: String,
    /// Where the parameters are.
    device: Device,
    /// Rows that are set back to 0 after a step, as masks.
    null_rows: Vec<(String, Tensor)>,
}

impl<'a> BabiProblem<'a> {
    /// Pairs a model and its parameters with data. `fingerprint` must differ between settings that give different batches
    /// or models.
    ///
    /// # Errors
    /// When the recipe asks for a linear start and the model has none.
    pub fn new(
        model: &'a AnyStoryModel,
        store: &'a ParamStore,
        data: &'a BabiData,
        batches: &'a BatchConfig,
        seed: u64,
        fingerprint: String,
    ) -> Result<Self> {
        if batches.linear_start_epochs > 0 && !model.has_start_phase() {
            return Err(Error::recipe(
                "batches.linear_start_epochs",
                "the model has no start phase (MemN2N has one with linear_start = true)",
            ));
        }
        let mut null_rows = Vec::new();
        for name in model.null_rows() {
            let Some(var) = store.get(&name) else { continue };
            let mut mask = vec![1f32; var.dim(0)?];
            mask[0] = 0.;
            let mask = Tensor::from_vec(mask, (var.dim(0)?, 1), var.device())?;
            null_rows.push((name, mask.to_dtype(var.dtype())?));
        }
        let vars = store.vars();
        let device = vars.first().map_or(Device::Cpu, |(_, var)| var.device().clone());
        let lengths = data.train.story_lengths();
        let phase = Phase::Main;
        Ok(Self {
            model,
            store,
            data,
            batches,
            seed,
            phase,
            lengths,
            fingerprint,
            device,
            null_rows,
        })
    }

    /// The loss summed over a batch and, where the forward pass gives them, the wrong answers.
    fn batch_loss(
        &self,
        (batch, answers): &(StoryBatch, Vec<u32>),
        ctx: &Context,
    ) -> Result<(Tensor, Option<usize>)> {
        if self.phase == Phase::Main && !self.model.needs_supports() {
            let logits = self.model.forward(batch, ctx)?.logits;
            return Ok((answer_loss(&logits, answers)?, Some(count_errors(&logits, answers)?)));
        }
        Ok((self.model.loss_in(self.phase, batch, answers, ctx)?, None))
    }

    fn validation(&self) -> Result<Validation> {
        let mut total = Score::default();
        for chunk in
            batches(&self.data.valid.story_lengths(), EVAL_BATCH, Sampling::Sequential, 0, 0)?
        {
            let batch = to_tensors(&self.data.valid.batch(&chunk)?, &self.device)?;
            let ctx = Context::eval();
            let (loss, errors) = self.batch_loss(&batch, &ctx)?;
            let errors = match errors {
                Some(errors) => errors,
                None => count_errors(&self.model.forward(&batch.0, &ctx)?.logits, &batch.1)?,
            };
            total.add(Score { examples: chunk.len(), errors, loss: scalar(&loss)? });
        }
        let n = total.examples.max(1) as f64;
        Ok(Validation::new(total.loss / n).with("error", total.errors as f64 / n))
    }
}

impl Problem for BabiProblem<'_> {
    type Batch = (StoryBatch, Vec<u32>);

    fn store(&self) -> &ParamStore {
        self.store
    }

    fn train_batches(&self, epoch: usize) -> mnemic_train::Result<Vec<Vec<usize>>> {
        let BatchConfig { size, sampling, .. } = *self.batches;
        batches(&self.lengths, size, sampling, self.seed, epoch as u64)
            .map_err(|e| engine(e.into()))
    }

    fn load_batch(&self, indices: &[usize]) -> mnemic_train::Result<Self::Batch> {
        let batch = self.data.train.batch(indices).map_err(|e| engine(e.into()))?;
        to_tensors(&batch, &self.device).map_err(engine)
    }

    fn loss(&self, batch: &Self::Batch, ctx: &Context) -> mnemic_train::Result<LossOutput> {
        let (loss, errors) = self.batch_loss(batch, ctx).map_err(engine)?;
        let examples = batch.1.len();
        let mean = scale(&loss, 1. / examples as f64)?;
        let output = LossOutput::new(mean, examples);
        Ok(match errors {
            Some(errors) => output.with("error", errors as f64),
            None => output,
        })
    }

    fn validate(&self) -> mnemic_train::Result<Validation> {
        self.validation().map_err(engine)
    }

    fn begin_epoch(&mut self, epoch: usize) -> mnemic_train::Result<()> {
        let start = epoch < self.batches.linear_start_epochs;
        self.phase = if start { Phase::Start } else { Phase::Main };
        Ok(())
    }

    fn end_epoch(&mut self, epoch: usize, _: &Validation) -> mnemic_train::Result<TrainPhase> {
        let last_of_start = epoch + 1 == self.batches.linear_start_epochs;
        Ok(if last_of_start { TrainPhase::New } else { TrainPhase::Same })
    }

    fn after_step(&self) -> mnemic_train::Result<()> {
        for (name, mask) in &self.null_rows {
            if let Some(var) = self.store.get(name) {
                var.set(&var.as_tensor().broadcast_mul(mask)?)?;
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn describe_batch(&self, indices: &[usize]) -> String {
        let tasks: Vec<u8> = self.data.train.tasks().collect();
        let mut seen: Vec<u8> = indices.iter().map(|&i| tasks[i]).collect();
        seen.sort_unstable();
        seen.dedup();
        format!(
            "{} training questions of task {seen:?}, the first of number {:?}",
            indices.len(),
            indices.first()
        )
    }
}
