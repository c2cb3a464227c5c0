//! Weightings by content, fused: each head meets all slots while they are in the nearest cache.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{dot, parts, softmax_row, softmax_row_backward};
use crate::memory::cosine::{Compared, Key, cosines_of, norms_of, slots_backward};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// `M (b, n, w)`, keys `(b, h, w)`, strengths `(b, h)` to weightings `(b, h, n)`.
pub(super) struct ContentOp;

/// Batch, slots, width, heads.
#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    n: usize,
    w: usize,
    h: usize,
}

/// Cosines `(b, h, n)` and the lengths of the slots `(b, n)`.
pub(super) struct Saved<T> {
    cosines: Vec<T>,
    norms: Vec<T>,
}

impl Dims {
    fn new<T>(x: &[View<'_, T>]) -> Self {
        let [b, n, w] = [x[0].dims[0], x[0].dims[1], x[0].dims[2]];
        Self { b, n, w, h: x[1].dims[1] }
    }

    fn rows_per_task(self) -> usize {
        rows_per_task(self.b, self.n * self.h * (self.w / 4 + 8))
    }
}

impl FusedOp for ContentOp {
    const NAME: &'static str = "content weights";
    type Saved<T: Real> = Saved<T>;

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, Saved<T>)> {
        let dims = Dims::new(x);
        let Dims { b, n, h, .. } = dims;
        let mut weights = buffer(b * h * n);
        let mut saved = Saved { cosines: buffer(b * h * n), norms: buffer(b * n) };
        let (rows, level) = (dims.rows_per_task(), simd::level());
        let tasks = weights.chunks_mut(rows * h * n);
        let tasks = tasks.zip(saved.cosines.chunks_mut(rows * h * n));
        let tasks = tasks.zip(saved.norms.chunks_mut(rows * n)).enumerate();
        for_each(tasks.collect(), |(i, ((weights, cosines), norms))| {
            level.dispatch(Forward { x, dims, first: i * rows, weights, cosines, norms });
        });
        Ok((vec![(weights, vec![b, h, n])], saved))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Saved<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs));
        let Dims { b, n, w, h } = dims;
        let mut d_memory = pass.wanted[0].then(|| buffer::<T>(b * n * w));
        let (mut d_keys, mut d_strengths) = (buffer::<T>(b * h * w), buffer::<T>(b * h));
        let (rows, level) = (dims.rows_per_task(), simd::level());
        let mut next_memory = parts(&mut d_memory, rows * n * w);
        let tasks = d_keys.chunks_mut(rows * h * w).zip(d_strengths.chunks_mut(rows * h));
        let tasks = tasks.enumerate().map(|(i, (d_keys, d_strengths))| BackwardRows {
            x,
            dims,
            first: i * rows,
            saved: pass.saved,
            weights: pass.outputs[0].data,
            grad: pass.grads[0].map_or(&[][..], |g| g.data),
            d_memory: next_memory(),
            d_keys,
            d_strengths,
        });
        for_each(tasks.collect(), |task| level.dispatch(task));
        drop(next_memory);
        Ok(vec![d_memory, Some(d_keys), Some(d_strengths)])
    }
}

struct Forward<'a, T> {
    x: &'a [View<'a, T>],
    dims: Dims,
    first: usize,
    weights: &'a mut [T],
    cosines: &'a mut [T],
    norms: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Dims { n, w, h, .. } = self.dims;
        let rows = self.weights.chunks_exact_mut(h * n).zip(self.cosines.chunks_exact_mut(h * n));
        for ((weights, cosines), (i, norms)) in rows.zip(self.norms.chunks_exact_mut(n).enumerate())
        {
            let row = self.first + i;
            let memory = &self.x[0].data[row * n * w..][..n * w];
            norms_of(memory, w, norms);
            let heads = weights.chunks_exact_mut(n).zip(cosines.chunks_exact_mut(n));
            for ((weights, cosines), head) in heads.zip(row * h..) {
                let key = Key::new(self.x[1].data[head * w..][..w].to_vec());
                cosines_of(&key, memory, norms, cosines);
                let strength = T::ONE + self.x[2].data[head].softplus_();
                weights.iter_mut().zip(&*cosines).for_each(|(o, &c)| *o = strength * c);
                softmax_row(weights, None);
            }
        }
    }
}

struct BackwardRows<'a, T> {
    x: &'a [View<'a, T>],
    dims: Dims,
    first: usize,
    saved: &'a Saved<T>,
    weights: &'a [T],
    grad: &'a [T],
    d_memory: Option<&'a mut [T]>,
    d_keys: &'a mut [T],
    d_strengths: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for BackwardRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let Dims { n, w, h, .. } = self.dims;
        let (mut d_memory, mut compared) = (self.d_memory.take(), Vec::with_capacity(h));
        let mut d_scores = vec![T::ZERO; n];
        let heads = self.d_keys.chunks_exact_mut(w).zip(self.d_strengths.iter_mut());
        for (i, (d_key, d_strength)) in heads.enumerate() {
            let (row, head) = (self.first + i / h, self.first * h + i);
            let raw = self.x[2].data[head];
            let cosines = &self.saved.cosines[head * n..][..n];
            d_scores.copy_from_slice(&self.grad[head * n..][..n]);
            softmax_row_backward(&self.weights[head * n..][..n], &mut d_scores, None);
            *d_strength = dot(&d_scores, cosines) * raw.sigmoid_();
            let strength = T::ONE + raw.softplus_();
            d_scores.iter_mut().for_each(|d| *d *= strength);
            let key = Key::new(self.x[1].data[head * w..][..w].to_vec());
            let memory = &self.x[0].data[row * n * w..][..n * w];
            let norms = &self.saved.norms[row * n..][..n];
            compared.push(Compared::new(key, (memory, norms), cosines, &d_scores, d_key));
            if compared.len() == h {
                if let Some(d_memory) = &mut d_memory {
                    slots_backward(&compared, memory, w, &mut d_memory[i / h * n * w..][..n * w]);
                }
                compared.clear();
            }
        }
    }
}
