//! The forward pass.

use gemm::Parallelism;

use super::cpu::{COLS, Call, ROWS, Terms, Tile, band_len, for_each, transpose_all};
use super::{Sizes, rows};
use crate::matmul::{Mat, matmul};
use crate::real::{Real, buffer};

/// Rows of a task: several blocks, so that its scratch memory pays.
const TASK: usize = 4 * ROWS;

/// The output and the logarithms of the sums.
pub(super) fn run<T: Real>(call: &Call<'_, T>) -> (Vec<T>, Vec<T>) {
    let Sizes { b, h, h_kv, n_q, n_k, d, d_v } = call.sizes;
    let mut output = buffer(b * h * n_q * d_v);
    let mut log_sum_exp = buffer(b * h * n_q);
    // A product wants the keys transposed. For few queries it is cheaper to read them as they are.
    let transposed = (n_q >= ROWS / 4).then(|| transpose_all(call.k, b * h_kv, n_k, d));
    let mut tasks = Vec::new();
    let (mut out, mut lse) = (output.as_mut_slice(), log_sum_exp.as_mut_slice());
    for head in 0..b * h {
        for row in (0..n_q).step_by(TASK) {
            let rows = TASK.min(n_q - row);
            let (output, rest) = std::mem::take(&mut out).split_at_mut(rows * d_v);
            out = rest;
            let (log_sum_exp, rest) = std::mem::take(&mut lse).split_at_mut(rows);
            lse = rest;
            tasks.push(Task { head, row, output, log_sum_exp });
        }
    }
    let work = TASK.min(n_q) * n_k * (d + d_v);
    for_each(tasks, work, |task| task.run(call, transposed.as_deref()));
    (output, log_sum_exp)
}

/// Some queries of one head.
struct Task<'a, T> {
    head: usize,
    row: usize,
    output: &'a mut [T],
    log_sum_exp: &'a mut [T],
}

/// Memory of a task for one block of queries.
struct Scratch<T> {
    /// Scaled queries, `(rows, d)`.
    q: Vec<T>,
    /// Scores, then weights, `(rows, cols)`.
    scores: Vec<T>,
    max: Vec<T>,
    sum: Vec<T>,
    /// Factors of dropout, `(cols)`.
    factors: Vec<T>,
    band: Vec<T>,
    /// Products with Shaw's keys, `(rows, places)`.
    clipped: Vec<T>,
    /// Weights summed by Shaw's distances, `(rows, places)`.
    buckets: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(call: &Call<'_, T>) -> Self {
        let Sizes { n_q, n_k, d, .. } = call.sizes;
        let (rows, cols) = (ROWS.min(n_q), COLS.min(n_k));
        let places = call.shaw.map_or(0, |s| s.rows);
        let with_values = call.shaw.is_some_and(|s| s.values.is_some());
        Self {
            q: buffer(rows * d),
            scores: buffer(rows * cols),
            max: buffer(rows),
            sum: buffer(rows),
            factors: buffer(if call.dropout.is_some() { cols } else { 0 }),
            band: buffer(if call.music.is_some() { band_len(rows, cols) } else { 0 }),
            clipped: buffer(rows * places),
            buckets: buffer(if with_values { rows * places } else { 0 }),
        }
    }
}

impl<T: Real> Task<'_, T> {
    fn run(self, call: &Call<'_, T>, transposed: Option<&[T]>) {
        let d_v = call.sizes.d_v;
        let mut scratch = Scratch::new(call);
        let blocks = self.output.chunks_mut(ROWS * d_v).zip(self.log_sum_exp.chunks_mut(ROWS));
        for (i, (output, log_sum_exp)) in blocks.enumerate() {
            let rows = log_sum_exp.len();
            let tile = Tile { head: self.head, row: self.row + i * ROWS, rows, col: 0, cols: 0 };
            block(call, transposed, &mut scratch, tile, output, log_sum_exp);
        }
    }
}

