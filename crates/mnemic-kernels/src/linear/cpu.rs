//! The fused CPU path.

use candle_core::Result;
use rayon::prelude::*;

use super::few;
use crate::fused::{Array, Backward, FusedOp, View};
use crate::matmul::{Mat, matmul, parallelism};
use crate::real::{Real, buffer, for_chunks};
use crate::simd;

/// Operands: input (rows, i), weight (o, i) and perhaps bias (o).
pub(super) struct LinearOp;

/// `times` copies of `row`, one after the other. The room is written once: no zeros first.
fn repeat<T: Real>(row: &[T], times: usize) -> Vec<T> {
    let mut all = Vec::with_capacity(row.len() * times);
    (0..times).for_each(|_| all.extend_from_slice(row));
    all
}

/// A row-major matrix of `cols` columns.
pub(super) fn rows<T>(data: &[T], cols: usize) -> Mat<'_, T> {
    Mat { data, row: cols, col: 1 }
}

/// The transpose of a row-major matrix of `cols` columns.
fn transposed<T>(data: &[T], cols: usize) -> Mat<'_, T> {
    Mat { data, row: 1, col: cols }
}

/// `x (…, i)` times a matrix `(i, o)`, with a bias `(o)` where there is one.
fn product_with_bias<T: Real>(
    x: View<'_, T>,
    weight: Mat<'_, T>,
    bias: Option<&[T]>,
    (i, o): (usize, usize),
) -> Array<T> {
    let mut dims = x.dims.to_vec();
    dims[x.dims.len() - 1] = o;
    let n: usize = dims.iter().product();
    let m = n / o.max(1);
    let bias = bias.filter(|_| n > 0);
    let mut y = match bias {
        Some(bias) => repeat(bias, m),
        // An empty sum is zero.
        None if i == 0 => vec![T::ZERO; n],
        None => buffer(n),
    };
    if n > 0 && i > 0 {
        matmul((m, o, i), &mut y, o, bias.is_some(), rows(x.data, i), weight, parallelism());
    }
    (y, dims)
}

/// A product of `n` numbers in a buffer of its own.
pub(super) fn product<T: Real>(
    n: usize,
    shape: (usize, usize, usize),
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
) -> Vec<T> {
    // Where an inner dimension is 0 a product has no terms.
    if n == 0 || shape.2 == 0 {
        return vec![T::ZERO; n];
    }
    let mut out = buffer(n);
    matmul(shape, &mut out, shape.1, false, lhs, rhs, parallelism());
    out
}

/// `dyᵀ x`, `(o, i)`, of `m` rows.
pub(crate) fn weight_gradient<T: Real>(
    x: &[T],
    dy: &[T],
    (o, i, m): (usize, usize, usize),
) -> Vec<T> {
    // The product packs the wider of two transposed operands faster where it stands on the right.
    if o > i && m * o > PACKED {
        let flipped = product(o * i, (i, o, m), transposed(x, i), rows(dy, o));
        transpose(&flipped, o)
    } else {
        product(o * i, (o, i, m), transposed(dy, o), rows(x, i))
    }
}

impl FusedOp for LinearOp {
    const NAME: &'static str = "linear";
    const PRODUCT: Option<(usize, usize)> = Some((1, 0));
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (x, w) = (inputs[0], inputs[1]);
        let (o, i) = (w.dims[0], w.dims[1]);
        let bias = inputs.get(2).map(|bias| bias.data);
        let m = x.data.len() / i.max(1);
        if let Some(y) = few::rows(x.data, w.data, bias, (m, o, i)) {
            let mut dims = x.dims.to_vec();
            dims[x.dims.len() - 1] = o;
            return Ok((vec![(y, dims)], ()));
        }
        Ok((vec![product_with_bias(x, transposed(w.data, i), bias, (i, o))], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, w) = (pass.inputs[0], pass.inputs[1]);
        let (o, i) = (w.dims[0], w.dims[1]);
        let dy = pass.grads[0].map_or(&[][..], |g| g.data);
        let m = dy.len() / o.max(1);
        let mut grads = vec![
            pass.wanted[0].then(|| product(x.data.len(), (m, i, o), rows(dy, o), rows(w.data, i))),
            pass.wanted[1].then(|| weight_gradient(x.data, dy, (o, i, m))),
        ];
        if let Some(&wanted) = pass.wanted.get(2) {
            grads.push(wanted.then(|| sum_rows(dy, o)));
        }
        Ok(grads)
    }
}

