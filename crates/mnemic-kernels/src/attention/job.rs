//! A task of the backward pass: one key-value head, or a share of its keys, against all queries that read it.

use std::ops::Range;

use gemm::Parallelism;

use super::backward::{Grads, Wanted};
use super::cpu::{COLS, Call, ROWS, Terms, Tile, band_len, transpose};
use super::differentiate::{Block, Differentiate, Skew, band_products, full_row};
use super::tables::Tables;
use super::{Sizes, rows};
use crate::matmul::{Mat, matmul};
use crate::real::{Real, buffer};

/// Some keys of one key-value head, and what is owned for them. Gradients that are not wanted are empty.
pub(super) struct Job<'a, T> {
    /// `batch · h_kv + head`.
    pub(super) kv: usize,
    pub(super) keys: Range<usize>,
    /// `(group, n_q, d)`.
    pub(super) d_q: &'a mut [T],
    /// `(keys, d)`.
    pub(super) d_k: &'a mut [T],
    /// `(keys, d_v)`.
    pub(super) d_v: &'a mut [T],
    pub(super) tables: &'a mut Tables<T>,
}

/// Memory of a job for one query head.
struct Scratch<T> {
    /// Scaled queries, `(n_q, d)`.
    q: Vec<T>,
    /// `log_sum_exp` (0 where -inf) and `D`.
    shift: Vec<T>,
    delta: Vec<T>,
    /// Keys and values of a block, transposed.
    k: Vec<T>,
    v: Vec<T>,
    tile: TileScratch<T>,
    shaw: ShawScratch<T>,
}

/// Memory of one tile.
struct TileScratch<T> {
    /// Scores, then weights after dropout, `(rows, cols)`.
    weights: Vec<T>,
    /// `dP`, then `dS`, `(rows, cols)`.
    d_scores: Vec<T>,
    factors: Vec<T>,
    band: Vec<T>,
}

/// Products with Shaw's tables and sums for their gradients, `(n_q, places)` each.
#[derive(Default)]
struct ShawScratch<T> {
    keys: Vec<T>,
    values: Vec<T>,
    d_keys: Vec<T>,
    weights: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(call: &Call<'_, T>) -> Self {
        let Sizes { n_q, n_k, d, d_v, .. } = call.sizes;
        let (rows, cols) = (ROWS.min(n_q), COLS.min(n_k));
        let places = call.shaw.map_or(0, |s| n_q * s.rows);
        let with_values = call.shaw.is_some_and(|s| s.values.is_some());
        let value_places = if with_values { places } else { 0 };
        Self {
            q: buffer(n_q * d),
            shift: buffer(n_q),
            delta: buffer(n_q),
            k: buffer(d * cols),
            v: buffer(d_v * cols),
            tile: TileScratch {
                weights: buffer(rows * cols),
                d_scores: buffer(rows * cols),
                factors: buffer(if call.dropout.is_some() { cols } else { 0 }),
                band: buffer(if call.music.is_some() { band_len(rows, cols) } else { 0 }),
            },
            shaw: ShawScratch {
                keys: buffer(places),
                values: buffer(value_places),
                d_keys: buffer(places),
                weights: buffer(value_places),
            },
        }
    }

    /// What belongs to one query head.
    fn prepare(&mut self, call: &Call<'_, T>, grads: &Grads<'_, T>, head: usize) {
        let Sizes { n_q, d, d_v, .. } = call.sizes;
        let q = &call.q[head * n_q * d..(head + 1) * n_q * d];
        self.q.iter_mut().zip(q).for_each(|(s, q)| *s = *q * call.scale);
        let at = head * n_q * d_v..(head + 1) * n_q * d_v;
        let d_output = &grads.d_output[at.clone()];
        let lse = head * n_q..(head + 1) * n_q;
        let Self { shift, delta, .. } = self;
        let d_lse = grads.d_log_sum_exp.map(|g| &g.data[lse.clone()]);
        for (shift, lse) in shift.iter_mut().zip(&grads.log_sum_exp[lse]) {
            *shift = if *lse == Call::low() { T::ZERO } else { *lse };
        }
        call.level.dispatch(Delta { output: &grads.output[at], d_output, d_lse, d_v, delta });
        let Some(shaw) = call.shaw else { return };
        let places = shaw.rows;
        let product = |out: &mut [T], rows: &[T], table: &[T], d: usize| {
            let (lhs, rhs) =
                (Mat { data: rows, row: d, col: 1 }, Mat { data: table, row: 1, col: d });
            matmul((n_q, places, d), out, places, false, lhs, rhs, Parallelism::None);
        };
        product(&mut self.shaw.keys, &self.q, shaw.keys, d);
        self.shaw.d_keys.fill(T::ZERO);
        if let Some(values) = shaw.values {
            product(&mut self.shaw.values, d_output, values, d_v);
            self.shaw.weights.fill(T::ZERO);
        }
    }
}