/// One block of queries against all keys that they see.
fn block<T: Real>(
    call: &Call<'_, T>,
    transposed: Option<&[T]>,
    scratch: &mut Scratch<T>,
    tile: Tile,
    output: &mut [T],
    log_sum_exp: &mut [T],
) {
    let Sizes { h, h_kv, n_q, n_k, d, d_v, .. } = call.sizes;
    let rows = tile.rows;
    let kv = tile.head / (h / h_kv);
    let q = &call.q[(tile.head * n_q + tile.row) * d..][..rows * d];
    scratch.q.iter_mut().zip(q).for_each(|(s, q)| *s = *q * call.scale);
    scratch.max.fill(Call::low());
    scratch.sum.fill(T::ZERO);
    scratch.buckets.fill(T::ZERO);
    output.fill(T::ZERO);
    if let Some(shaw) = call.shaw {
        let queries = Mat { data: &scratch.q[..rows * d], row: d, col: 1 };
        let keys = Mat { data: shaw.keys, row: 1, col: d };
        let size = (rows, shaw.rows, d);
        matmul(size, &mut scratch.clipped, shaw.rows, false, queries, keys, Parallelism::None);
    }
    let span = call.span(tile.head, tile.row..tile.row + rows);
    for start in (span.start / COLS * COLS..span.end).step_by(COLS) {
        let (col, end) = (start.max(span.start), (start + COLS).min(span.end));
        if col >= end {
            continue;
        }
        let tile = Tile { col, cols: end - col, ..tile };
        let keys = match transposed {
            Some(k) => Mat { data: &k[kv * n_k * d + col..], row: n_k, col: 1 },
            None => Mat { data: &call.k[(kv * n_k + col) * d..], row: 1, col: d },
        };
        let values = Mat { data: &call.v[(kv * n_k + col) * d_v..], row: d_v, col: 1 };
        step(call, scratch, tile, keys, values, output);
    }
    let Scratch { max, sum, buckets, .. } = scratch;
    if let Some((values, places)) = call.shaw.and_then(|s| Some((s.values?, s.rows))) {
        let weights = Mat { data: buckets, row: places, col: 1 };
        let values = Mat { data: values, row: d_v, col: 1 };
        matmul((rows, d_v, places), output, d_v, true, weights, values, Parallelism::None);
    }
    call.level.dispatch(Normalise { max, sum, output, log_sum_exp, d_v });
}

/// One tile: its scores, their exponentials on top of the running maximum, and their product with the values.
fn step<T: Real>(
    call: &Call<'_, T>,
    scratch: &mut Scratch<T>,
    tile: Tile,
    keys: Mat<'_, T>,
    values: Mat<'_, T>,
    output: &mut [T],
) {
    let Sizes { d, d_v, .. } = call.sizes;
    let Tile { rows, cols, .. } = tile;
    let Scratch { q, scores, max, sum, factors, band, clipped, buckets } = scratch;
    let queries = Mat { data: &q[..rows * d], row: d, col: 1 };
    matmul((rows, cols, d), scores, cols, false, queries, keys, Parallelism::None);
    let range = call.music.as_ref().map(|music| call.band(music, tile, q, band));
    let terms = Terms {
        band: range.map(|range| (range, band.as_slice())),
        clipped: call.shaw.map(|_| clipped.as_slice()),
    };
    let scores = &mut scores[..rows * cols];
    call.level.dispatch(Accumulate {
        call,
        tile,
        terms: &terms,
        scores: &mut *scores,
        max,
        sum,
        factors,
        buckets,
        output: &mut *output,
    });
    let weights = Mat { data: scores, row: cols, col: 1 };
    matmul((rows, d_v, cols), output, d_v, true, weights, values, Parallelism::None);
}

/// From scores to weights that are not yet divided by their sum; what was summed before is brought to the new maximum.
struct Accumulate<'a, 'c, T: Real> {
    call: &'a Call<'c, T>,
    tile: Tile,
    terms: &'a Terms<'a, T>,
    scores: &'a mut [T],
    max: &'a mut [T],
    sum: &'a mut [T],
    factors: &'a mut [T],
    buckets: &'a mut [T],
    output: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Accumulate<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { call, tile, terms, scores, max, sum, factors, buckets, output } = self;
        let d_v = call.sizes.d_v;
        let low = Call::<T>::low();
        let places = if buckets.is_empty() { 0 } else { call.shaw.map_or(0, |s| s.rows) };
        for (r, row) in scores.chunks_exact_mut(tile.cols).enumerate() {
            call.finish_scores(tile, r, terms, row);
            let old = max[r];
            let new = rows::max(row, old);
            max[r] = new;
            // Nothing seen so far: any finite shift gives zeros.
            let shift = if new == low { T::ZERO } else { new };
            rows::exp(row, shift);
            if old != new {
                let factor = (old - shift).exp_();
                sum[r] *= factor;
                rows::scale(&mut output[r * d_v..(r + 1) * d_v], factor);
                rows::scale(&mut buckets[r * places..(r + 1) * places], factor);
            }
            sum[r] += rows::sum(row);
            if let Some(dropout) = &call.dropout {
                let factors = &mut factors[..tile.cols];
                dropout.fill(call.number(tile, r), factors);
                rows::multiply(row, factors);
            }
            if places > 0 {
                let buckets = &mut buckets[r * places..(r + 1) * places];
                call.on_clipped(tile, r, places).collect_clipped(row, buckets);
            }
        }
    }
}

/// Divides by the sums. A row that saw nothing stays 0.
struct Normalise<'a, T> {
    max: &'a [T],
    sum: &'a [T],
    output: &'a mut [T],
    log_sum_exp: &'a mut [T],
    d_v: usize,
}

impl<T: Real> pulp::WithSimd for Normalise<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { max, sum, output, log_sum_exp, d_v } = self;
        let rows = output.chunks_exact_mut(d_v).zip(log_sum_exp);
        for ((row, lse), (&max, &sum)) in rows.zip(max.iter().zip(sum)) {
            if sum == T::ZERO {
                row.fill(T::ZERO);
                *lse = Call::low();
            } else {
                rows::scale(row, T::ONE / sum);
                *lse = T::from_f64(max.to_f64() + sum.to_f64().ln());
            }
        }
    }
}
