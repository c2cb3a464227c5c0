//! The fused CPU path: every memory row is read once forward (keys, then values) and once backward.

use candle_core::{Result, Tensor, bail};

use super::{Addressed, Content};
use crate::fused::{self, Array, Backward, FusedOp, View};
use crate::lanes::{add_scaled, dot, kept, parts, set_scaled, softmax_row, softmax_row_backward};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

pub(super) fn content_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    options: Content<'_>,
) -> Result<Addressed> {
    let mask = options.mask.map(|m| m.flatten_all()?.to_vec1::<u8>()).transpose()?;
    let absent = options.absent.map(<[f64]>::to_vec);
    let op = ContentOp { mask, linear: options.linear, absent };
    let results = fused::apply(op, &[query, keys, values])?;
    match <[Tensor; 3]>::try_from(results) {
        Ok([weights, output, scores]) => Ok(Addressed { scores, weights, output }),
        Err(_) => bail!("content_attention: internal error: expected three results"),
    }
}

/// `q (b, d)`, `k (b, n, d)` and `v (b, n, d_v)` to `p (b, n)` and `o (b, d_v)`, and the scores `(b, n)`.
struct ContentOp {
    mask: Option<Vec<u8>>,
    linear: bool,
    absent: Option<Vec<f64>>,
}

#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    n: usize,
    d: usize,
    d_v: usize,
}

impl Dims {
    fn new<T>(x: &[View<'_, T>]) -> Self {
        Self { b: x[0].dims[0], n: x[1].dims[1], d: x[1].dims[2], d_v: x[2].dims[2] }
    }

    /// Rows a task takes; a row takes about `n (d + d_v) / 4` steps.
    fn rows_per_task(self) -> usize {
        rows_per_task(self.b, self.n * (self.d + self.d_v) / 4)
    }
}

/// The operands and options, for the rows of a task.
#[derive(Clone, Copy)]
struct Memory<'a, T> {
    dims: Dims,
    x: &'a [View<'a, T>],
    mask: Option<&'a [u8]>,
    linear: bool,
    absent: Option<&'a [f64]>,
}

/// What belongs to one row of the batch.
struct Row<'a, T> {
    query: &'a [T],
    keys: &'a [T],
    values: &'a [T],
    mask: Option<&'a [u8]>,
}

impl<'a, T: Real> Memory<'a, T> {
    #[inline(always)]
    fn row(&self, i: usize) -> Row<'a, T> {
        let Dims { n, d, d_v, .. } = self.dims;
        Row {
            query: &self.x[0].data[i * d..][..d],
            keys: &self.x[1].data[i * n * d..][..n * d],
            values: &self.x[2].data[i * n * d_v..][..n * d_v],
            mask: self.mask.map(|m| &m[i * n..][..n]),
        }
    }
}

impl ContentOp {
    fn memory<'a, T>(&'a self, dims: Dims, x: &'a [View<'a, T>]) -> Memory<'a, T> {
        let (mask, absent) = (self.mask.as_deref(), self.absent.as_deref());
        Memory { dims, x, mask, linear: self.linear, absent }
    }
}

impl FusedOp for ContentOp {
    const NAME: &'static str = "content_attention";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = Dims::new(x);
        let Dims { b, n, d_v, .. } = dims;
        let memory = self.memory(dims, x);
        let (mut weights, mut output) = (buffer(b * n), buffer(b * d_v));
        let mut scores = buffer(b * n);
        let (rows, level) = (dims.rows_per_task(), simd::level());
        let parts = weights.chunks_mut(rows * n).zip(output.chunks_mut(rows * d_v));
        let parts = parts.zip(scores.chunks_mut(rows * n));
        for_each(parts.enumerate().collect(), |(i, ((weights, output), scores))| {
            level.dispatch(Forward { memory, first: i * rows, weights, output, scores });
        });
        let results = vec![(weights, vec![b, n]), (output, vec![b, d_v]), (scores, vec![b, n])];
        Ok((results, ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Backward { inputs: x, outputs, grads, wanted, .. } = pass;
        let dims = Dims::new(x);
        let Dims { b, n, d, d_v } = dims;
        let memory = self.memory(dims, x);
        let (rows, level) = (dims.rows_per_task(), simd::level());
        let new = |i: usize| wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_query, mut d_keys, mut d_values) = (new(0), new(1), new(2));
        let mut next_query = parts(&mut d_query, rows * d);
        let mut next_keys = parts(&mut d_keys, rows * n * d);
        let mut next_values = parts(&mut d_values, rows * n * d_v);
        let tasks = (0..b.div_ceil(rows)).map(|i| BackwardRows {
            memory,
            range: (i * rows, b.min((i + 1) * rows)),
            weights: outputs[0].data,
            d_weights: grads[0].map(|g| g.data),
            d_output: grads[1].map(|g| g.data),
            d_scores: grads[2].map(|g| g.data),
            d_query: next_query(),
            d_keys: next_keys(),
            d_values: next_values(),
        });
        for_each(tasks.collect(), |task| level.dispatch(task));
        drop((next_query, next_keys, next_values));
        Ok(vec![d_query, d_keys, d_values])
    }
}

