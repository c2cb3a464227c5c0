//! Links, precedence and the weightings of reads, fused: the links, the largest thing a step has, are gone through once.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{add_scaled, dot, softmax_row, softmax_row_backward};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// Links `(b, n, n)`, precedence and weighting of the write `(b, n)`, weightings of the reads before and by content `(b, r, n)`, modes `(b, r, 3)` to links, precedence and weightings.
pub(super) struct LinkOp;

/// What the operands are called, in their order.
const LINK: usize = 0;
const PRECEDENCE: usize = 1;
const WRITE: usize = 2;
const BEFORE: usize = 3;
const CONTENT: usize = 4;
const MODES: usize = 5;

/// For each row and head, the slots before and after those read: `Lᵀ w` and `L w`, `(b, r, 2, n)`.
pub(super) struct Saved<T>(Vec<T>);

/// Batch, slots, heads.
#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    n: usize,
    r: usize,
}

impl Dims {
    fn new<T>(x: &[View<'_, T>]) -> Self {
        let [b, r, n] = [x[BEFORE].dims[0], x[BEFORE].dims[1], x[BEFORE].dims[2]];
        Self { b, n, r }
    }

    /// The size of a row of each operand.
    fn sizes(self) -> [usize; 6] {
        let Self { n, r, .. } = self;
        [n * n, n, n, r * n, r * n, 3 * r]
    }

    fn rows_per_task(self) -> usize {
        rows_per_task(self.b, self.n * self.n * (self.r + 1) / 4)
    }
}

/// The parts of a row of the batch.
fn row<'a, T>(x: &[View<'a, T>], dims: Dims, number: usize) -> [&'a [T]; 6] {
    let sizes = dims.sizes();
    std::array::from_fn(|i| &x[i].data[number * sizes[i]..][..sizes[i]])
}

fn modes_of<T: Real>(raw: &[T]) -> Vec<T> {
    let mut modes = raw.to_vec();
    modes.chunks_exact_mut(3).for_each(|modes| {
        softmax_row(modes, None);
    });
    modes
}

impl FusedOp for LinkOp {
    const NAME: &'static str = "read weights";
    type Saved<T: Real> = Saved<T>;

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, Saved<T>)> {
        let dims = Dims::new(x);
        let Dims { b, n, r } = dims;
        let (mut link, mut precedence) = (buffer(b * n * n), buffer(b * n));
        let (mut weights, mut along) = (buffer(b * r * n), buffer(b * r * 2 * n));
        let rows = link.chunks_exact_mut(n * n).zip(precedence.chunks_exact_mut(n));
        let rows = rows.zip(weights.chunks_exact_mut(r * n).zip(along.chunks_exact_mut(2 * r * n)));
        let rows = rows.enumerate().map(|(i, ((link, precedence), (weights, along)))| Forward {
            x: row(x, dims, i),
            n,
            link,
            precedence,
            weights,
            along,
        });
        each_row(rows.collect(), dims.rows_per_task());
        let results =
            vec![(link, vec![b, n, n]), (precedence, vec![b, n]), (weights, vec![b, r, n])];
        Ok((results, Saved(along)))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Saved<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs));
        let Dims { b, n, r } = dims;
        let sizes = dims.sizes();
        let mut out: [Vec<T>; 6] = std::array::from_fn(|i| buffer(b * sizes[i]));
        let mut parts: Vec<_> =
            out.iter_mut().zip(sizes).map(|(out, size)| out.chunks_exact_mut(size)).collect();
        let mut rows = Vec::with_capacity(b);
        for i in 0..b {
            let grad = |k: usize, size: usize| pass.grads[k].map(|g| &g.data[i * size..][..size]);
            let d: Vec<&mut [T]> = parts.iter_mut().filter_map(Iterator::next).collect();
            let Ok(d) = <[&mut [T]; 6]>::try_from(d) else { continue };
            rows.push(BackwardRow {
                x: row(x, dims, i),
                n,
                link: &pass.outputs[0].data[i * n * n..][..n * n],
                along: &pass.saved.0[i * 2 * r * n..][..2 * r * n],
                grads: [grad(0, n * n), grad(1, n), grad(2, r * n)],
                d,
            });
        }
        each_row(rows, dims.rows_per_task());
        Ok(out.into_iter().map(Some).collect())
    }
}

/// Does rows of the batch, `each` of them a task.
fn each_row<R: pulp::WithSimd<Output = ()> + Send>(rows: Vec<R>, each: usize) {
    let level = simd::level();
    let mut rows = rows.into_iter();
    let mut tasks = vec![];
    loop {
        let task: Vec<R> = rows.by_ref().take(each).collect();
        if task.is_empty() {
            break;
        }
        tasks.push(task);
    }
    for_each(tasks, |task| task.into_iter().for_each(|row| level.dispatch(row)));
}

