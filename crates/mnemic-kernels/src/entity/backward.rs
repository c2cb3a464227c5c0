//! The backward pass of the fused CPU path.

use gemm::Parallelism;

use super::cpu::{Dims, Group, Kept, cut_rows, padded};
use super::steps::Gradients;
use crate::fused::{Backward, View};
use crate::matmul::{Mat, matmul};
use crate::packed::{Packed, Start, Term, product};
use crate::real::{Real, buffer};
use crate::simd::{self, Level};
use crate::threads;

/// Batch rows of a task, if a group has fewer. Each task has sums of its own; they are joined in order.
const ROWS: usize = 4;
/// Slots whose part of the gradient of `U` is added at a time: they stay in the second cache.
const BLOCK: usize = 480;

type Pass<'a, T> = Backward<'a, T, Vec<Kept<T>>>;

/// The parameters as the backward pass reads them.
pub(super) struct BackwardWeights<T> {
    /// `U`.
    state: Packed<T>,
    /// `W` above the keys.
    input: Packed<T>,
    slopes: Vec<T>,
}

impl<T: Real> BackwardWeights<T> {
    pub(super) fn new(dims: Dims, inputs: &[View<'_, T>]) -> Self {
        let Dims { d, dp, width, .. } = dims;
        let data = |i: usize| padded(inputs[i].data, d, dp);
        let mut input = vec![T::ZERO; width * dp];
        let (w, keys) = (data(5), data(1));
        input[..w.len()].copy_from_slice(&w);
        input[dp * dp..][..keys.len()].copy_from_slice(&keys);
        Self {
            state: Packed::new(Mat { data: &data(3), row: dp, col: 1 }, d, dp),
            input: Packed::new(Mat { data: &input, row: dp, col: 1 }, width, dp),
            slopes: data(7),
        }
    }
}

/// Sums over the rows of a task.
struct Sums<'a, T> {
    /// Gradient of `U`, `(d, d)`.
    state: &'a mut [T],
    /// Of `W` above the keys (by the scores), `(width, d)`.
    input: &'a mut [T],
    /// Of the projected keys, `(m, dp)`.
    keys: &'a mut [T],
    /// `(dp)`.
    slopes: &'a mut [T],
    /// `(m, dp)`.
    initial: &'a mut [T],
    /// Of both biases, `(width)`.
    start: &'a mut [T],
}

impl<'a, T> Sums<'a, T> {
    fn len(dims: Dims) -> usize {
        Self::parts(dims).iter().sum()
    }

    fn parts(dims: Dims) -> [usize; 6] {
        let Dims { m, d, dp, width, .. } = dims;
        [d * d, width * d, m * dp, dp, m * dp, width]
    }

    fn new(dims: Dims, mut rest: &'a mut [T]) -> Self {
        let [state, input, keys, slopes, initial, start] = Self::parts(dims).map(|size| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(size);
            rest = after;
            part
        });
        Self { state, input, keys, slopes, initial, start }
    }
}

/// The backward pass of some groups.
pub(super) struct Task<'a, T> {
    dims: Dims,
    groups: &'a [Group],
    kept: &'a [Kept<T>],
    pass: &'a Pass<'a, T>,
    weights: &'a BackwardWeights<T>,
    /// Gradient of the sentences of the task's rows.
    d_xs: &'a mut [T],
    sums: Sums<'a, T>,
}

