//! The fused CPU path: one pass over each row against the least of the candidates so far.

use std::sync::{Arc, OnceLock};

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// Operand: (…, n).
pub(super) struct TopKOp {
    pub(super) k: usize,
    /// The indices in their rows, (…, k), set by the forward pass.
    pub(super) chosen: Arc<OnceLock<Vec<u32>>>,
}

impl FusedOp for TopKOp {
    const NAME: &'static str = "top_k";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let View { data: xs, dims } = inputs[0];
        let (k, n) = (self.k, dims[dims.len() - 1]);
        let mut shape = dims.to_vec();
        shape[dims.len() - 1] = k;
        let count: usize = shape.iter().product();
        let (mut values, mut indices) = (buffer(count), vec![0u32; count]);
        if count > 0 {
            let rows = rows_per_task(count / k, n);
            let level = simd::level();
            let places = values.chunks_mut(rows * k).zip(indices.chunks_mut(rows * k));
            let tasks = xs.chunks(rows * n).zip(places).collect();
            for_each(tasks, |(xs, (values, indices)): (&[T], (&mut [T], &mut [u32]))| {
                let mut candidates = Vec::new();
                let places = values.chunks_exact_mut(k).zip(indices.chunks_exact_mut(k));
                for (xs, (values, indices)) in xs.chunks_exact(n).zip(places) {
                    level.dispatch(Select { xs, k, candidates: &mut candidates });
                    let found = values.iter_mut().zip(indices).zip(&candidates);
                    for ((value, index), candidate) in found {
                        *index = place(*candidate);
                        *value = xs[*index as usize];
                    }
                }
            });
        }
        // Only the first forward pass of an operation counts, and there is one.
        self.chosen.get_or_init(|| indices);
        Ok((vec![(values, shape)], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let View { data: xs, dims } = pass.inputs[0];
        let mut dx = vec![T::ZERO; xs.len()];
        let n = dims[dims.len() - 1];
        if let (Some(g), Some(chosen), true) = (pass.grads[0], self.chosen.get(), self.k > 0) {
            let rows = g.data.chunks_exact(self.k).zip(chosen.chunks_exact(self.k));
            for (dx, (grads, chosen)) in dx.chunks_exact_mut(n.max(1)).zip(rows) {
                for (g, i) in grads.iter().zip(chosen) {
                    dx[*i as usize] = *g;
                }
            }
        }
        Ok(vec![Some(dx)])
    }
}

/// An element as an integer: a greater one goes before a lesser. Its value in order above, its index counted down below.
type Candidate = u128;

#[inline(always)]
fn candidate<T: Real>(x: T, index: usize) -> Candidate {
    // Adding 0 makes -0 into 0.
    let x = x.to_f64() + 0.;
    let bits = x.to_bits();
    let key = match (x.is_nan(), bits >> 63) {
        (true, _) => u64::MAX,
        (false, 0) => bits | 1 << 63,
        (false, _) => !bits,
    };
    Candidate::from(key) << 32 | Candidate::from(!(index as u32))
}

fn place(candidate: Candidate) -> u32 {
    !(candidate as u32)
}

/// Leaves the `k` greatest of the candidates.
fn prune(candidates: &mut Vec<Candidate>, k: usize) {
    if candidates.len() > k {
        candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        candidates.truncate(k);
    }
}

/// Finds the `k` largest of a row, sorted.
struct Select<'a, T> {
    xs: &'a [T],
    k: usize,
    candidates: &'a mut Vec<Candidate>,
}

/// Elements that are compared at once.
const LANES: usize = 64;

impl<T: Real> pulp::WithSimd for Select<'_, T> {
    type Output = ();
    #[allow(clippy::eq_op, reason = "only NaN differs from itself; the trait has no `is_nan`")]
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Select { xs, k, candidates } = self;
        candidates.clear();
        let room = (2 * k).max(4 * LANES);
        // The least of the k greatest so far: what does not exceed it is out, and so is an equal, which comes later.
        let mut least: Option<T> = None;
        for (block, xs_block) in xs.chunks(LANES).enumerate() {
            if let Some(least) = least {
                let mut any = false;
                for x in xs_block {
                    any |= *x > least || *x != *x;
                }
                if !any {
                    continue;
                }
            }
            let all = xs_block.iter().enumerate();
            candidates.extend(all.map(|(j, x)| candidate(*x, block * LANES + j)));
            if candidates.len() >= room {
                prune(candidates, k);
                least = candidates.last().map(|c| xs[place(*c) as usize]);
            }
        }
        prune(candidates, k);
        candidates.sort_unstable_by(|a, b| b.cmp(a));
    }
}
