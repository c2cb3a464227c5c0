//! The loss of DMN: gates against supporting facts, answers against words.

use candle_core::{Result, Tensor, bail};
use mnemic_layers::Context;
use mnemic_layers::losses::{CrossEntropy, IGNORE, Reduction, bce_with_logits, cross_entropy};

use super::{Dmn, GateLoss, Passes, one_hot, row_mask};
use crate::story::{StoryBatch, answer_loss};

/// A score whose exponential is 0 beside any other.
const LOW: f64 = -1e30;

impl Dmn {
    /// `α E(gates) + β E(answers)`, summed over rows and passes; `weights` is `(α, β)`.
    pub(super) fn weighted_loss(
        &self,
        batch: &StoryBatch,
        answers: &[u32],
        weights: (f64, f64),
        ctx: &Context,
    ) -> Result<Tensor> {
        let b = batch.batch_size();
        let supervised = weights.0 > 0.;
        if supervised && batch.supports.len() != b {
            bail!("dmn: training the gates needs the supports of all {b} rows");
        }
        if answers.len() != b {
            bail!("dmn: {b} rows but {} answers", answers.len());
        }
        let prepared = self.prepare(batch)?;
        let gold = supervised.then_some(&prepared.batch.supports[..]);
        let q = self.read_question(&prepared, ctx)?;
        let passes = self.passes(&prepared, &q, gold, ctx)?;
        let mut total = Tensor::zeros((), q.dtype(), q.device())?;
        if let Some(gold) = gold {
            let whole: Vec<bool> = gold
                .iter()
                .zip(&batch.supports)
                .map(|(kept, all)| kept.len() == all.len())
                .collect();
            for (pass, scores) in passes.scores.iter().enumerate() {
                let end = |row: usize| {
                    // The passes of a chain that the memory's size cut off do not end there.
                    let ends = self.config.end_of_passes && whole[row] && pass == gold[row].len();
                    ends.then_some(prepared.batch.story_lengths[row])
                };
                let targets = gold.iter().enumerate();
                let targets: Vec<Option<usize>> =
                    targets.map(|(row, g)| g.get(pass).copied().or_else(|| end(row))).collect();
                total = (total + (self.gate_loss(scores, &targets, &passes)? * weights.0)?)?;
            }
        }
        if weights.1 > 0. {
            let logits = self.answer_steps(&passes.memory, &q, 1, None, ctx)?.remove(0);
            total = (total + (answer_loss(&logits, answers)? * weights.1)?)?;
        }
        Ok(total)
    }

    /// The loss of one pass; rows without a target do not count.
    pub(super) fn gate_loss(
        &self,
        scores: &Tensor,
        targets: &[Option<usize>],
        passes: &Passes,
    ) -> Result<Tensor> {
        match self.config.gate_loss {
            GateLoss::Softmax => {
                let low = Tensor::full(LOW, scores.dims(), scores.device())?;
                let kept = passes.mask.where_cond(scores, &low.to_dtype(scores.dtype())?)?;
                let ids: Vec<i64> =
                    targets.iter().map(|t| t.map_or(IGNORE, |t| t as i64)).collect();
                let options = CrossEntropy { reduction: Reduction::Sum, ..Default::default() };
                cross_entropy(&kept, &ids, &options)
            }
            GateLoss::Binary => {
                let ids: Vec<u32> = targets.iter().map(|t| t.unwrap_or(0) as u32).collect();
                let there: Vec<bool> = targets.iter().map(Option::is_some).collect();
                let counted = passes.mask.broadcast_mul(&row_mask(&there, scores)?)?;
                let right = one_hot(&ids, scores.dim(1)?, scores)?;
                let losses = bce_with_logits(scores, &right, Reduction::None)?;
                (losses * counted.to_dtype(scores.dtype())?)?.sum_all()
            }
        }
    }
}
