//! The fused CPU path: one sweep over the pairs forward, one backward.

use candle_core::{Result, Tensor, bail};

use super::Output;
use super::sweep::{Direct, Exponentials, Gradients, Operands, Pair, Scores, Sweep, Used};
use crate::fused::{self, Array, Backward, FusedOp, View};
use crate::lanes::{Lanes, chunks, kept, pack, parts, softmax_row, softmax_row_backward};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

pub(super) fn additive(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    output: Output,
) -> Result<Tensor> {
    let by_query = mask.is_some_and(|m| m.rank() == 3);
    let mask = mask.map(|m| m.flatten_all()?.to_vec1::<u8>()).transpose()?;
    fused::apply1(AdditiveOp { mask, by_query, output }, &[queries, keys, v])
}

/// `q (b, t, d)`, `k (b, s, d)` and `v (d)` to `(b, t, s)`.
struct AdditiveOp {
    mask: Option<Vec<u8>>,
    /// Whether the mask is `(b, t, s)`, else `(b, s)`.
    by_query: bool,
    output: Output,
}

#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    t: usize,
    s: usize,
    d: usize,
}

/// The operands and options, for the rows of a task.
#[derive(Clone, Copy)]
struct Pass<'a, T> {
    op: &'a AdditiveOp,
    dims: Dims,
    queries: &'a [T],
    keys: &'a [T],
    v: &'a [T],
}

impl<'a, T: Real> Pass<'a, T> {
    fn new(op: &'a AdditiveOp, x: &[View<'a, T>]) -> Self {
        let (q, k) = (x[0].dims, x[1].dims);
        let dims = Dims { b: q[0], t: q[1], s: k[1], d: q[2] };
        Self { op, dims, queries: x[0].data, keys: x[1].data, v: x[2].data }
    }

    /// Rows of the batch that a task takes; a pair and unit takes about a third of a step.
    fn rows_per_task(&self) -> usize {
        let Dims { b, t, s, d } = self.dims;
        rows_per_task(b, t * s * d / 3)
    }

    #[inline(always)]
    fn operands(&self, i: usize) -> Operands<'a, T> {
        let Dims { t, s, d, .. } = self.dims;
        let (queries, keys) =
            (&self.queries[i * t * d..][..t * d], &self.keys[i * s * d..][..s * d]);
        Operands { queries, keys, d }
    }

    #[inline(always)]
    fn mask(&self, i: usize, t: usize) -> Option<&'a [u8]> {
        let Dims { t: n, s, .. } = self.dims;
        let row = if self.op.by_query { i * n + t } else { i };
        self.op.mask.as_ref().map(|m| &m[row * s..][..s])
    }

    /// Notes which queries and keys of row `i` any pair uses.
    fn mark(&self, i: usize, used: &mut Used) {
        if self.op.mask.is_none() {
            return;
        }
        used.keys.fill(false);
        for (t, query) in used.queries.iter_mut().enumerate() {
            let mask = self.mask(i, t).unwrap_or_default();
            *query = mask.iter().any(|m| *m != 0);
            used.keys.iter_mut().zip(mask).for_each(|(k, m)| *k |= *m != 0);
        }
    }
}

impl FusedOp for AdditiveOp {
    const NAME: &'static str = "additive_attention";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let pass = Pass::new(self, x);
        let Dims { b, t, s, .. } = pass.dims;
        let mut out = buffer(b * t * s);
        let (rows, level) = (pass.rows_per_task(), simd::level());
        for_each(out.chunks_mut(rows * t * s).enumerate().collect(), |(i, out)| {
            level.dispatch(Forward { pass, first: i * rows, out });
        });
        Ok((vec![(out, vec![b, t, s])], ()))
    }

    fn backward<T: Real>(&self, back: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Backward { inputs: x, outputs, grads, wanted, .. } = back;
        let pass = Pass::new(self, x);
        let Dims { b, t, s, d } = pass.dims;
        let Some(grad) = grads[0] else { bail!("additive attention: internal error: no gradient") };
        let (rows, level, n) = (pass.rows_per_task(), simd::level(), chunks(d));
        let v = pack(pass.v, d);
        let new = |i: usize| wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_queries, mut d_keys) = (new(0), new(1));
        // A row of its own for each row of the batch, so that the sum has one order.
        let mut d_v = wanted[2].then(|| vec![Lanes::splat(T::ZERO); b * n]);
        let mut next_queries = parts(&mut d_queries, rows * t * d);
        let mut next_keys = parts(&mut d_keys, rows * s * d);
        let mut next_v = parts(&mut d_v, rows * n);
        let tasks = (0..b.div_ceil(rows)).map(|i| BackwardRows {
            pass,
            v: &v,
            range: (i * rows, b.min((i + 1) * rows)),
            out: outputs[0].data,
            grad: grad.data,
            d_queries: next_queries(),
            d_keys: next_keys(),
            d_v: next_v(),
        });
        for_each(tasks.collect(), |task| level.dispatch(task));
        drop((next_queries, next_keys, next_v));
        let d_v = d_v.map(|rows| {
            let mut sum = vec![T::ZERO; d];
            for row in rows.chunks_exact(n) {
                let flat = row.iter().flat_map(|lanes| lanes.0);
                sum.iter_mut().zip(flat).for_each(|(s, x)| *s += x);
            }
            sum
        });
        Ok(vec![d_queries, d_keys, d_v])
    }
}

