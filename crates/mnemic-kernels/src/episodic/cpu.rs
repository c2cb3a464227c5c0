//! The fused CPU path. Features are made in blocks that stay in cache and made again in the backward pass; only the inner layer is
//! kept. Work is cut into groups of batch rows whatever the number of threads, and their sums are joined in order.

use candle_core::Result;
use gemm::Parallelism;
use pulp::{Simd, WithSimd};

use crate::fused::{Backward, FusedOp, Results, View};
use crate::interaction::{FeatureGradient, Features};
use crate::lanes::dot;
use crate::matmul::{Mat, matmul};
use crate::packed::{Packed, Start, Term, product};
use crate::real::{Real, buffer};
use crate::simd::{self, Level};
use crate::threads;

/// Batch rows of a task.
const GROUP: usize = 8;
/// Facts whose features are made at a time.
const BLOCK: usize = 160;

/// Operands: facts `(b, n, h)`, memory `(b, h)`, fixed `(b, n, u)`, inner `(u, 2h)`, outer `(u)`, bias `(1)`.
pub(super) struct EpisodicOp;

#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    n: usize,
    h: usize,
    u: usize,
}

impl Dims {
    fn of<T>(inputs: &[View<'_, T>]) -> Self {
        let (facts, outer) = (inputs[0].dims, inputs[4].dims);
        Self { b: facts[0], n: facts[1], h: facts[2], u: outer.iter().product() }
    }

    /// Cuts facts `first..first + count` at the ends of batch rows: `(start, count)` each.
    fn rows(self, first: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
        let (n, end) = (self.n, first + count);
        let mut at = first;
        std::iter::from_fn(move || {
            let start = at;
            at = ((start / n + 1) * n).min(end);
            (start < end).then_some((start, at - start))
        })
    }

    /// Makes the features of facts `first..first + count`.
    fn features<T: Real>(
        self,
        level: Level,
        (facts, memory): (&[T], &[T]),
        (first, count): (usize, usize),
        out: &mut [T],
    ) {
        for (start, n) in self.rows(first, count) {
            level.dispatch(Features {
                facts: &facts[start * self.h..][..n * self.h],
                vector: &memory[start / self.n * self.h..][..self.h],
                out: &mut out[(start - first) * 2 * self.h..][..n * 2 * self.h],
            });
        }
    }
}

/// Blocks of `count` facts, `(start, count)` from 0.
fn blocks(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(BLOCK).map(move |start| (start, BLOCK.min(count - start)))
}

impl FusedOp for EpisodicOp {
    const NAME: &'static str = "episodic_scores";
    /// `tanh` of the inner layer, `(b, n, u)`.
    type Saved<T: Real> = Vec<T>;

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<Results<T, Vec<T>>> {
        let d = Dims::of(inputs);
        let [facts, memory, fixed, inner, outer, bias] = operands(inputs);
        let weights = Packed::new(Mat { data: inner, row: 1, col: 2 * d.h }, 2 * d.h, d.u);
        let mut saved = fixed.to_vec();
        let mut scores = buffer(d.b * d.n);
        let size = GROUP * d.n;
        let tasks = saved.chunks_mut(size * d.u).zip(scores.chunks_mut(size)).enumerate();
        let level = simd::level();
        threads::for_each(tasks.collect(), |(i, (saved, scores))| {
            let mut features = buffer(BLOCK * 2 * d.h);
            for (at, count) in blocks(scores.len()) {
                let features = &mut features[..count * 2 * d.h];
                d.features(level, (facts, memory), (i * size + at, count), features);
                let terms = [Term { lhs: &*features, row: 2 * d.h, rhs: weights.view() }];
                let inner = &mut saved[at * d.u..][..count * d.u];
                product(level, count, &terms, Start::Destination, inner, d.u);
                let scores = &mut scores[at..][..count];
                level.dispatch(Outer { inner, outer, bias: bias[0], scores });
            }
        });
        Ok((vec![(scores, vec![d.b, d.n])], saved))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Vec<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let d = Dims::of(pass.inputs);
        let [_, _, _, inner, _, _] = operands(pass.inputs);
        let Some(grad) = pass.grads[0] else { return Ok(vec![None; 6]) };
        let weights = Packed::new(Mat { data: inner, row: 2 * d.h, col: 1 }, d.u, 2 * d.h);
        let mut facts = buffer(d.b * d.n * d.h);
        let mut memory = vec![T::ZERO; d.b * d.h];
        let mut fixed = buffer(d.b * d.n * d.u);
        let size = GROUP * d.n;
        // Parts of each group: of the inner weights, then of the outer ones.
        let width = d.u * 2 * d.h + d.u;
        let mut parts = vec![T::ZERO; d.b.div_ceil(GROUP) * width];
        let tasks = facts.chunks_mut(size * d.h).zip(memory.chunks_mut(GROUP * d.h));
        let tasks = tasks.zip(fixed.chunks_mut(size * d.u)).zip(parts.chunks_mut(width));
        let tasks = tasks.enumerate().map(|(i, (((d_facts, d_memory), d_fixed), part))| Group {
            dims: d,
            first: i * size,
            pass: &pass,
            grad: grad.data,
            weights: &weights,
            d_facts,
            d_memory,
            d_fixed,
            part,
        });
        let level = simd::level();
        threads::for_each(tasks.collect(), |task: Group<'_, T>| task.run(level));
        let mut sums = vec![T::ZERO; width];
        for part in parts.chunks_exact(width) {
            sums.iter_mut().zip(part).for_each(|(s, p)| *s += *p);
        }
        let outer = sums.split_off(d.u * 2 * d.h);
        let bias = vec![grad.data.iter().copied().sum()];
        Ok([facts, memory, fixed, sums, outer, bias].into_iter().map(Some).collect())
    }
}

fn operands<'a, T>(inputs: &[View<'a, T>]) -> [&'a [T]; 6] {
    std::array::from_fn(|i| inputs[i].data)
}