struct Forward<'a, T> {
    memory: Memory<'a, T>,
    first: usize,
    weights: &'a mut [T],
    output: &'a mut [T],
    scores: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Dims { n, d, d_v, .. } = self.memory.dims;
        let rows = self.weights.chunks_exact_mut(n).zip(self.output.chunks_exact_mut(d_v));
        let rows = rows.zip(self.scores.chunks_exact_mut(n));
        for (i, ((weights, output), scores)) in rows.enumerate() {
            let absent = self.memory.absent.map(|a| a[self.first + i]);
            let row = self.memory.row(self.first + i);
            for (i, (w, key)) in weights.iter_mut().zip(row.keys.chunks_exact(d)).enumerate() {
                *w = if kept(row.mask, i) { dot(row.query, key) } else { T::ZERO };
            }
            scores.copy_from_slice(weights);
            if !self.memory.linear {
                let sum = softmax_row(weights, row.mask);
                if let Some(absent) = absent {
                    // e^sum / (e^sum + e^absent)
                    let share = T::of(1. / (1. + (absent - sum.to_f64()).exp()));
                    weights.iter_mut().for_each(|w| *w *= share);
                }
            }
            output.fill(T::ZERO);
            for (i, (w, value)) in weights.iter().zip(row.values.chunks_exact(d_v)).enumerate() {
                if kept(row.mask, i) {
                    add_scaled(output, value, *w);
                }
            }
        }
    }
}

struct BackwardRows<'a, T> {
    memory: Memory<'a, T>,
    /// The first row, and the one after the last.
    range: (usize, usize),
    weights: &'a [T],
    d_weights: Option<&'a [T]>,
    d_output: Option<&'a [T]>,
    d_scores: Option<&'a [T]>,
    d_query: Option<&'a mut [T]>,
    d_keys: Option<&'a mut [T]>,
    d_values: Option<&'a mut [T]>,
}

impl<T: Real> pulp::WithSimd for BackwardRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let Dims { n, .. } = self.memory.dims;
        let mut d_scores = vec![T::ZERO; n];
        for i in 0..self.range.1 - self.range.0 {
            let row = self.memory.row(self.range.0 + i);
            let weights = &self.weights[(self.range.0 + i) * n..][..n];
            self.values(i, &row, weights, &mut d_scores);
            if !self.memory.linear {
                softmax_row_backward(weights, &mut d_scores, row.mask);
            }
            if let Some(direct) = self.d_scores {
                let direct = &direct[(self.range.0 + i) * n..][..n];
                for (j, (d, g)) in d_scores.iter_mut().zip(direct).enumerate() {
                    *d += if kept(row.mask, j) { *g } else { T::ZERO };
                }
            }
            self.keys(i, &row, &d_scores);
        }
    }
}

impl<T: Real> BackwardRows<'_, T> {
    /// The gradient of the weights, `v_i · do` and what came to them directly; and that of the values, `p_i do`.
    #[inline(always)]
    fn values(&mut self, i: usize, row: &Row<'_, T>, weights: &[T], d_weights: &mut [T]) {
        let Dims { n, d_v, .. } = self.memory.dims;
        match self.d_weights {
            Some(g) => d_weights.copy_from_slice(&g[(self.range.0 + i) * n..][..n]),
            None => d_weights.fill(T::ZERO),
        }
        if let Some(mask) = row.mask {
            let cut = |(g, m): (&mut T, &u8)| *g = if *m != 0 { *g } else { T::ZERO };
            d_weights.iter_mut().zip(mask).for_each(cut);
        }
        let mut d_values = self.d_values.as_mut().map(|x| &mut x[i * n * d_v..][..n * d_v]);
        let Some(d_output) = self.d_output else {
            d_values.into_iter().for_each(|x| x.fill(T::ZERO));
            return;
        };
        let d_output = &d_output[(self.range.0 + i) * d_v..][..d_v];
        for (j, (g, value)) in d_weights.iter_mut().zip(row.values.chunks_exact(d_v)).enumerate() {
            if kept(row.mask, j) {
                *g += dot(value, d_output);
            }
            if let Some(d_values) = &mut d_values {
                // The weight of a masked place is 0.
                set_scaled(&mut d_values[j * d_v..][..d_v], d_output, weights[j]);
            }
        }
    }

    /// The gradients of the query, `Σ_i ds_i k_i`, and of the keys, `ds_i q`.
    #[inline(always)]
    fn keys(&mut self, i: usize, row: &Row<'_, T>, d_scores: &[T]) {
        let Dims { n, d, .. } = self.memory.dims;
        if let Some(d_query) = &mut self.d_query {
            let d_query = &mut d_query[i * d..][..d];
            d_query.fill(T::ZERO);
            for (j, (g, key)) in d_scores.iter().zip(row.keys.chunks_exact(d)).enumerate() {
                if kept(row.mask, j) {
                    add_scaled(d_query, key, *g);
                }
            }
        }
        if let Some(d_keys) = &mut self.d_keys {
            let d_keys = d_keys[i * n * d..][..n * d].chunks_exact_mut(d);
            d_scores.iter().zip(d_keys).for_each(|(g, d_key)| set_scaled(d_key, row.query, *g));
        }
    }
}
