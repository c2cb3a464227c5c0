//! Batches of cells that a model walks through by itself.

use std::f64::consts::LN_2;

use candle_core::{Device, Tensor};
use mnemic_data::algorithms::CellBatch;
use mnemic_models::{AnyRolloutModel, Cells, Context, RolloutModel};

use super::score::SequenceScore;
use crate::Result;

/// Cells, and what is to be made of them.
#[derive(Debug)]
pub(super) struct Walks {
    pub(super) cells: Cells,
}

impl Walks {
    pub(super) fn new(batch: CellBatch, device: &Device) -> Result<Self> {
        let CellBatch { batch_size: b, cells: n, outputs: m, symbols, .. } = batch;
        let query = match batch.query_size {
            0 => None,
            q => Some(Tensor::from_vec(batch.query, (b, q), device)?),
        };
        Ok(Self {
            cells: Cells {
                inputs: Tensor::from_vec(batch.inputs, (b, n, batch.input_size), device)?,
                query,
                targets: Tensor::from_vec(batch.targets, (b, m, batch.output_size), device)?,
                symbols,
            },
        })
    }

    /// What is minimised (in evaluation the mean negative log-likelihood), and how much is wrong.
    pub(super) fn score(
        &self,
        model: &AnyRolloutModel,
        ctx: &Context,
    ) -> Result<(Tensor, SequenceScore)> {
        let rollout = model.rollout(&self.cells, ctx)?;
        let negative: f64 = -rollout.log_likelihood.iter().sum::<f64>();
        let mut score = SequenceScore { bits: negative / LN_2, ..SequenceScore::default() };
        let (_, m, _) = rollout.scores.dims3()?;
        let wrong = self.wrong(&rollout.scores.detach())?;
        wrong.chunks_exact(m).for_each(|sequence| score.count(sequence));
        let loss = match rollout.loss {
            Some(loss) => loss,
            None => Tensor::new(negative as f32 / score.sequences.max(1) as f32, &Device::Cpu)?,
        };
        Ok((loss, score))
    }

    /// How much is wrong in each output of each sequence: bits, or whether the symbol is another.
    fn wrong(&self, scores: &Tensor) -> Result<Vec<usize>> {
        let scores = scores.flatten_to(1)?.to_vec2::<f32>()?;
        let targets = self.cells.targets.flatten_to(1)?.to_vec2::<f32>()?;
        let best = |row: &[f32]| {
            let all = row.iter().enumerate();
            all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i)
        };
        let wrong = |(s, t): (&Vec<f32>, &Vec<f32>)| match self.cells.symbols {
            true => usize::from(best(s) != best(t)),
            false => s.iter().zip(t).filter(|(s, t)| (**s > 0.) != (**t > 0.5)).count(),
        };
        Ok(scores.iter().zip(&targets).map(wrong).collect())
    }
}