struct Forward<'a, T> {
    pass: Pass<'a, T>,
    first: usize,
    out: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let pass = self.pass;
        let Dims { t, s, d, .. } = pass.dims;
        let (mut used, mut scores) = (Used::all(t, s), Scores::new(t, s, d));
        for (i, out) in self.out.chunks_exact_mut(t * s).enumerate() {
            let i = self.first + i;
            pass.mark(i, &mut used);
            if used.small(pass.operands(i)) {
                forward_row::<Exponentials, T>(pass, i, &mut scores, out);
            } else {
                forward_row::<Direct, T>(pass, i, &mut scores, out);
            }
        }
    }
}

/// Row `i` of the batch.
#[inline(always)]
fn forward_row<P: Pair, T: Real>(
    pass: Pass<'_, T>,
    i: usize,
    scores: &mut Scores<T>,
    out: &mut [T],
) {
    scores.prepare::<P>(pass.operands(i));
    for (t, out) in out.chunks_exact_mut(pass.dims.s).enumerate() {
        let mask = pass.mask(i, t);
        scores.scores::<P>(t, pass.v, mask, out);
        match pass.op.output {
            Output::Scores => {}
            Output::Softmax => _ = softmax_row(out, mask),
            Output::LogSoftmax => log_softmax_row(out, mask),
        }
    }
}

struct BackwardRows<'a, T> {
    pass: Pass<'a, T>,
    /// In whole vectors.
    v: &'a [Lanes<T>],
    /// The first row, and the one after the last.
    range: (usize, usize),
    out: &'a [T],
    grad: &'a [T],
    d_queries: Option<&'a mut [T]>,
    d_keys: Option<&'a mut [T]>,
    d_v: Option<&'a mut [Lanes<T>]>,
}

impl<T: Real> pulp::WithSimd for BackwardRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let pass = self.pass;
        let Dims { t, s, d, .. } = pass.dims;
        let n = chunks(d);
        let (mut used, mut sweep) = (Used::all(t, s), Sweep::new(t, s, d));
        let mut d_scores = vec![T::ZERO; t * s];
        for (local, i) in (self.range.0..self.range.1).enumerate() {
            self.scores(i, &mut d_scores);
            pass.mark(i, &mut used);
            let x = pass.operands(i);
            let out = Gradients {
                queries: self.d_queries.as_mut().map(|x| &mut x[local * t * d..][..t * d]),
                keys: self.d_keys.as_mut().map(|x| &mut x[local * s * d..][..s * d]),
                v: self.d_v.as_mut().map(|x| &mut x[local * n..][..n]),
            };
            if used.small(x) {
                sweep.prepare::<Exponentials>(x);
                sweep.backward::<Exponentials>(d, self.v, &d_scores, out);
            } else {
                sweep.prepare::<Direct>(x);
                sweep.backward::<Direct>(d, self.v, &d_scores, out);
            }
        }
    }
}

impl<T: Real> BackwardRows<'_, T> {
    /// The gradient of the scores of row `i` of the batch.
    #[inline(always)]
    fn scores(&self, i: usize, d_scores: &mut [T]) {
        let Dims { t, s, .. } = self.pass.dims;
        d_scores.copy_from_slice(&self.grad[i * t * s..][..t * s]);
        let out = self.out[i * t * s..][..t * s].chunks_exact(s);
        for (t, (g, out)) in d_scores.chunks_exact_mut(s).zip(out).enumerate() {
            let mask = self.pass.mask(i, t);
            match self.pass.op.output {
                Output::Scores => {}
                Output::Softmax => softmax_row_backward(out, g, mask),
                Output::LogSoftmax => log_softmax_row_backward(out, g, mask),
            }
        }
    }
}

/// Turns scores into their log-softmax over the places kept; the others become `-inf`.
#[inline(always)]
fn log_softmax_row<T: Real>(scores: &mut [T], mask: Option<&[u8]>) {
    let mut p = scores.to_vec();
    let log_sum = softmax_row(&mut p, mask);
    for (i, x) in scores.iter_mut().enumerate() {
        *x = if kept(mask, i) { *x - log_sum } else { T::from_f64(f64::NEG_INFINITY) };
    }
}

/// The gradient of the scores from that of their log-softmax, in place: `g - p Σ g`.
#[inline(always)]
fn log_softmax_row_backward<T: Real>(log_p: &[T], g: &mut [T], mask: Option<&[u8]>) {
    let mut sum = T::ZERO;
    for (i, g) in g.iter_mut().enumerate() {
        *g = if kept(mask, i) { *g } else { T::ZERO };
        sum += *g;
    }
    for (i, (g, x)) in g.iter_mut().zip(log_p).enumerate() {
        *g = if kept(mask, i) { *g - x.exp_() * sum } else { T::ZERO };
    }
}
