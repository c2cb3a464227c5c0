//! The fused CPU path: both features in one pass, and both gradients in one.

use candle_core::Result;
use pulp::{Simd, WithSimd};

use crate::fused::{Backward, FusedOp, Results, View};
use crate::real::{Real, buffer};
use crate::{simd, threads};

/// Operands: facts `(b, n, h)`, vectors `(b, h)`.
pub(super) struct InteractionOp;

impl FusedOp for InteractionOp {
    const NAME: &'static str = "interaction";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<Results<T, ()>> {
        let [b, n, h] = [0, 1, 2].map(|i| x[0].dims[i]);
        let mut z = buffer(2 * b * n * h);
        let rows = threads::rows_per_task(b, n * h / 8);
        let level = simd::level();
        let tasks: Vec<_> = z.chunks_mut(rows * 2 * n * h).enumerate().collect();
        threads::for_each(tasks, |(i, z)| {
            for (k, out) in z.chunks_exact_mut(2 * n * h).enumerate() {
                let row = i * rows + k;
                let facts = &x[0].data[row * n * h..][..n * h];
                level.dispatch(Features { facts, vector: &x[1].data[row * h..][..h], out });
            }
        });
        Ok((vec![(z, vec![b, n, 2 * h])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (facts, vectors) = (pass.inputs[0], pass.inputs[1]);
        let [b, n, h] = [0, 1, 2].map(|i| facts.dims[i]);
        let Some(grad) = pass.grads[0] else { return Ok(vec![None; 2]) };
        let (mut d_facts, mut d_vectors) = (buffer(b * n * h), vec![T::ZERO; b * h]);
        let rows = threads::rows_per_task(b, n * h / 4);
        let level = simd::level();
        let tasks = d_facts.chunks_mut(rows * n * h).zip(d_vectors.chunks_mut(rows * h));
        threads::for_each(tasks.enumerate().collect(), |(i, (d_facts, d_vectors))| {
            let each = d_facts.chunks_exact_mut(n * h).zip(d_vectors.chunks_exact_mut(h));
            for (k, (d_facts, d_vector)) in each.enumerate() {
                let row = i * rows + k;
                level.dispatch(FeatureGradient {
                    facts: &facts.data[row * n * h..][..n * h],
                    vector: &vectors.data[row * h..][..h],
                    d_features: &grad.data[row * 2 * n * h..][..2 * n * h],
                    d_facts,
                    d_vector,
                });
            }
        });
        Ok(vec![Some(d_facts), Some(d_vectors)])
    }
}

/// `[f ∘ v ; |f - v|]` of the facts of one batch row.
pub(crate) struct Features<'a, T> {
    pub(crate) facts: &'a [T],
    pub(crate) vector: &'a [T],
    pub(crate) out: &'a mut [T],
}

impl<T: Real> WithSimd for Features<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let h = self.vector.len();
        for (out, fact) in self.out.chunks_exact_mut(2 * h).zip(self.facts.chunks_exact(h)) {
            let (product, distance) = out.split_at_mut(h);
            for ((o, f), m) in product.iter_mut().zip(fact).zip(self.vector) {
                *o = *f * *m;
            }
            for ((o, f), m) in distance.iter_mut().zip(fact).zip(self.vector) {
                *o = (*f - *m).abs_();
            }
        }
    }
}

/// Gradients of facts and vector from that of the features.
pub(crate) struct FeatureGradient<'a, T> {
    pub(crate) facts: &'a [T],
    pub(crate) vector: &'a [T],
    pub(crate) d_features: &'a [T],
    pub(crate) d_facts: &'a mut [T],
    /// Added to.
    pub(crate) d_vector: &'a mut [T],
}

impl<T: Real> WithSimd for FeatureGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let h = self.vector.len();
        let rows = self.d_facts.chunks_exact_mut(h).zip(self.facts.chunks_exact(h));
        for ((d_fact, fact), d) in rows.zip(self.d_features.chunks_exact(2 * h)) {
            let (product, distance) = d.split_at(h);
            for ((((o, f), m), p), q) in
                d_fact.iter_mut().zip(fact).zip(self.vector).zip(product).zip(distance)
            {
                *o = *p * *m + signed(*q, *f - *m);
            }
            for ((((o, f), m), p), q) in
                self.d_vector.iter_mut().zip(fact).zip(self.vector).zip(product).zip(distance)
            {
                *o += *p * *f - signed(*q, *f - *m);
            }
        }
    }
}

/// `x sign(by)`, 0 where `by` is 0.
#[inline(always)]
fn signed<T: Real>(x: T, by: T) -> T {
    let positive = if by > T::ZERO { x } else { T::ZERO };
    if by < T::ZERO { -x } else { positive }
}
