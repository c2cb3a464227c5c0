//! Products with a small matrix that is used many times, such as the recurrent weights of a scan: it is packed once, and a product
//! allocates nothing.
//!
//! The matrix `(k, n)` is cut into panels of 32 columns (a last one of 16), each stored row by row. A tile of up to 12 rows and two
//! registers of columns stays in registers over the whole of `k`, where every panel row is read once and every number on the
//! left is broadcast. A row's sums run over `k` in order whatever tile it is in, so results do not depend on how rows are
//! shared out.

use pulp::{Simd, WithSimd};

use crate::matmul::Mat;
use crate::real::Real;
use crate::registers::Registers;
use crate::simd::Level;

/// Columns of a panel.
pub(crate) const WIDE: usize = 32;
const NARROW: usize = 16;
/// Rows of the largest tile.
pub(crate) const MANY: usize = 12;

/// Asks for the cache line at `place`, which is never read here and need not exist.
#[inline(always)]
fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it has no effect that a program can see, and none at an address that is not mapped.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// A packed `(k, n)` matrix.
#[derive(Debug, Clone)]
pub(crate) struct Packed<T> {
    k: usize,
    n: usize,
    data: Vec<T>,
}

impl<T: Real> Packed<T> {
    /// Packs `m` `(k, n)`.
    pub(crate) fn new(m: Mat<'_, T>, k: usize, n: usize) -> Self {
        let padded = n.next_multiple_of(NARROW);
        let mut data = vec![T::ZERO; k * padded];
        let mut start = 0;
        while start < padded {
            let width = if padded - start >= WIDE { WIDE } else { NARROW };
            let panel = &mut data[k * start..][..k * width];
            for (i, row) in panel.chunks_exact_mut(width).enumerate() {
                for (j, v) in row.iter_mut().enumerate().take(n - start) {
                    *v = m.data[i * m.row + (start + j) * m.col];
                }
            }
            start += width;
        }
        Self { k, n, data }
    }

    /// All of it.
    pub(crate) fn view(&self) -> View<'_, T> {
        View { k: self.k, n: self.n, data: &self.data }
    }

    /// The numbers as they are laid out; their count is [`packed_len`].
    pub(crate) fn into_data(self) -> Vec<T> {
        self.data
    }
}

/// How many numbers a packed `(k, n)` has.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(NARROW)
}

/// A packed `(k, n)` matrix that lies elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    k: usize,
    n: usize,
    data: &'a [T],
}

impl<'a, T: Real> View<'a, T> {
    /// Panics where the data are not [`packed_len`] numbers.
    pub(crate) fn new(data: &'a [T], k: usize, n: usize) -> Self {
        assert_eq!(data.len(), packed_len(k, n), "packed: wrong length");
        Self { k, n, data }
    }

    /// The columns from `from` on, a multiple of [`WIDE`], up to `until`.
    pub(crate) fn columns(self, from: usize, until: usize) -> Self {
        let until = until.min(self.n);
        let data = &self.data[self.k * from..][..packed_len(self.k, until - from)];
        Self { k: self.k, n: until - from, data }
    }

    /// The element of row `i` and column `j`.
    pub(crate) fn at(self, i: usize, j: usize) -> T {
        let start = j / WIDE * WIDE;
        let width = WIDE.min(self.n.next_multiple_of(NARROW) - start);
        self.data[self.k * start + i * width + j - start]
    }
}

/// One product of a sum of products: rows at stride `row`, `(rows, k)`, times a packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a, T> {
    pub(crate) lhs: &'a [T],
    pub(crate) row: usize,
    pub(crate) rhs: View<'a, T>,
}

/// What the products are added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a, T> {
    /// A vector, the same for every row.
    Bias(&'a [T]),
    /// What the destination holds.
    Destination,
}