impl<'a, T: Real> Task<'a, T> {
    /// The gradients of all operands.
    pub(super) fn run_all(
        dims: Dims,
        groups: &[Group],
        pass: &Pass<'_, T>,
        weights: &BackwardWeights<T>,
    ) -> Vec<Option<Vec<T>>> {
        let Dims { b, n, d, .. } = dims;
        let count = (ROWS / dims.rows()).max(1);
        let mut d_xs = vec![T::ZERO; b * n * d];
        let len = Sums::<T>::len(dims);
        let mut sums = vec![T::ZERO; groups.len().div_ceil(count) * len];
        let tasks = groups.chunks(count).zip(pass.saved.chunks(count)).zip(sums.chunks_mut(len));
        let tasks = tasks.zip(d_xs.chunks_mut(count * dims.rows() * n * d));
        let tasks = tasks.map(|(((groups, kept), sums), d_xs)| Task {
            dims,
            groups,
            kept,
            pass,
            weights,
            d_xs,
            sums: Sums::new(dims, sums),
        });
        let level = simd::level();
        threads::for_each(tasks.collect(), |task: Task<'_, T>| task.run(level));
        let (sum, others) = sums.split_at_mut(len);
        for other in others.chunks_exact(len) {
            sum.iter_mut().zip(other).for_each(|(s, x)| *s += *x);
        }
        gradients(dims, pass, d_xs, &Sums::new(dims, sum))
    }

    fn run(mut self, level: Level) {
        for (group, kept) in self.groups.iter().zip(self.kept) {
            self.group(level, group, kept);
        }
    }

    fn group(&mut self, level: Level, group: &Group, kept: &Kept<T>) {
        let Dims { m, dp, width, .. } = self.dims;
        let (rows, steps) = (group.order.len(), group.steps());
        let mut inner = Inner {
            sentences: group.sentences(self.dims, self.pass.inputs[0].data),
            d_state: self.state_gradient(group),
            d_projected: vec![T::ZERO; rows * steps * width],
            d_sentences: vec![T::ZERO; rows * steps * dp],
            gates: buffer(rows * m),
            outer: self.pass.grads[1].map_or(vec![], |_| buffer(rows * m)),
        };
        let size = rows * m * dp;
        let block = (BLOCK / (rows * m)).max(1);
        // Zero also where a row has ended.
        let mut d_z = vec![T::ZERO; block.min(steps) * size];
        for first in (0..steps).step_by(block).rev() {
            let count = block.min(steps - first);
            for t in (first..first + count).rev() {
                self.step(level, group, kept, t, &mut inner, &mut d_z[(t - first) * size..]);
            }
            let lhs = Mat { data: &d_z, row: 1, col: dp };
            let rhs = Mat { data: &kept.h[first * size..], row: dp, col: 1 };
            let (d, k) = (self.dims.d, count * rows * m);
            matmul((d, d, k), self.sums.state, d, true, lhs, rhs, Parallelism::None);
        }
        for d_state in inner.d_state.chunks_exact(m * dp) {
            self.sums.initial.iter_mut().zip(d_state).for_each(|(s, d)| *s += *d);
        }
        self.sentences(level, group, &mut inner);
    }

    /// The gradient of the last states in the group's order.
    fn state_gradient(&self, group: &Group) -> Vec<T> {
        let Dims { m, d, dp, .. } = self.dims;
        let mut d_state = vec![T::ZERO; group.order.len() * m * dp];
        if let Some(grad) = self.pass.grads[0] {
            for (out, (row, _)) in d_state.chunks_exact_mut(m * dp).zip(&group.order) {
                let from = &grad.data[(group.first + row) * m * d..][..m * d];
                let slots = out.chunks_exact_mut(dp).zip(from.chunks_exact(d));
                slots.for_each(|(out, x)| out[..d].copy_from_slice(x));
            }
        }
        d_state
    }

    fn step(
        &mut self,
        level: Level,
        group: &Group,
        kept: &Kept<T>,
        t: usize,
        inner: &mut Inner<T>,
        d_z: &mut [T],
    ) {
        let Dims { n, m, dp, .. } = self.dims;
        let (rows, slots) = (group.order.len(), group.active(t) * m);
        let size = rows * m * dp;
        let gather = |from: &[T], out: &mut [T]| {
            for (out, (row, _)) in out.chunks_exact_mut(m).zip(&group.order) {
                out.copy_from_slice(&from[((group.first + row) * n + t) * m..][..m]);
            }
        };
        gather(self.pass.outputs[1].data, &mut inner.gates[..slots]);
        if let Some(grad) = self.pass.grads[1] {
            gather(grad.data, &mut inner.outer[..slots]);
        }
        let d_z = &mut d_z[..slots * dp];
        level.dispatch(Gradients {
            sizes: self.dims.sizes(group.steps()),
            t,
            sentences: &inner.sentences,
            slopes: &self.weights.slopes,
            gates: &inner.gates[..slots],
            inverse: &kept.inverse[t * rows * m..][..slots],
            outer: &inner.outer,
            z: &kept.z[t * size..],
            old: &kept.h[t * size..],
            new: &kept.h[(t + 1) * size..],
            d_state: &mut inner.d_state,
            d_z: &mut *d_z,
            d_projected: &mut inner.d_projected,
            d_sentences: &mut inner.d_sentences,
            d_keys: &mut *self.sums.keys,
            d_slopes: &mut *self.sums.slopes,
        });
        let terms = [Term { lhs: &*d_z, row: dp, rhs: self.weights.state.view() }];
        product(level, slots, &terms, Start::Destination, &mut inner.d_state, dp);
    }

    /// What follows from the gradients of the projected sentences.
    fn sentences(&mut self, level: Level, group: &Group, inner: &mut Inner<T>) {
        let Dims { n, d, dp, width, .. } = self.dims;
        let steps = group.steps();
        if steps == 0 {
            return;
        }
        let base = self.groups.first().map_or(0, |g| g.first);
        for (place, (row, length)) in group.order.iter().enumerate() {
            let d_projected = &inner.d_projected[place * steps * width..][..length * width];
            let d_sentences = &mut inner.d_sentences[place * steps * dp..][..length * dp];
            let terms = [Term { lhs: d_projected, row: width, rhs: self.weights.input.view() }];
            product(level, *length, &terms, Start::Destination, d_sentences, dp);
            let out = &mut self.d_xs[(group.first - base + row) * n * d..][..length * d];
            cut_rows(d_sentences, dp, out, d);
            for row in d_projected.chunks_exact(width) {
                self.sums.start.iter_mut().zip(row).for_each(|(s, d)| *s += *d);
            }
        }
        // Zeros stand where a row has ended.
        let lhs = Mat { data: &inner.d_projected, row: 1, col: width };
        let rhs = Mat { data: &inner.sentences, row: dp, col: 1 };
        let dims = (width, d, group.order.len() * steps);
        matmul(dims, self.sums.input, d, true, lhs, rhs, Parallelism::None);
    }
}

/// What the backward pass of a group works on; the rows in the group's order.
struct Inner<T> {
    sentences: Vec<T>,
    d_state: Vec<T>,
    d_projected: Vec<T>,
    d_sentences: Vec<T>,
    /// Of one step, `(rows, m)`.
    gates: Vec<T>,
    outer: Vec<T>,
}

/// The gradients of the operands from the sums.
fn gradients<T: Real>(
    dims: Dims,
    pass: &Pass<'_, T>,
    d_xs: Vec<T>,
    sums: &Sums<'_, T>,
) -> Vec<Option<Vec<T>>> {
    let Dims { m, d, dp, .. } = dims;
    let (keys, key) = (pass.inputs[1].data, pass.inputs[4].data);
    let mut d_keys = sums.input[dp * d..][..m * d].to_vec();
    let mut d_key = buffer(d * d);
    let projected = |row, col| Mat { data: &*sums.keys, row, col };
    let rows = |data| Mat { data, row: d, col: 1 };
    matmul((m, d, d), &mut d_keys, d, true, projected(dp, 1), rows(key), Parallelism::None);
    matmul((d, d, m), &mut d_key, d, false, projected(1, dp), rows(keys), Parallelism::None);
    let mut initial = buffer(m * d);
    cut_rows(sums.initial, dp, &mut initial, d);
    let mut all = vec![
        d_xs,
        d_keys,
        initial,
        sums.state.to_vec(),
        d_key,
        sums.input[..d * d].to_vec(),
        sums.start[..d].to_vec(),
        sums.slopes[..d].to_vec(),
    ];
    if pass.inputs.len() > all.len() {
        all.push(sums.start[dp..][..m].to_vec());
    }
    all.into_iter().map(Some).collect()
}