/// `D = Σ_c dO_c O_c` less the gradient of `log_sum_exp`.
struct Delta<'a, T> {
    output: &'a [T],
    d_output: &'a [T],
    d_lse: Option<&'a [T]>,
    d_v: usize,
    delta: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Delta<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { output, d_output, d_lse, d_v, delta } = self;
        let rows = output.chunks_exact(d_v).zip(d_output.chunks_exact(d_v));
        for (i, (delta, (o, d))) in delta.iter_mut().zip(rows).enumerate() {
            *delta = rows::dot(o, d) - d_lse.map_or(T::ZERO, |g| g[i]);
        }
    }
}

impl<T: Real> Job<'_, T> {
    pub(super) fn run(
        mut self,
        call: &Call<'_, T>,
        grads: &Grads<'_, T>,
        d_full: &mut [(usize, &mut [T])],
    ) {
        let Sizes { h, h_kv, n_q, d, .. } = call.sizes;
        let group = h / h_kv;
        self.d_q.fill(T::ZERO);
        self.d_k.fill(T::ZERO);
        self.d_v.fill(T::ZERO);
        *self.tables = Tables::new(call, grads.wanted);
        let mut scratch = Scratch::new(call);
        for member in 0..group {
            let head = self.kv / h_kv * h + self.kv % h_kv * group + member;
            scratch.prepare(call, grads, head);
            for start in self.keys.clone().step_by(COLS) {
                let end = (start + COLS).min(self.keys.end);
                self.key_block(call, grads, &mut scratch, d_full, head, start..end);
            }
            if let Some(shaw) = call.shaw {
                let ShawScratch { d_keys, weights, .. } = &scratch.shaw;
                let d_output = &grads.d_output[head * n_q * call.sizes.d_v..];
                self.tables.finish_shaw(call, shaw.rows, (d_keys, &scratch.q), (weights, d_output));
                if grads.wanted.q {
                    let d_q = &mut self.d_q[member * n_q * d..(member + 1) * n_q * d];
                    let sums = Mat { data: d_keys, row: shaw.rows, col: 1 };
                    let table = Mat { data: shaw.keys, row: d, col: 1 };
                    matmul((n_q, d, shaw.rows), d_q, d, true, sums, table, Parallelism::None);
                }
            }
        }
        self.d_q.iter_mut().for_each(|x| *x *= call.scale);
    }

    /// All queries of a head against one block of keys.
    fn key_block(
        &mut self,
        call: &Call<'_, T>,
        grads: &Grads<'_, T>,
        scratch: &mut Scratch<T>,
        d_full: &mut [(usize, &mut [T])],
        head: usize,
        keys: Range<usize>,
    ) {
        let Sizes { n_q, n_k, d, d_v, .. } = call.sizes;
        let (width, kv) = (keys.len(), self.kv * n_k);
        transpose(&call.k[(kv + keys.start) * d..(kv + keys.end) * d], width, d, &mut scratch.k);
        let v = &call.v[(kv + keys.start) * d_v..(kv + keys.end) * d_v];
        transpose(v, width, d_v, &mut scratch.v);
        for row in (0..n_q).step_by(ROWS) {
            let rows = ROWS.min(n_q - row);
            let span = call.span(head, row..row + rows);
            let (col, end) = (span.start.max(keys.start), span.end.min(keys.end));
            if col >= end {
                continue;
            }
            let block = Block {
                tile: Tile { head, row, rows, col, cols: end - col },
                q: &scratch.q[row * d..(row + rows) * d],
                d_output: &grads.d_output[(head * n_q + row) * d_v..][..rows * d_v],
                k: Mat { data: &scratch.k[col - keys.start..], row: width, col: 1 },
                v: Mat { data: &scratch.v[col - keys.start..], row: width, col: 1 },
                shift: &scratch.shift[row..row + rows],
                delta: &scratch.delta[row..row + rows],
            };
            self.tile(call, grads.wanted, &block, &mut scratch.tile, &mut scratch.shaw, d_full);
        }
    }

    /// One tile: its scores and `dS`, then what it adds to the gradients.
    fn tile(
        &mut self,
        call: &Call<'_, T>,
        wanted: Wanted,
        block: &Block<'_, T>,
        scratch: &mut TileScratch<T>,
        shaw: &mut ShawScratch<T>,
        d_full: &mut [(usize, &mut [T])],
    ) {
        let Sizes { d, d_v, .. } = call.sizes;
        let tile = block.tile;
        let Tile { rows, cols, .. } = tile;
        let TileScratch { weights, d_scores, factors, band } = scratch;
        let queries = Mat { data: block.q, row: d, col: 1 };
        let d_output = Mat { data: block.d_output, row: d_v, col: 1 };
        matmul((rows, cols, d), weights, cols, false, queries, block.k, Parallelism::None);
        matmul((rows, cols, d_v), d_scores, cols, false, d_output, block.v, Parallelism::None);
        let range = call.music.as_ref().map(|music| call.band(music, tile, block.q, band));
        let terms = Terms {
            band: range.clone().map(|range| (range, band.as_slice())),
            clipped: call.shaw.map(|shaw_| &shaw.keys[tile.row * shaw_.rows..]),
        };
        let member = tile.head % (call.sizes.h / call.sizes.h_kv);
        let distance = self.tables.distance_row(call, member);
        let full = full_row(call, tile, d_full);
        let (weights, d_scores) = (&mut weights[..rows * cols], &mut d_scores[..rows * cols]);
        call.level.dispatch(Differentiate {
            call,
            block,
            terms: &terms,
            weights: &mut *weights,
            d_scores: &mut *d_scores,
            factors,
            shaw_values: &shaw.values,
            d_shaw_keys: &mut shaw.d_keys,
            shaw_weights: &mut shaw.weights,
            distance,
            full,
        });
        self.products(call, wanted, block, weights, d_scores);
        if let (Some(music), Some(range)) = (&call.music, range) {
            call.level.dispatch(Skew { call, l: music.l, tile, range: &range, d_scores, band });
            let d_q = query_rows(call, tile, self.d_q);
            let d_table = self.tables.music_rows(call, member, &range);
            band_products(call, &range, block, band, d_q, d_table);
        }
    }

    /// The gradients of queries, keys and values from one tile.
    fn products(
        &mut self,
        call: &Call<'_, T>,
        wanted: Wanted,
        block: &Block<'_, T>,
        weights: &[T],
        d_scores: &[T],
    ) {
        let Sizes { h_kv, n_k, d, d_v, .. } = call.sizes;
        let Tile { head, rows, col, cols, .. } = block.tile;
        debug_assert_eq!(self.kv / h_kv, head / call.sizes.h);
        let down = |data| Mat { data, row: 1, col: cols };
        let row = col - self.keys.start;
        let none = Parallelism::None;
        if wanted.v {
            let d_output = Mat { data: block.d_output, row: d_v, col: 1 };
            let d_v_rows = &mut self.d_v[row * d_v..];
            matmul((cols, d_v, rows), d_v_rows, d_v, true, down(weights), d_output, none);
        }
        if wanted.k {
            let queries = Mat { data: block.q, row: d, col: 1 };
            let d_k = &mut self.d_k[row * d..];
            matmul((cols, d, rows), d_k, d, true, down(d_scores), queries, none);
        }
        if wanted.q {
            let keys = Mat { data: &call.k[(self.kv * n_k + col) * d..], row: d, col: 1 };
            let d_scores = Mat { data: d_scores, row: cols, col: 1 };
            let d_q = query_rows(call, block.tile, self.d_q);
            matmul((rows, d, cols), d_q, d, true, d_scores, keys, none);
        }
    }
}

/// The rows of a tile in the gradient of a group's queries; empty where that is.
fn query_rows<'a, T: Real>(call: &Call<'_, T>, tile: Tile, d_q: &'a mut [T]) -> &'a mut [T] {
    let Sizes { h, h_kv, n_q, d, .. } = call.sizes;
    let at = (tile.head % (h / h_kv) * n_q + tile.row) * d;
    if d_q.is_empty() { d_q } else { &mut d_q[at..at + tile.rows * d] }
}