/// `dst (rows, n) = start + Σ lhs rhs`, with row stride `dst_row`. All terms have the same `n`.
pub(crate) fn product<T: Real>(
    level: Level,
    rows: usize,
    terms: &[Term<'_, T>],
    start: Start<'_, T>,
    dst: &mut [T],
    dst_row: usize,
) {
    if let Some(term) = terms.first() {
        let to = Target { start, dst, dst_row, n: term.rhs.n };
        level.dispatch(Product { rows, terms, to });
    }
}

/// A product to be compiled once for each level and type: its tiles are many.
struct Product<'a, T> {
    rows: usize,
    terms: &'a [Term<'a, T>],
    to: Target<'a, T>,
}

impl<T: Real> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let n = self.to.n;
        let mut column = 0;
        while column < n {
            let rest = n.next_multiple_of(NARROW) - column;
            if rest >= WIDE {
                panel::<S, T, WIDE>(simd, self.rows, self.terms, &mut self.to, column);
                column += WIDE;
            } else {
                panel::<S, T, NARROW>(simd, self.rows, self.terms, &mut self.to, column);
                column += NARROW;
            }
        }
    }
}

struct Target<'a, T> {
    start: Start<'a, T>,
    dst: &'a mut [T],
    dst_row: usize,
    n: usize,
}

