//! The fused CPU path: nothing is kept, for the gradient needs only the logits.

use candle_core::{DType, Result};

use crate::cross_entropy::Reduction;
use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};
use crate::rows::{RowKernel, for_rows, map, map2, map3, sum2};

pub(super) struct BceOp(pub(super) Reduction);

/// Elements whose losses are summed apart: part of the arithmetic, and no thread's business.
const PIECE: usize = 1 << 12;

impl FusedOp for BceOp {
    const NAME: &'static str = "mnemic-bce-with-logits";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (x, y) = (inputs[0].data, inputs[1].data);
        if self.0 == Reduction::None {
            let mut losses = buffer(x.len());
            for_rows(&Losses { x, y }, &mut losses, 1, 1);
            return Ok((vec![(losses, inputs[0].dims.to_vec())], ()));
        }
        let mut sums = buffer(x.len().div_ceil(PIECE));
        for_rows(&Sums { x, y }, &mut sums, 1, PIECE);
        let total: f64 = sums.iter().map(|s: &T| s.to_f64()).sum();
        Ok((vec![(vec![T::from_f64(total / self.divisor(x.len()))], vec![])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, y) = (pass.inputs[0].data, pass.inputs[1].data);
        let Some(grad) = pass.grads[0] else { return Ok(vec![]) };
        let each = if self.0 == Reduction::None {
            Grad::Each(grad.data)
        } else {
            Grad::All(T::from_f64(grad.data[0].to_f64() / self.divisor(x.len())))
        };
        let run = |wanted: bool, to: Operand| {
            wanted.then(|| {
                let mut d = buffer(x.len());
                for_rows(&Gradient { x, y, grad: each, to }, &mut d, 1, 1);
                d
            })
        };
        Ok(vec![run(pass.wanted[0], Operand::Logits), run(pass.wanted[1], Operand::Targets)])
    }
}

impl BceOp {
    fn divisor(&self, elements: usize) -> f64 {
        if self.0 == Reduction::Mean { elements as f64 } else { 1. }
    }
}

#[inline(always)]
fn loss<T: Real>(x: T, y: T) -> T {
    let positive = if x > T::ZERO { x } else { T::ZERO };
    positive - x * y + log1p_exp_neg(x.abs_())
}

/// `log(1 + exp(-a))` for `a >= 0`: with `e = exp(-a)` and `s = e / (2 + e) <= 1/3` it is `2 artanh s`, whose series in `s²` is cut
/// where a term falls below the last place. Branch-free, and accurate for small `e`, too.
#[inline(always)]
fn log1p_exp_neg<T: Real>(a: T) -> T {
    let e = (-a).exp_();
    let s = e / (T::from_f64(2.) + e);
    let square = s * s;
    let terms = if T::DTYPE == DType::F64 { 17 } else { 8 };
    let mut series = T::ZERO;
    for k in (0..terms).rev() {
        series = series * square + T::from_f64(2. / f64::from(2 * k + 1));
    }
    series * s
}

struct Losses<'a, T> {
    x: &'a [T],
    y: &'a [T],
}

impl<T: Real> RowKernel<T> for Losses<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        let n = out.len();
        map2(out, &self.x[first..][..n], &self.y[first..][..n], loss);
    }
}

/// The sums of the losses of pieces.
struct Sums<'a, T> {
    x: &'a [T],
    y: &'a [T],
}

impl<T: Real> RowKernel<T> for Sums<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        let from = first * PIECE;
        let pieces = self.x[from..].chunks(PIECE).zip(self.y[from..].chunks(PIECE));
        for (out, (x, y)) in out.iter_mut().zip(pieces) {
            *out = sum2(x, y, loss);
        }
    }
}

/// The gradient of the losses.
#[derive(Clone, Copy)]
enum Grad<'a, T> {
    All(T),
    Each(&'a [T]),
}

#[derive(Clone, Copy)]
enum Operand {
    Logits,
    Targets,
}

/// `dx = (σ(x) - y) d`, `dy = -x d`.
struct Gradient<'a, T> {
    x: &'a [T],
    y: &'a [T],
    grad: Grad<'a, T>,
    to: Operand,
}

impl<T: Real> RowKernel<T> for Gradient<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        let n = out.len();
        let (x, y) = (&self.x[first..][..n], &self.y[first..][..n]);
        match (self.to, self.grad) {
            (Operand::Logits, Grad::All(d)) => map2(out, x, y, |x, y| (x.sigmoid_() - y) * d),
            (Operand::Logits, Grad::Each(d)) => {
                map3(out, x, y, &d[first..][..n], |x, y, d| (x.sigmoid_() - y) * d);
            }
            (Operand::Targets, Grad::All(d)) => map(out, x, |x| -x * d),
            (Operand::Targets, Grad::Each(d)) => {
                map2(out, x, &d[first..][..n], |x, d| -x * d);
            }
        }
    }
}
