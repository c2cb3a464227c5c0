//! Cross-entropy of a linear layer's scores, a block of rows at a time. The scores of a block are turned into their gradients in
//! place, and these into parts of the operands' gradients.

use candle_core::Result;

use super::rows::{Stats, Targets, Terms};
use super::{IGNORE, Reduction};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::matmul::{Mat, matmul, parallelism};
use crate::real::{Real, buffer};
use crate::rows::{RowKernel, for_rows};
use crate::{simd, threads};

/// Rows whose scores are held at a time: enough for the products to run at full speed. It is part of the arithmetic.
const BLOCK: usize = 256;

pub(super) struct LinearOp {
    pub(super) targets: Targets,
    /// Which operands get a gradient.
    pub(super) wanted: Vec<bool>,
}

/// The gradients of hidden states, weight and bias.
type Gradients<T> = Vec<Option<Vec<T>>>;

impl FusedOp for LinearOp {
    const NAME: &'static str = "mnemic-linear-cross-entropy";
    /// The gradients for a result's gradient of 1, where they do not depend on more.
    type Saved<T: Real> = Option<Gradients<T>>;

    fn forward<T: Real>(
        &self,
        inputs: &[View<'_, T>],
        grad: bool,
    ) -> Result<(Vec<Array<T>>, Self::Saved<T>)> {
        let early = grad && self.targets.reduction != Reduction::None;
        let grads = early.then(|| self.targets.row_grads(&[T::ONE]));
        let (losses, gradients) = self.run(inputs, grads.as_deref());
        Ok((vec![self.targets.reduce(losses)], early.then_some(gradients)))
    }

    fn backward<T: Real>(
        &self,
        pass: Backward<'_, T, Self::Saved<T>>,
    ) -> Result<Vec<Option<Vec<T>>>> {
        let Some(grad) = pass.grads[0] else { return Ok(vec![]) };
        let Some(gradients) = pass.saved else {
            return Ok(self.run(pass.inputs, Some(&self.targets.row_grads(grad.data))).1);
        };
        let grad = grad.data[0];
        let scaled = |g: &Vec<T>| g.iter().map(|&g| g * grad).collect();
        Ok(gradients.iter().map(|g| g.as_ref().map(scaled)).collect())
    }
}

impl LinearOp {
    /// The losses of the rows and, given the gradients of the losses, those of the operands.
    fn run<T: Real>(&self, inputs: &[View<'_, T>], grads: Option<&[T]>) -> (Vec<T>, Gradients<T>) {
        let d = inputs[0].dims[1];
        let v = inputs[1].dims[0];
        let mut losses = vec![T::ZERO; self.targets.ids.len()];
        let mut results: Gradients<T> = inputs
            .iter()
            .zip(&self.wanted)
            .map(|(x, &wanted)| (wanted && grads.is_some()).then(|| vec![T::ZERO; x.data.len()]))
            .collect();
        let rows: Vec<usize> =
            (0..losses.len()).filter(|&i| self.targets.ids[i] != IGNORE).collect();
        let scoring = Scoring { v, terms: self.targets.terms(v), ids: &self.targets.ids, grads };
        let room = rows.len().min(BLOCK);
        let (mut scores, mut hidden) = (buffer(room * v), buffer(room * d));
        for rows in rows.chunks(BLOCK) {
            let (scores, hidden) = (&mut scores[..rows.len() * v], &mut hidden[..rows.len() * d]);
            for (to, &row) in hidden.chunks_exact_mut(d.max(1)).zip(rows) {
                to.copy_from_slice(&inputs[0].data[row * d..][..d]);
            }
            make_scores(scores, hidden, inputs, rows.len());
            for (&row, loss) in rows.iter().zip(scoring.block(scores, rows)) {
                losses[row] = loss;
            }
            if grads.is_some() {
                add_gradients(&mut results, scores, hidden, inputs[1].data, rows);
            }
        }
        (losses, results)
    }
}

/// `scores = hidden weightᵀ + bias`.
fn make_scores<T: Real>(scores: &mut [T], hidden: &[T], inputs: &[View<'_, T>], rows: usize) {
    let (v, d) = (inputs[1].dims[0], inputs[1].dims[1]);
    let weight = Mat { data: inputs[1].data, row: 1, col: d };
    let add = inputs.get(2).is_some();
    if let Some(bias) = inputs.get(2) {
        scores.chunks_exact_mut(v).for_each(|row| row.copy_from_slice(bias.data));
    }
    let hidden = Mat { data: hidden, row: d, col: 1 };
    matmul((rows, v, d), scores, v, add, hidden, weight, parallelism());
}

/// Adds a block's part to the gradients of hidden states, weight and bias that are wanted. `d_scores` are the gradients of
/// the block's scores.
fn add_gradients<T: Real>(
    results: &mut Gradients<T>,
    d_scores: &[T],
    hidden: &[T],
    weight: &[T],
    rows: &[usize],
) {
    let (r, v, d) = (rows.len(), d_scores.len() / rows.len(), hidden.len() / rows.len());
    let by_row = Mat { data: d_scores, row: v, col: 1 };
    let by_column = Mat { data: d_scores, row: 1, col: v };
    if let Some(d_hidden) = &mut results[0] {
        let mut block = buffer(r * d);
        let weight = Mat { data: weight, row: d, col: 1 };
        matmul((r, d, v), &mut block, d, false, by_row, weight, parallelism());
        for (from, &row) in block.chunks_exact(d.max(1)).zip(rows) {
            d_hidden[row * d..][..d].copy_from_slice(from);
        }
    }
    if let Some(d_weight) = &mut results[1] {
        let hidden = Mat { data: hidden, row: d, col: 1 };
        matmul((v, d, r), d_weight, d, true, by_column, hidden, parallelism());
    }
    if let Some(d_bias) = results.get_mut(2).and_then(Option::as_mut) {
        for_rows(&ColumnSums { xs: d_scores, width: v }, d_bias, 1, r);
    }
}

/// Adds the rows of a matrix, one after the other.
struct ColumnSums<'a, T> {
    xs: &'a [T],
    width: usize,
}

impl<T: Real> RowKernel<T> for ColumnSums<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        for row in self.xs.chunks_exact(self.width) {
            out.iter_mut().zip(&row[first..]).for_each(|(sum, x)| *sum += *x);
        }
    }
}

