//! What is trained.

use std::collections::BTreeMap;

use candle_core::Tensor;
use mnemic_layers::{Context, ParamStore};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The loss of one batch.
#[derive(Debug, Clone)]
pub struct LossOutput {
    /// The scalar to minimise.
    pub loss: Tensor,
    /// The examples of the batch.
    pub examples: usize,
    /// The number of terms that the loss is a mean over; what batches are weighted by when their losses or gradients
    /// are averaged. The examples, if nothing else is said.
    pub weight: f64,
    /// Metrics summed over the batch's examples (`("error", 3.)`: three wrong answers); what is shown is their mean.
    /// The one called `error` has a place of its own in the progress bar.
    pub sums: Vec<(&'static str, f64)>,
}

impl LossOutput {
    /// A loss that is the mean over `examples`.
    pub fn new(loss: Tensor, examples: usize) -> Self {
        Self { loss, examples, weight: examples as f64, sums: vec![] }
    }

    /// The same with a metric, summed over the examples.
    pub fn with(mut self, name: &'static str, sum: f64) -> Self {
        self.sums.push((name, sum));
        self
    }

    /// The same as a mean over `weight` terms, such as the tokens of the batch.
    pub fn weighted(self, weight: f64) -> Self {
        Self { weight, ..self }
    }
}

/// What a validation gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// The mean loss: what early stopping, the best checkpoint (but for [`best_by`](crate::TrainConfig::best_by)) and restarts go by.
    pub loss: f64,
    /// Further means, such as `error`.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

impl Validation {
    /// A validation with a loss and no metric yet.
    pub fn new(loss: f64) -> Self {
        Self { loss, metrics: BTreeMap::new() }
    }

    /// The same with a metric.
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// A metric by name; `loss` is one.
    pub fn get(&self, name: &str) -> Option<f64> {
        if name == "loss" { Some(self.loss) } else { self.metrics.get(name).copied() }
    }
}

/// What follows on an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// More of the same.
    #[default]
    Same,
    /// Training changes its nature (the end of a linear start, a longer curriculum), so that losses cannot be compared
    /// with earlier ones: the best checkpoint, early stopping and the schedule begin anew.
    New,
}

/// A model, its data and its loss, as the [`crate::Trainer`] needs them.
///
/// Everything must be a pure function of the parameters, the seed and the arguments (and of the state given out by
/// [`Problem::state`]): then a resumed run ends with the same bits as an uninterrupted one.
pub trait Problem {
    /// One batch, ready for the model.
    type Batch;

    /// The parameters. All must exist before training starts.
    fn store(&self) -> &ParamStore;

    /// The batches of an epoch as lists of example numbers: a pure function of the seed and the epoch. Called after
    /// [`Problem::begin_epoch`].
    ///
    /// # Errors
    /// Whatever the data may raise.
    fn train_batches(&self, epoch: usize) -> Result<Vec<Vec<usize>>>;

    /// Fetches a batch.
    ///
    /// # Errors
    /// Whatever the data may raise.
    fn load_batch(&self, indices: &[usize]) -> Result<Self::Batch>;

    /// The loss of a batch. All randomness comes from `ctx`.
    ///
    /// # Errors
    /// Whatever the model may raise.
    fn loss(&self, batch: &Self::Batch, ctx: &Context) -> Result<LossOutput>;

    /// Measures the present parameters on the validation data.
    ///
    /// # Errors
    /// Whatever the model or data may raise.
    fn validate(&self) -> Result<Validation>;

    /// Prepares an epoch, counting from 0. Called once more when a run is resumed in the middle of that epoch, so that
    /// it must not change parameters.
    ///
    /// # Errors
    /// Whatever the problem may raise.
    fn begin_epoch(&mut self, _epoch: usize) -> Result<()> {
        Ok(())
    }

    /// Called after each validation. May change the problem (see [`Problem::state`]).
    ///
    /// # Errors
    /// Whatever the problem may raise.
    fn end_epoch(&mut self, _epoch: usize, _validation: &Validation) -> Result<Phase> {
        Ok(Phase::Same)
    }

    /// Called after each optimiser step, for instance to set the row of the null word back to 0.
    ///
    /// # Errors
    /// Whatever the problem may raise.
    fn after_step(&self) -> Result<()> {
        Ok(())
    }

    /// A factor on the learning rate of this epoch.
    fn lr_scale(&self) -> f64 {
        1.
    }

    /// What the problem must remember between epochs; kept in checkpoints.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes back what [`Problem::state`] gave.
    ///
    /// # Errors
    /// A value that it cannot have given.
    fn load_state(&mut self, _state: &serde_json::Value) -> Result<()> {
        Ok(())
    }

    /// Whatever must be the same for a checkpoint to belong to this problem: a digest of model and data settings.
    fn fingerprint(&self) -> String {
        String::new()
    }

    /// The batch in words, for the report of a NaN.
    fn describe_batch(&self, indices: &[usize]) -> String {
        format!("examples {indices:?}")
    }
}