/// Operands: input (rows, i), the transpose (i, o) of the weight and perhaps bias (o).
pub(super) struct TurnedOp;

impl FusedOp for TurnedOp {
    const NAME: &'static str = "linear";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (x, w) = (inputs[0], inputs[1]);
        let (i, o) = (w.dims[0], w.dims[1]);
        let bias = inputs.get(2).map(|bias| bias.data);
        Ok((vec![product_with_bias(x, rows(w.data, o), bias, (i, o))], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, w) = (pass.inputs[0], pass.inputs[1]);
        let (i, o) = (w.dims[0], w.dims[1]);
        let dy = pass.grads[0].map_or(&[][..], |g| g.data);
        let m = dy.len() / o.max(1);
        let dx = || product(x.data.len(), (m, i, o), rows(dy, o), transposed(w.data, o));
        let dw = || product(w.data.len(), (i, o, m), transposed(x.data, i), rows(dy, o));
        let mut grads = vec![pass.wanted[0].then(dx), pass.wanted[1].then(dw)];
        if let Some(&wanted) = pass.wanted.get(2) {
            grads.push(wanted.then(|| sum_rows(dy, o)));
        }
        Ok(grads)
    }
}

/// Numbers in the gradient of the result from which the weight's gradient is computed transposed.
const PACKED: usize = 1 << 18;

/// The transpose of a row-major matrix of `cols` columns, in tiles that stay in the cache.
pub(super) fn transpose<T: Real>(xs: &[T], cols: usize) -> Vec<T> {
    const TILE: usize = 16;
    let mut ys = buffer(xs.len());
    if ys.is_empty() {
        return ys;
    }
    let rows = xs.len() / cols;
    for_chunks(&mut ys, rows, |start, part| {
        let first = start / rows;
        for tile in (0..rows).step_by(TILE) {
            let width = TILE.min(rows - tile);
            for (c, y) in part.chunks_exact_mut(rows).enumerate() {
                for (r, y) in y[tile..][..width].iter_mut().enumerate() {
                    *y = xs[(tile + r) * cols + first + c];
                }
            }
        }
    });
    ys
}

/// Operand: (…, o).
pub(super) struct ColumnSumOp;

impl FusedOp for ColumnSumOp {
    const NAME: &'static str = "column_sum";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let o = inputs[0].dims.last().copied().unwrap_or(1);
        Ok((vec![(sum_rows(inputs[0].data, o), vec![o])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let dy = pass.grads[0].map_or(&[][..], |g| g.data);
        let rows = pass.inputs[0].data.len() / dy.len().max(1);
        Ok(vec![Some(repeat(dy, rows))])
    }
}

/// Numbers in a block of rows whose sum is taken by itself; of wide rows, 64 rows, lest the sums outgrow the cache.
const BLOCK: usize = 1 << 15;

/// The sums of the columns of a row-major matrix of `cols` columns: of each block of rows, then of the blocks' sums in their order.
pub(crate) fn sum_rows<T: Real>(data: &[T], cols: usize) -> Vec<T> {
    let mut total = vec![T::ZERO; cols];
    if data.is_empty() {
        return total;
    }
    let level = simd::level();
    let block = (BLOCK / cols).max(64) * cols;
    let sum = |rows| {
        let mut sum = vec![T::ZERO; cols];
        level.dispatch(AddRows { rows, sum: &mut sum });
        sum
    };
    let sums: Vec<Vec<T>> = if data.len() < 2 * block || rayon::current_num_threads() < 2 {
        data.chunks(block).map(sum).collect()
    } else {
        data.par_chunks(block).map(sum).collect()
    };
    for sum in &sums {
        total.iter_mut().zip(sum).for_each(|(t, s)| *t += *s);
    }
    total
}

/// Adds rows to `sum`.
struct AddRows<'a, T> {
    rows: &'a [T],
    sum: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for AddRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let n = self.sum.len();
        // Four rows at a time: the sums are read and written a quarter as often.
        let fours = self.rows.chunks_exact(4 * n);
        let rest = fours.remainder();
        for four in fours {
            let (ab, cd) = four.split_at(2 * n);
            let ((a, b), (c, d)) = (ab.split_at(n), cd.split_at(n));
            for ((((s, a), b), c), d) in self.sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *s += (*a + *b) + (*c + *d);
            }
        }
        for row in rest.chunks_exact(n) {
            self.sum.iter_mut().zip(row).for_each(|(s, a)| *s += *a);
        }
    }
}