/// What turns scores into losses and gradients.
struct Scoring<'a, T> {
    v: usize,
    terms: Terms<T>,
    ids: &'a [i64],
    grads: Option<&'a [T]>,
}

impl<T: Real> Scoring<'_, T> {
    /// The losses of `rows`. Their scores become the gradients of the scores, where gradients are wanted.
    fn block(&self, scores: &mut [T], rows: &[usize]) -> Vec<T> {
        let mut losses = buffer(rows.len());
        let level = simd::level();
        let share = threads::rows_per_task(rows.len(), self.v);
        let parts = scores.chunks_mut(share * self.v).zip(rows.chunks(share));
        let parts = parts.zip(losses.chunks_mut(share)).collect();
        threads::for_each(parts, |((scores, rows), losses)| {
            level.dispatch(Part { scoring: self, scores, rows, losses });
        });
        losses
    }
}

struct Part<'a, T> {
    scoring: &'a Scoring<'a, T>,
    scores: &'a mut [T],
    rows: &'a [usize],
    losses: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Part<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Scoring { v, terms, ids, grads } = self.scoring;
        for ((x, &row), loss) in self.scores.chunks_exact_mut(*v).zip(self.rows).zip(self.losses) {
            let stats = Stats::of(x);
            *loss = terms.loss(x, ids[row], stats);
            if let Some(grads) = grads {
                terms.gradient_in_place(x, ids[row], stats, grads[row]);
            }
        }
    }
}
