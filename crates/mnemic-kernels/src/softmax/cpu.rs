//! The fused CPU path: each row is read while it lies in the cache, with one exponential a number in each direction.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};
use crate::rows::{RowKernel, for_rows, infinity, map, map2, max, sum, sum2, update};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Softmax,
    LogSoftmax,
}

pub(super) struct SoftmaxOp {
    pub(super) kind: Kind,
    /// One byte a score; 0 hides it.
    pub(super) mask: Option<Vec<u8>>,
}

fn width(x: &View<'_, impl Real>) -> usize {
    x.dims.last().copied().unwrap_or(1)
}

impl FusedOp for SoftmaxOp {
    const NAME: &'static str = "mnemic-softmax";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let x = inputs[0];
        let width = width(&x);
        let mut out = buffer(x.data.len());
        let kernel = Forward { x: x.data, width, kind: self.kind, mask: self.mask.as_deref() };
        for_rows(&kernel, &mut out, width, width);
        Ok((vec![(out, x.dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (y, Some(dy)) = (pass.outputs[0], pass.grads[0]) else { return Ok(vec![None]) };
        let width = width(&y);
        let mut dx = buffer(y.data.len());
        let kernel = Gradient { y: y.data, dy: dy.data, width, kind: self.kind };
        for_rows(&kernel, &mut dx, width, width);
        Ok(vec![Some(dx)])
    }
}

struct Forward<'a, T> {
    x: &'a [T],
    width: usize,
    kind: Kind,
    mask: Option<&'a [u8]>,
}

impl<T: Real> RowKernel<T> for Forward<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        for (k, y) in out.chunks_exact_mut(self.width).enumerate() {
            let from = (first + k) * self.width;
            let x = &self.x[from..][..self.width];
            match (self.kind, self.mask) {
                (Kind::LogSoftmax, _) => log_softmax_row(y, x),
                (Kind::Softmax, None) => softmax_row(y, x),
                (Kind::Softmax, Some(mask)) => {
                    let lowest = infinity(-1.);
                    for ((y, x), m) in y.iter_mut().zip(x).zip(&mask[from..]) {
                        *y = if *m == 0 { lowest } else { *x };
                    }
                    softmax_in_place(y);
                }
            }
        }
    }
}

#[inline(always)]
fn softmax_row<T: Real>(y: &mut [T], x: &[T]) {
    let top = max(x);
    if top == infinity(-1.) {
        return y.fill(without_scores(x, T::ZERO));
    }
    map(y, x, |x| (x - top).exp_());
    let scale = T::ONE / sum(y, |e| e);
    update(y, |e| e * scale);
}

#[inline(always)]
fn softmax_in_place<T: Real>(y: &mut [T]) {
    let top = max(y);
    if top == infinity(-1.) {
        return y.fill(without_scores(y, T::ZERO));
    }
    update(y, |x| (x - top).exp_());
    let scale = T::ONE / sum(y, |e| e);
    update(y, |e| e * scale);
}

#[inline(always)]
fn log_softmax_row<T: Real>(y: &mut [T], x: &[T]) {
    let top = max(x);
    if top == infinity(-1.) {
        return y.fill(without_scores(x, infinity(-1.)));
    }
    let total = sum(x, |x| (x - top).exp_());
    let log_sum = T::from_f64(total.to_f64().ln());
    map(y, x, |x| x - top - log_sum);
}

/// The result of a row whose largest number is `-inf`: `defined`, or NaN where a NaN hides in it.
#[inline(always)]
fn without_scores<T: Real>(x: &[T], defined: T) -> T {
    if x.iter().all(|&x| x == infinity(-1.)) { defined } else { T::NAN }
}

/// Softmax: `dx = y ∘ (dy - Σ y dy)`. Log-softmax: `dx = dy - exp(y) Σ dy`.
struct Gradient<'a, T> {
    y: &'a [T],
    dy: &'a [T],
    width: usize,
    kind: Kind,
}

impl<T: Real> RowKernel<T> for Gradient<'_, T> {
    #[inline(always)]
    fn run(&self, first: usize, out: &mut [T]) {
        for (k, dx) in out.chunks_exact_mut(self.width).enumerate() {
            let from = (first + k) * self.width;
            let (y, dy) = (&self.y[from..][..self.width], &self.dy[from..][..self.width]);
            match self.kind {
                Kind::Softmax => {
                    let total = sum2(y, dy, |y, dy| y * dy);
                    map2(dx, y, dy, |y, dy| y * (dy - total));
                }
                Kind::LogSoftmax if y.iter().all(|&y| y == infinity(-1.)) => dx.fill(T::ZERO),
                Kind::LogSoftmax => {
                    let total = sum(dy, |dy| dy);
                    map2(dx, y, dy, |y, dy| dy - y.exp_() * total);
                }
            }
        }
    }
}