/// All rows of the panel of `W` columns that begins at `column`.
#[inline(always)]
fn panel<S: Simd, T: Real, const W: usize>(
    simd: S,
    rows: usize,
    terms: &[Term<'_, T>],
    to: &mut Target<'_, T>,
    column: usize,
) {
    let mut row = 0;
    while row < rows {
        let many = S::REGISTER_COUNT >= 32;
        match rows - row {
            MANY.. if many => row += columns::<S, T, MANY, W>(simd, row, terms, to, column),
            8.. if many => row += columns::<S, T, 8, W>(simd, row, terms, to, column),
            6.. if !many => row += columns::<S, T, 6, W>(simd, row, terms, to, column),
            4.. => row += columns::<S, T, 4, W>(simd, row, terms, to, column),
            2.. => row += columns::<S, T, 2, W>(simd, row, terms, to, column),
            _ => row += columns::<S, T, 1, W>(simd, row, terms, to, column),
        }
    }
}

/// `R` rows of a panel, two registers of columns at a time; returns `R`.
#[inline(always)]
fn columns<S: Simd, T: Real, const R: usize, const W: usize>(
    simd: S,
    row: usize,
    terms: &[Term<'_, T>],
    to: &mut Target<'_, T>,
    column: usize,
) -> usize {
    let lanes = <T as Registers>::lanes::<S>();
    if lanes >= W {
        tile::<S, T, R, 1, W>(simd, row, terms, to, column, 0);
    } else {
        let mut at = 0;
        while at < W && column + at < to.n {
            tile::<S, T, R, 2, W>(simd, row, terms, to, column, at);
            at += 2 * lanes;
        }
    }
    R
}

/// `R` rows and `C` registers of columns, from `at` in the panel.
#[inline(always)]
fn tile<S: Simd, T: Real, const R: usize, const C: usize, const W: usize>(
    simd: S,
    row: usize,
    terms: &[Term<'_, T>],
    to: &mut Target<'_, T>,
    column: usize,
    at: usize,
) {
    let lanes = <T as Registers>::lanes::<S>();
    let first = column + at;
    let mut acc = [[T::splat(simd, T::ZERO); C]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        for (c, acc) in acc.iter_mut().enumerate() {
            let (from, until) = span(first + c * lanes, lanes, to.n);
            *acc = match to.start {
                Start::Bias(bias) => T::load(simd, &bias[from..until]),
                Start::Destination => {
                    let place = (row + r) * to.dst_row;
                    T::load(simd, &to.dst[place + from..place + until])
                }
            };
        }
    }
    for term in terms {
        let k = term.rhs.k;
        let (panel, _) = term.rhs.data[k * column..][..k * W].as_chunks::<W>();
        let mut lhs: [&[T]; R] = [&[]; R];
        for (r, lhs) in lhs.iter_mut().enumerate() {
            *lhs = &term.lhs[(row + r) * term.row..][..k];
        }
        let panel = &panel[..k];
        // What is needed next of large weights, on whichever side they are: streams as short as a row, or read twice as a panel is, are over before
        // the processor has seen them.
        let next_rows = term.lhs[(row + R - 1) * term.row..].as_ptr().wrapping_add(term.row);
        let next_panel = panel.as_ptr_range().end;
        for i in 0..k {
            if R == MANY {
                prefetch(next_rows.wrapping_add(i * R));
                prefetch(next_panel.wrapping_add(i));
                prefetch(next_panel.cast::<T>().wrapping_add(i * W + W / 2));
            }
            let mut b = [T::splat(simd, T::ZERO); C];
            for (c, b) in b.iter_mut().enumerate() {
                *b = T::load(simd, &panel[i][at + c * lanes..][..lanes]);
            }
            for r in 0..R {
                let a = T::splat(simd, lhs[r][i]);
                for c in 0..C {
                    acc[r][c] = T::mul_add(simd, a, b[c], acc[r][c]);
                }
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (c, acc) in acc.iter().enumerate() {
            let (from, until) = span(first + c * lanes, lanes, to.n);
            let place = (row + r) * to.dst_row;
            T::store(simd, &mut to.dst[place + from..place + until], *acc);
        }
    }
}

/// The columns of a register that are there.
#[inline(always)]
fn span(from: usize, lanes: usize, n: usize) -> (usize, usize) {
    (from.min(n), (from + lanes).min(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd;

    fn numbers<T: Real>(n: usize, seed: f64) -> Vec<T> {
        (0..n).map(|i| T::from_f64((seed + i as f64 * 0.7).sin())).collect()
    }

    fn check<T: Real>(rows: usize, k: usize, n: usize, tolerance: f64) {
        let (a, b, m, w) = (
            numbers::<T>(rows * (k + 3), 1.),
            numbers::<T>(rows * k, 2.),
            numbers::<T>(k * n, 3.),
            numbers::<T>(k * n, 4.),
        );
        let bias = numbers::<T>(n, 5.);
        // The second matrix is given transposed.
        let first = Packed::new(Mat { data: &m, row: n, col: 1 }, k, n);
        let second = Packed::new(Mat { data: &w, row: 1, col: k }, k, n);
        let terms = [
            Term { lhs: &a, row: k + 3, rhs: first.view() },
            Term { lhs: &b, row: k, rhs: second.view() },
        ];
        for level in simd::available() {
            let mut dst = vec![T::NAN; rows * (n + 1)];
            product(level, rows, &terms, Start::Bias(&bias), &mut dst, n + 1);
            product(level, rows, &terms, Start::Destination, &mut dst, n + 1);
            for i in 0..rows {
                for j in 0..n {
                    let sum: f64 = (0..k)
                        .map(|l| {
                            a[i * (k + 3) + l].to_f64() * m[l * n + j].to_f64()
                                + b[i * k + l].to_f64() * w[j * k + l].to_f64()
                        })
                        .sum();
                    let (got, want) = (dst[i * (n + 1) + j].to_f64(), bias[j].to_f64() + 2. * sum);
                    assert!(
                        (got - want).abs() < tolerance,
                        "{level:?} {rows} {k} {n}: {got} {want}"
                    );
                }
                assert!(dst[i * (n + 1) + n].to_f64().is_nan(), "written beyond the row");
            }
        }
    }

    #[test]
    fn equals_the_definition() {
        for rows in [1, 2, 3, 5, 11, 12, 25] {
            for (k, n) in
                [(1, 1), (7, 15), (20, 16), (80, 17), (33, 31), (16, 32), (9, 49), (65, 80)]
            {
                check::<f32>(rows, k, n, 1e-4);
                check::<f64>(rows, k, n, 1e-12);
            }
        }
    }
}