struct Forward<'a, T> {
    x: [&'a [T]; 6],
    n: usize,
    link: &'a mut [T],
    precedence: &'a mut [T],
    weights: &'a mut [T],
    along: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (n, written, last) = (self.n, self.x[WRITE], self.x[PRECEDENCE]);
        self.along.fill(T::ZERO);
        let rows = self.link.chunks_exact_mut(n).zip(self.x[LINK].chunks_exact(n));
        for (i, (row, before)) in rows.enumerate() {
            let (left, to) = (T::ONE - written[i], written[i]);
            for (j, o) in row.iter_mut().enumerate() {
                *o = (left - written[j]) * before[j] + to * last[j];
            }
            row[i] = T::ZERO;
            let heads = self.along.chunks_exact_mut(2 * n).zip(self.x[BEFORE].chunks_exact(n));
            for (along, read) in heads {
                let (backward, forward) = along.split_at_mut(n);
                add_scaled(backward, row, read[i]);
                forward[i] = dot(row, read);
            }
        }
        let left = T::ONE - sum(written);
        for ((o, &p), &w) in self.precedence.iter_mut().zip(last).zip(written) {
            *o = left * p + w;
        }
        let modes = modes_of(self.x[MODES]);
        let heads = self.weights.chunks_exact_mut(n).zip(self.along.chunks_exact(2 * n));
        let heads = heads.zip(self.x[CONTENT].chunks_exact(n)).zip(modes.chunks_exact(3));
        for (((weights, along), content), modes) in heads {
            let (backward, forward) = along.split_at(n);
            for (i, o) in weights.iter_mut().enumerate() {
                *o = modes[0] * backward[i] + modes[1] * content[i] + modes[2] * forward[i];
            }
        }
    }
}

/// The sum in order.
#[inline(always)]
fn sum<T: Real>(xs: &[T]) -> T {
    xs.iter().fold(T::ZERO, |sum, &x| sum + x)
}

struct BackwardRow<'a, T> {
    x: [&'a [T]; 6],
    n: usize,
    link: &'a [T],
    along: &'a [T],
    /// Of links, precedence and weightings.
    grads: [Option<&'a [T]>; 3],
    /// Of the operands.
    d: [&'a mut [T]; 6],
}

impl<T: Real> pulp::WithSimd for BackwardRow<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        // The gradients of `Lᵀ w` and `L w` of each head.
        let mut d_along = vec![T::ZERO; self.along.len()];
        self.mixture(&mut d_along);
        self.order();
        self.links(&d_along);
    }
}

impl<T: Real> BackwardRow<'_, T> {
    /// The weightings as mixtures of three.
    #[inline(always)]
    fn mixture(&mut self, d_along: &mut [T]) {
        let n = self.n;
        let Some(grad) = self.grads[2] else {
            self.d[CONTENT].fill(T::ZERO);
            self.d[MODES].fill(T::ZERO);
            return;
        };
        let modes = modes_of(self.x[MODES]);
        for (head, modes) in modes.chunks_exact(3).enumerate() {
            let grad = &grad[head * n..][..n];
            let (backward, forward) = self.along[2 * head * n..][..2 * n].split_at(n);
            let content = &self.x[CONTENT][head * n..][..n];
            let d_modes = &mut self.d[MODES][3 * head..][..3];
            d_modes.copy_from_slice(&[dot(grad, backward), dot(grad, content), dot(grad, forward)]);
            softmax_row_backward(modes, d_modes, None);
            let (d_backward, d_forward) = d_along[2 * head * n..][..2 * n].split_at_mut(n);
            let d_content = &mut self.d[CONTENT][head * n..][..n];
            for (i, &g) in grad.iter().enumerate() {
                d_backward[i] = modes[0] * g;
                d_content[i] = modes[1] * g;
                d_forward[i] = modes[2] * g;
            }
        }
    }

    /// The precedence after the step.
    #[inline(always)]
    fn order(&mut self) {
        let (written, last) = (self.x[WRITE], self.x[PRECEDENCE]);
        let Some(grad) = self.grads[1] else {
            self.d[PRECEDENCE].fill(T::ZERO);
            self.d[WRITE].fill(T::ZERO);
            return;
        };
        let (left, lost) = (T::ONE - sum(written), dot(grad, last));
        for (i, &g) in grad.iter().enumerate() {
            self.d[PRECEDENCE][i] = left * g;
            self.d[WRITE][i] = g - lost;
        }
    }

    /// The links, row by row. `d_along` holds the gradients of `Lᵀ w` and `L w`.
    #[inline(always)]
    fn links(&mut self, d_along: &[T]) {
        let n = self.n;
        let (written, last) = (self.x[WRITE], self.x[PRECEDENCE]);
        let [d_link, d_last, d_written, d_before, ..] = &mut self.d;
        d_before.fill(T::ZERO);
        let mut d_row = vec![T::ZERO; n];
        for i in 0..n {
            let (row, before) = (&self.link[i * n..][..n], &self.x[LINK][i * n..][..n]);
            match self.grads[0] {
                Some(grad) => d_row.copy_from_slice(&grad[i * n..][..n]),
                None => d_row.fill(T::ZERO),
            }
            let heads = d_along.chunks_exact(2 * n).zip(self.x[BEFORE].chunks_exact(n));
            for ((d_along, read), d_read) in heads.zip(d_before.chunks_exact_mut(n)) {
                let (d_backward, d_forward) = d_along.split_at(n);
                add_scaled(&mut d_row, read, d_forward[i]);
                add_scaled(&mut d_row, d_backward, read[i]);
                add_scaled(d_read, row, d_forward[i]);
                d_read[i] += dot(row, d_backward);
            }
            d_row[i] = T::ZERO;
            d_written[i] += dot(&d_row, last) - dot(&d_row, before);
            let (left, to) = (T::ONE - written[i], written[i]);
            let d_link = &mut d_link[i * n..][..n];
            for (j, &d) in d_row.iter().enumerate() {
                d_link[j] = (left - written[j]) * d;
                d_written[j] -= d * before[j];
                d_last[j] += to * d;
            }
        }
    }
}
