//! Loops over the rows of a matrix: reductions in a fixed order, and the sharing of rows among threads.
//!
//! Every function here is inlined into the kernel that calls it, and so compiled for the kernel's SIMD level. Rows are read
//! in pieces of [`LANES`] numbers; the last piece is padded, for the leftover of a row would run one number at a time.

use crate::real::Real;
use crate::{simd, threads};

/// Partial results of a reduction. Their number is part of the arithmetic, so it is the same on every SIMD level. With fewer,
/// the compiler unrolls the loops over them before it could vectorise them.
const LANES: usize = 64;

/// A piece of a row in a place of its own, aligned: what straddles two cache lines is slow to be read just after it was written, as
/// partial results are.
#[repr(align(64))]
struct Piece<T>([T; LANES]);

/// `Σ f(x)`.
#[inline(always)]
pub(crate) fn sum<T: Real>(xs: &[T], f: impl Fn(T) -> T) -> T {
    sum3(xs, xs, xs, |x, _, _| f(x))
}

/// `Σ f(a, b)`.
#[inline(always)]
pub(crate) fn sum2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    sum3(a, b, b, |a, b, _| f(a, b))
}

/// `Σ f(a, b, c)` over slices of one length.
#[inline(always)]
pub(crate) fn sum3<T: Real>(a: &[T], b: &[T], c: &[T], f: impl Fn(T, T, T) -> T) -> T {
    let mut sums = Piece([T::ZERO; LANES]);
    let lanes = &mut sums.0;
    let ((a, a_rest), (b, b_rest), (c, c_rest)) =
        (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for j in 0..LANES {
            lanes[j] += f(a[j], b[j], c[j]);
        }
    }
    let rest = a_rest.len();
    if rest > 0 {
        let (a, b, c) = (padded(a_rest, T::ZERO), padded(b_rest, T::ZERO), padded(c_rest, T::ZERO));
        for j in 0..LANES {
            let y = f(a[j], b[j], c[j]);
            lanes[j] += if j < rest { y } else { T::ZERO };
        }
    }
    fold(sums.0, |a, b| a + b)
}

/// `Σ f(a, b, c)` and `Σ g(a, b, c)`, the operands read once.
#[inline(always)]
pub(crate) fn two_sums<T: Real>(
    [a, b, c]: [&[T]; 3],
    f: impl Fn(T, T, T) -> T,
    g: impl Fn(T, T, T) -> T,
) -> (T, T) {
    let mut sums = [Piece([T::ZERO; LANES]), Piece([T::ZERO; LANES])];
    let [Piece(first), Piece(second)] = &mut sums;
    let ((a, a_rest), (b, b_rest), (c, c_rest)) =
        (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for j in 0..LANES {
            first[j] += f(a[j], b[j], c[j]);
            second[j] += g(a[j], b[j], c[j]);
        }
    }
    let rest = a_rest.len();
    if rest > 0 {
        let (a, b, c) = (padded(a_rest, T::ZERO), padded(b_rest, T::ZERO), padded(c_rest, T::ZERO));
        for j in 0..LANES {
            let (y, z) = (f(a[j], b[j], c[j]), g(a[j], b[j], c[j]));
            first[j] += if j < rest { y } else { T::ZERO };
            second[j] += if j < rest { z } else { T::ZERO };
        }
    }
    let [first, second] = sums;
    (fold(first.0, |a, b| a + b), fold(second.0, |a, b| a + b))
}

/// The largest number that is no NaN; `-inf` where there is none.
#[inline(always)]
pub(crate) fn max<T: Real>(xs: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut largest = Piece([infinity::<T>(-1.); LANES]);
    let lanes = &mut largest.0;
    let (whole, rest) = xs.as_chunks::<LANES>();
    for x in whole {
        for j in 0..LANES {
            lanes[j] = larger(lanes[j], x[j]);
        }
    }
    let rest = padded(rest, infinity::<T>(-1.));
    for j in 0..LANES {
        lanes[j] = larger(lanes[j], rest[j]);
    }
    fold(largest.0, larger)
}

/// `out = f(xs)`.
#[inline(always)]
pub(crate) fn map<T: Real>(out: &mut [T], xs: &[T], f: impl Fn(T) -> T) {
    map3(out, xs, xs, xs, |x, _, _| f(x));
}

/// `out = f(a, b)`.
#[inline(always)]
pub(crate) fn map2<T: Real>(out: &mut [T], a: &[T], b: &[T], f: impl Fn(T, T) -> T) {
    map3(out, a, b, b, |a, b, _| f(a, b));
}

