//! Products of few rows with large weights. `gemm` would copy the weights into an order of its own, which takes as long as the product of some 25 rows;
//! here they are read once, as they lie.

use pulp::WithSimd;
use rayon::prelude::*;

use super::cpu::transpose;
use crate::matmul::Mat;
use crate::packed::{MANY, Packed, Start, Term, product};
use crate::real::{Real, buffer};
use crate::simd;

/// Up to so many rows, each row of the weights meets every row of the input by itself.
const FEW: usize = 8;
/// Up to so many rows, it is the input that is packed.
const SOME: usize = 96;
/// Numbers in the weights from which on that is worth it.
const LARGE: usize = 1 << 12;
/// Numbers of the weights in a task.
const TASK: usize = 1 << 16;

/// `x Wᵀ + b` with `x (m, i)`, `w (o, i)`; nothing where another way is faster.
pub(super) fn rows<T: Real>(
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    (m, o, i): (usize, usize, usize),
) -> Option<Vec<T>> {
    if i == 0 || o * i < LARGE || !(1..=SOME).contains(&m) {
        return None;
    }
    let columns = if m <= FEW {
        in_tasks(w, (m, o, i), |w, out| simd::level().dispatch(Inner { x, w, i, out }))
    } else {
        // Broadcast numbers of the weights meet registers of rows.
        let x = Packed::new(Mat { data: x, row: 1, col: i }, i, m);
        let zeros = vec![T::ZERO; m];
        in_tasks(w, (m, o, i), |w, out| {
            let term = Term { lhs: w, row: i, rhs: x.view() };
            product(simd::level(), w.len() / i, &[term], Start::Bias(&zeros), out, m);
        })
    };
    let mut y = if m == 1 { columns } else { transpose(&columns, m) };
    if let Some(bias) = bias {
        y.chunks_exact_mut(o).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += *b));
    }
    Some(y)
}

/// `(o, m)`, of which a task owns what its rows of the weights give.
fn in_tasks<T: Real>(
    w: &[T],
    (m, o, i): (usize, usize, usize),
    body: impl Fn(&[T], &mut [T]) + Sync,
) -> Vec<T> {
    let mut columns = buffer(o * m);
    let rows = (TASK / i).next_multiple_of(MANY).clamp(1, o);
    let task = |(t, out): (usize, &mut [T])| body(&w[t * rows * i..][..out.len() / m * i], out);
    if o <= rows || rayon::current_num_threads() < 2 {
        columns.chunks_mut(rows * m).enumerate().for_each(task);
    } else {
        columns.par_chunks_mut(rows * m).enumerate().for_each(task);
    }
    columns
}

/// The inner products of rows of weights with all rows of `x`.
struct Inner<'a, T> {
    x: &'a [T],
    w: &'a [T],
    i: usize,
    out: &'a mut [T],
}

impl<T: Real> WithSimd for Inner<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let m = self.x.len() / self.i;
        for (out, w) in self.out.chunks_exact_mut(m).zip(self.w.chunks_exact(self.i)) {
            for (out, x) in out.iter_mut().zip(self.x.chunks_exact(self.i)) {
                *out = inner(simd, w, x);
            }
        }
    }
}

/// The inner product of two rows, in registers: four sums side by side.
#[inline(always)]
fn inner<T: Real, S: pulp::Simd>(simd: S, a: &[T], b: &[T]) -> T {
    let (a_whole, b_whole) = (T::whole::<S>(a), T::whole::<S>(b));
    let done = a_whole.len() * T::lanes::<S>();
    let mut sums = [T::splat(simd, T::ZERO); 4];
    let (a_fours, a_rest) = a_whole.as_chunks::<4>();
    let (b_fours, b_rest) = b_whole.as_chunks::<4>();
    for (a, b) in a_fours.iter().zip(b_fours) {
        for k in 0..4 {
            sums[k] = T::mul_add(simd, a[k], b[k], sums[k]);
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        sums[0] = T::mul_add(simd, *a, *b, sums[0]);
    }
    let sum = T::plus(simd, T::plus(simd, sums[0], sums[2]), T::plus(simd, sums[1], sums[3]));
    let rest = a[done..].iter().zip(&b[done..]).fold(T::ZERO, |s, (a, b)| s + *a * *b);
    T::total(simd, sum) + rest
}
