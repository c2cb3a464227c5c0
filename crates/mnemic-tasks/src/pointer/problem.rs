//! A pointer network and its instances as the training engine sees them.

use candle_core::{DType, Device, Tensor};
use mnemic_data::planar::Instance;
use mnemic_data::{Sampling, batches};
use mnemic_models::memory::pointer_network::{PointBatch, PointerNetwork, pointer_loss};
use mnemic_models::{Context, ParamStore, scale};
use mnemic_train::{LossOutput, Problem, Validation};

use super::recipe::PlanarData;
use crate::Result;
use crate::algorithms::{SequenceBatches, Stream};
use crate::error::engine;

/// Instances, ready for the model.
#[derive(Debug)]
pub struct PlanarBatch {
    /// The points.
    pub points: PointBatch,
    /// The answers, with points counted from 1.
    pub answers: Vec<Vec<u32>>,
}

impl PlanarBatch {
    /// Puts instances together.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(instances: &[Instance], device: &Device) -> Result<Self> {
        let rows: Vec<_> = instances.iter().map(|instance| instance.points.clone()).collect();
        let answer = |instance: &Instance| instance.answer.iter().map(|&i| i as u32 + 1).collect();
        Ok(Self {
            points: PointBatch::from_rows(&rows, DType::F32, device)?,
            answers: instances.iter().map(answer).collect(),
        })
    }

    /// The summed loss, and of how many instances greedy search gives another answer than the canonical one.
    fn score(&self, model: &PointerNetwork, ctx: &Context) -> Result<(Tensor, usize)> {
        let log_p = model.forward(&self.points, &self.answers, ctx)?;
        let loss = pointer_loss(&log_p, &self.answers)?;
        let said = log_p.detach().argmax(2)?.to_vec2::<u32>()?;
        // Where each step is right given the right ones before it, greedy search takes the same way.
        let right = |(said, answer): (&Vec<u32>, &Vec<u32>)| {
            said.iter().zip(answer.iter().chain(&[0])).all(|(s, a)| s == a)
        };
        let wrong = said.iter().zip(&self.answers).filter(|&pair| !right(pair)).count();
        Ok((loss, wrong))
    }
}

/// A pointer network that learns a planar problem.
pub struct PointerProblem<'a> {
    /// What is trained.
    pub model: &'a PointerNetwork,
    /// Its parameters.
    pub store: &'a ParamStore,
    /// The problem.
    pub data: &'a PlanarData,
    /// How many instances.
    pub batches: &'a SequenceBatches,
    /// The seed of the instances.
    pub seed: u64,
    /// Where the parameters are.
    pub device: Device,
    /// Whatever must be the same for a run to go on.
    pub fingerprint: String,
}

impl PointerProblem<'_> {
    fn batch(&self, stream: Stream, indices: &[usize]) -> Result<PlanarBatch> {
        let PlanarData { task, points, .. } = *self.data;
        let make = |&i: &usize| task.instance(points, self.seed, stream.number(i));
        let instances = indices.iter().map(make).collect::<std::result::Result<Vec<_>, _>>()?;
        PlanarBatch::new(&instances, &self.device)
    }
}

impl Problem for PointerProblem<'_> {
    type Batch = PlanarBatch;

    fn store(&self) -> &ParamStore {
        self.store
    }

    /// New instances, or the next of endless shuffled passes over a fixed number of them.
    fn train_batches(&self, epoch: usize) -> mnemic_train::Result<Vec<Vec<usize>>> {
        let SequenceBatches { size, per_epoch, .. } = *self.batches;
        let all = epoch * per_epoch * size..(epoch + 1) * per_epoch * size;
        let Some(count) = self.data.examples else {
            return Ok(all.collect::<Vec<_>>().chunks(size).map(<[_]>::to_vec).collect());
        };
        let (mut pass, mut order) = (usize::MAX, vec![]);
        let mut numbers = Vec::with_capacity(all.len());
        for i in all {
            if i / count != pass {
                pass = i / count;
                let lengths = vec![1; count];
                let shuffled = batches(&lengths, count, Sampling::Shuffled, self.seed, pass as u64);
                order = shuffled.map_err(|e| engine(e.into()))?.concat();
            }
            numbers.push(order[i % count]);
        }
        Ok(numbers.chunks(size).map(<[_]>::to_vec).collect())
    }

    fn load_batch(&self, indices: &[usize]) -> mnemic_train::Result<PlanarBatch> {
        self.batch(Stream::Training, indices).map_err(engine)
    }

    fn loss(&self, batch: &PlanarBatch, ctx: &Context) -> mnemic_train::Result<LossOutput> {
        let (loss, wrong) = batch.score(self.model, ctx).map_err(engine)?;
        let count = batch.answers.len();
        let mean = scale(&loss, 1. / count.max(1) as f64)?;
        Ok(LossOutput::new(mean, count).with("error", wrong as f64))
    }

    fn validate(&self) -> mnemic_train::Result<Validation> {
        let SequenceBatches { size, evaluation, .. } = *self.batches;
        let (mut nats, mut wrong) = (0., 0);
        for i in 0..evaluation {
            let indices: Vec<usize> = (i * size..(i + 1) * size).collect();
            let batch = self.batch(Stream::Validation, &indices).map_err(engine)?;
            let (loss, missed) = batch.score(self.model, &Context::eval()).map_err(engine)?;
            nats += loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            wrong += missed;
        }
        let count = (evaluation * size) as f64;
        Ok(Validation::new(nats / count).with("error", wrong as f64 / count))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
