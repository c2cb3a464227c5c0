//! One tile of the backward pass: from scores and `dP` to `P̃` and `dS`, and on to biases and relative vectors.

use gemm::Parallelism;

use super::cpu::{Band, Call, Terms, Tile, full_slice};
use super::rows::{self, Overlap};
use crate::matmul::{Mat, matmul};
use crate::real::Real;

/// A tile's operands.
pub(super) struct Block<'a, T> {
    pub(super) tile: Tile,
    /// Scaled queries, `(rows, d)`.
    pub(super) q: &'a [T],
    /// `(rows, d_v)`.
    pub(super) d_output: &'a [T],
    /// `(d, cols)` and `(d_v, cols)`.
    pub(super) k: Mat<'a, T>,
    pub(super) v: Mat<'a, T>,
    pub(super) shift: &'a [T],
    pub(super) delta: &'a [T],
}

/// The matrix of a head in the gradient of a full bias, or nothing where it is not wanted.
pub(super) fn full_row<'a, T: Real>(
    call: &Call<'_, T>,
    tile: Tile,
    d_full: &'a mut [(usize, &mut [T])],
) -> &'a mut [T] {
    let h = call.sizes.h;
    let wanted = call.full.map(|full| full_slice(full.dims, tile.head / h, tile.head % h));
    match d_full.iter_mut().find(|(slice, _)| Some(*slice) == wanted) {
        Some((_, part)) => part,
        None => &mut [],
    }
}

/// From the scores and `dP` of a tile to `P̃` and `dS`, and what they add to the gradients of biases and Shaw's tables.
pub(super) struct Differentiate<'a, 'c, T: Real> {
    pub(super) call: &'a Call<'c, T>,
    pub(super) block: &'a Block<'a, T>,
    pub(super) terms: &'a Terms<'a, T>,
    pub(super) weights: &'a mut [T],
    pub(super) d_scores: &'a mut [T],
    pub(super) factors: &'a mut [T],
    /// `(n_q, places)`, or empty; the next two as well.
    pub(super) shaw_values: &'a [T],
    pub(super) d_shaw_keys: &'a mut [T],
    pub(super) shaw_weights: &'a mut [T],
    /// `(n_q + n_k - 1)`, or empty.
    pub(super) distance: &'a mut [T],
    /// `(n_q, n_k)`, or empty.
    pub(super) full: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Differentiate<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let (call, tile) = (self.call, self.block.tile);
        let (weights, d_scores) =
            (std::mem::take(&mut self.weights), std::mem::take(&mut self.d_scores));
        let rows = weights.chunks_exact_mut(tile.cols).zip(d_scores.chunks_exact_mut(tile.cols));
        for (r, (p, d)) in rows.enumerate() {
            call.finish_scores(tile, r, self.terms, p);
            rows::exp(p, self.block.shift[r]);
            if let (Some(shaw), false) = (call.shaw, self.shaw_values.is_empty()) {
                let at = (tile.row + r) * shaw.rows;
                let products = &self.shaw_values[at..at + shaw.rows];
                call.on_clipped(tile, r, shaw.rows).spread_clipped(d, products);
            }
            if let Some(dropout) = &call.dropout {
                let factors = &mut self.factors[..tile.cols];
                dropout.fill(call.number(tile, r), factors);
                rows::multiply(d, factors);
            }
            rows::softmax_gradient(d, p, self.block.delta[r]);
            if call.dropout.is_some() {
                rows::multiply(p, &self.factors[..tile.cols]);
            }
            self.collect(r, p, d);
        }
    }
}

impl<T: Real> Differentiate<'_, '_, T> {
    /// Adds row `r` of `P̃` and `dS` to the gradients of biases and Shaw's tables.
    #[inline(always)]
    fn collect(&mut self, r: usize, p: &[T], d: &[T]) {
        let (call, tile) = (self.call, self.block.tile);
        if !self.distance.is_empty() {
            let at = call.on_distances(tile, r);
            rows::add(&mut self.distance[at..at + tile.cols], d);
        }
        if !self.full.is_empty() {
            let at = (tile.row + r) * call.sizes.n_k + tile.col;
            rows::add(&mut self.full[at..at + tile.cols], d);
        }
        if let Some(shaw) = call.shaw {
            let overlap = call.on_clipped(tile, r, shaw.rows);
            let at = (tile.row + r) * shaw.rows..(tile.row + r + 1) * shaw.rows;
            overlap.collect_clipped(d, &mut self.d_shaw_keys[at.clone()]);
            if !self.shaw_weights.is_empty() {
                overlap.collect_clipped(p, &mut self.shaw_weights[at]);
            }
        }
    }
}

/// Lays the rows of `dS` on their band of distances, `(rows, band)`.
pub(super) struct Skew<'a, 'c, T: Real> {
    pub(super) call: &'a Call<'c, T>,
    pub(super) l: usize,
    pub(super) tile: Tile,
    pub(super) range: &'a Band,
    pub(super) d_scores: &'a [T],
    pub(super) band: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Skew<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { call, l, tile, range, d_scores, band } = self;
        let width = range.range.len();
        for (r, d) in d_scores.chunks_exact(tile.cols).enumerate() {
            let band = &mut band[r * width..(r + 1) * width];
            let Overlap { tile: from, band: at, len } = call.on_band(l, tile, range, r);
            band[..at].fill(T::ZERO);
            band[at..at + len].copy_from_slice(&d[from..from + len]);
            band[at + len..].fill(T::ZERO);
        }
    }
}

/// What a band adds to the gradients of the queries and of the vectors; empty ones are not wanted.
pub(super) fn band_products<T: Real>(
    call: &Call<'_, T>,
    band: &Band,
    block: &Block<'_, T>,
    d_band: &[T],
    d_q: &mut [T],
    d_table: &mut [T],
) {
    let (d, width, rows) = (call.sizes.d, band.range.len(), block.tile.rows);
    let (Some(music), false) = (&call.music, width == 0) else { return };
    if !d_q.is_empty() {
        let vectors = &music.vectors[(band.table * music.l + band.range.start) * d..];
        let lhs = Mat { data: d_band, row: width, col: 1 };
        let rhs = Mat { data: vectors, row: d, col: 1 };
        matmul((rows, d, width), d_q, d, true, lhs, rhs, Parallelism::None);
    }
    if !d_table.is_empty() {
        let lhs = Mat { data: d_band, row: 1, col: width };
        let rhs = Mat { data: block.q, row: d, col: 1 };
        matmul((width, d, rows), d_table, d, true, lhs, rhs, Parallelism::None);
    }
}