/// The backward pass of a group of batch rows.
struct Group<'a, T> {
    dims: Dims,
    first: usize,
    pass: &'a Backward<'a, T, Vec<T>>,
    grad: &'a [T],
    weights: &'a Packed<T>,
    d_facts: &'a mut [T],
    d_memory: &'a mut [T],
    d_fixed: &'a mut [T],
    part: &'a mut [T],
}

impl<T: Real> Group<'_, T> {
    fn run(self, level: Level) {
        let d = self.dims;
        let [facts, memory, _, _, outer, _] = operands(self.pass.inputs);
        let (d_inner, d_outer) = self.part.split_at_mut(d.u * 2 * d.h);
        let mut features = buffer(BLOCK * 2 * d.h);
        let mut d_features = buffer(BLOCK * 2 * d.h);
        for (at, count) in blocks(self.d_facts.len() / d.h) {
            let start = self.first + at;
            let features = &mut features[..count * 2 * d.h];
            let d_features = &mut d_features[..count * 2 * d.h];
            let pre = &mut self.d_fixed[at * d.u..][..count * d.u];
            level.dispatch(OuterGradient {
                grad: &self.grad[start..][..count],
                inner: &self.pass.saved[start * d.u..][..count * d.u],
                outer,
                pre: &mut *pre,
                d_outer: &mut *d_outer,
            });
            let terms = [Term { lhs: &*pre, row: d.u, rhs: self.weights.view() }];
            d_features.fill(T::ZERO);
            product(level, count, &terms, Start::Destination, d_features, 2 * d.h);
            d.features(level, (facts, memory), (start, count), features);
            let lhs = Mat { data: &*pre, row: 1, col: d.u };
            let rhs = Mat { data: &*features, row: 2 * d.h, col: 1 };
            let dims = (d.u, 2 * d.h, count);
            matmul(dims, d_inner, 2 * d.h, true, lhs, rhs, Parallelism::None);
            for (from, n) in d.rows(start, count) {
                let (row, local) = (from / d.n, from - self.first);
                level.dispatch(FeatureGradient {
                    facts: &facts[from * d.h..][..n * d.h],
                    vector: &memory[row * d.h..][..d.h],
                    d_features: &d_features[(from - start) * 2 * d.h..][..n * 2 * d.h],
                    d_facts: &mut self.d_facts[local * d.h..][..n * d.h],
                    d_vector: &mut self.d_memory[(row - self.first / d.n) * d.h..][..d.h],
                });
            }
        }
    }
}

/// `tanh` of the inner layer in place, and the scores.
struct Outer<'a, T> {
    inner: &'a mut [T],
    outer: &'a [T],
    bias: T,
    scores: &'a mut [T],
}

impl<T: Real> WithSimd for Outer<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.inner.iter_mut() {
            *x = x.tanh_();
        }
        for (score, row) in self.scores.iter_mut().zip(self.inner.chunks_exact(self.outer.len())) {
            *score = dot(row, self.outer) + self.bias;
        }
    }
}

/// The gradient before the `tanh`, and that of the outer weights.
struct OuterGradient<'a, T> {
    grad: &'a [T],
    inner: &'a [T],
    outer: &'a [T],
    pre: &'a mut [T],
    d_outer: &'a mut [T],
}

impl<T: Real> WithSimd for OuterGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let u = self.outer.len();
        let rows = self.pre.chunks_exact_mut(u).zip(self.inner.chunks_exact(u)).zip(self.grad);
        for ((pre, inner), grad) in rows {
            for ((p, y), w) in pre.iter_mut().zip(inner).zip(self.outer) {
                *p = *grad * *w * (T::ONE - *y * *y);
            }
            for (d, y) in self.d_outer.iter_mut().zip(inner) {
                *d += *grad * *y;
            }
        }
    }
}