/// `out = f(a, b, c)` over slices of one length.
#[inline(always)]
pub(crate) fn map3<T: Real>(out: &mut [T], a: &[T], b: &[T], c: &[T], f: impl Fn(T, T, T) -> T) {
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    let ((a, a_rest), (b, b_rest), (c, c_rest)) =
        (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    // Through an array of its own, which cannot overlap the operands: the compiler need not check.
    let piece = |a: &[T; LANES], b: &[T; LANES], c: &[T; LANES]| {
        let mut y = [T::ZERO; LANES];
        for j in 0..LANES {
            y[j] = f(a[j], b[j], c[j]);
        }
        y
    };
    for (((y, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *y = piece(a, b, c);
    }
    if !out_rest.is_empty() {
        let zero = T::ZERO;
        let y = piece(&padded(a_rest, zero), &padded(b_rest, zero), &padded(c_rest, zero));
        out_rest.copy_from_slice(&y[..out_rest.len()]);
    }
}

/// `xs = f(xs)`.
#[inline(always)]
pub(crate) fn update<T: Real>(xs: &mut [T], f: impl Fn(T) -> T) {
    let piece = |x: &mut [T; LANES]| {
        for v in x {
            *v = f(*v);
        }
    };
    let (whole, rest) = xs.as_chunks_mut::<LANES>();
    whole.iter_mut().for_each(piece);
    if !rest.is_empty() {
        let mut x = padded(rest, T::ZERO);
        piece(&mut x);
        rest.copy_from_slice(&x[..rest.len()]);
    }
}

#[inline(always)]
fn padded<T: Real>(rest: &[T], with: T) -> [T; LANES] {
    let mut x = [with; LANES];
    x[..rest.len()].copy_from_slice(rest);
    x
}

/// The lanes joined in halves: shorter chains than one after the other.
#[inline(always)]
fn fold<T: Real>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] = f(lanes[j], lanes[j + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Infinity with a sign.
#[inline(always)]
pub(crate) fn infinity<T: Real>(sign: f64) -> T {
    T::from_f64(sign * f64::INFINITY)
}

/// Computes rows of a result.
pub(crate) trait RowKernel<T>: Sync {
    /// Writes the rows from `first` on that `out` has room for. It must be `#[inline(always)]`, and so must be what it
    /// calls.
    fn run(&self, first: usize, out: &mut [T]);
}

/// Runs `kernel` over the rows of `out`, each `width` numbers and about `work` elementary steps, at the SIMD level in force and on
/// threads where there is much to do.
pub(crate) fn for_rows<T: Real>(
    kernel: &impl RowKernel<T>,
    out: &mut [T],
    width: usize,
    work: usize,
) {
    struct Part<'a, T, K>(&'a K, usize, &'a mut [T]);
    impl<T, K: RowKernel<T>> pulp::WithSimd for Part<'_, T, K> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            self.0.run(self.1, self.2);
        }
    }
    if out.is_empty() {
        return;
    }
    let level = simd::level();
    let rows = threads::rows_per_task(out.len() / width, work);
    let parts: Vec<_> = out.chunks_mut(rows * width).enumerate().collect();
    threads::for_each(parts, |(i, part)| level.dispatch(Part(kernel, i * rows, part)));
}

/// The sums of the columns of a row-major matrix, row after row.
pub(crate) fn column_sums<T: Real>(rows: &[T], width: usize) -> Vec<T> {
    struct Sums<'a, T>(&'a [T], &'a mut [T]);
    impl<T: Real> pulp::WithSimd for Sums<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            for row in self.0.chunks_exact(self.1.len().max(1)) {
                self.1.iter_mut().zip(row).for_each(|(s, v)| *s += *v);
            }
        }
    }
    let mut sums = vec![T::ZERO; width];
    crate::simd::level().dispatch(Sums(rows, &mut sums));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_and_maps_of_every_length() {
        for n in 0..200 {
            let xs: Vec<f64> = (0..n).map(|i| ((i * 37) % 11) as f64 - 20.).collect();
            let ys: Vec<f64> = (0..n).map(|i| ((i * 5) % 7) as f64).collect();
            // Small integers: every order of a sum is exact.
            assert_eq!(sum(&xs, |x| x + 1.), xs.iter().map(|x| x + 1.).sum::<f64>());
            let product: f64 = xs.iter().zip(&ys).map(|(x, y)| x * y).sum();
            assert_eq!(sum2(&xs, &ys, |x, y| x * y), product);
            let two = two_sums([&xs, &ys, &ys], |x, y, _| x * y, |_, _, y| y + 1.);
            assert_eq!(two, (product, ys.iter().map(|y| y + 1.).sum::<f64>()));
            assert_eq!(max(&xs), xs.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            let mut out = vec![f64::NAN; n];
            map2(&mut out, &xs, &ys, |x, y| x - 2. * y);
            let expected: Vec<f64> = xs.iter().zip(&ys).map(|(x, y)| x - 2. * y).collect();
            assert_eq!(out, expected);
            update(&mut out, |x| x + 1.);
            assert_eq!(out, expected.iter().map(|x| x + 1.).collect::<Vec<_>>());
        }
        assert_eq!(max(&[f32::NAN, -3.]), -3.);
    }
}
