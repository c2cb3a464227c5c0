//! The fused CPU path over given scores: each row is read once in each direction, with one exponential a score.

use candle_core::Result;

use super::rows::{Stats, Targets, Terms};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};
use crate::rows::{RowKernel, for_rows};

pub(super) struct CrossEntropyOp(pub(super) Targets);

impl FusedOp for CrossEntropyOp {
    const NAME: &'static str = "mnemic-cross-entropy";
    type Saved<T: Real> = Vec<Stats<T>>;

    fn forward<T: Real>(
        &self,
        inputs: &[View<'_, T>],
        _: bool,
    ) -> Result<(Vec<Array<T>>, Vec<Stats<T>>)> {
        let classes = inputs[0].dims[1];
        let terms = self.0.terms(classes);
        let kernel = Forward { x: inputs[0].data, classes, targets: &self.0.ids, terms };
        let mut rows = buffer(3 * self.0.ids.len());
        for_rows(&kernel, &mut rows, 3, classes);
        let (rows, _) = rows.as_chunks::<3>();
        let stats = rows.iter().map(|&[_, top, sum]| Stats { top, sum }).collect();
        Ok((vec![self.0.reduce(rows.iter().map(|row| row[0]).collect())], stats))
    }

    fn backward<T: Real>(
        &self,
        pass: Backward<'_, T, Vec<Stats<T>>>,
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (x, Some(grad)) = (pass.inputs[0], pass.grads[0]) else { return Ok(vec![None]) };
        let classes = x.dims[1];
        let kernel = Gradient {
            x: x.data,
            classes,
            targets: &self.0.ids,
            terms: self.0.terms(classes),
            stats: pass.saved,
            grads: self.0.row_grads(grad.data),
        };
        let mut dx = buffer(x.data.len());
        for_rows(&kernel, &mut dx, classes, classes);
        Ok(vec![Some(dx)])
    }
}

/// Rows of the loss, the largest score and the sum of exponentials.
struct Forward<'a, T> {
    x: &'a [T],
    classes: usize,
    targets: &'a [i64],
    terms: Terms<T>,
}

impl<T: Real> RowKernel<T> for Forward<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        let x = self.x[first * self.classes..].chunks_exact(self.classes);
        for ((out, x), &y) in out.chunks_exact_mut(3).zip(x).zip(&self.targets[first..]) {
            let stats = Stats::of(x);
            out.copy_from_slice(&[self.terms.loss(x, y, stats), stats.top, stats.sum]);
        }
    }
}

struct Gradient<'a, T> {
    x: &'a [T],
    classes: usize,
    targets: &'a [i64],
    terms: Terms<T>,
    stats: &'a [Stats<T>],
    grads: Vec<T>,
}

impl<T: Real> RowKernel<T> for Gradient<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        for (k, dx) in out.chunks_exact_mut(self.classes).enumerate() {
            let row = first + k;
            let x = &self.x[row * self.classes..][..self.classes];
            self.terms.gradient(dx, x, self.targets[row], self.stats[row], self.grads[row]);
        }
    }
}
