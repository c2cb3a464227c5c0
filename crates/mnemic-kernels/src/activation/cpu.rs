//! The fused CPU path: one vectorised pass forward, one backward.

use std::marker::PhantomData;

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Body, Real, buffer, for_parts};

/// An element-wise function. Its methods are `#[inline(always)]`, so that they are compiled for every SIMD level.
pub(super) trait Activation: Send + Sync + 'static {
    const NAME: &'static str;
    /// Whether [`Activation::gradient`] is given the result, not the operand.
    const FROM_RESULT: bool;
    fn value<T: Real>(x: T) -> T;
    /// The gradient `g` of the result, times the derivative at `v`.
    fn gradient<T: Real>(v: T, g: T) -> T;
}

/// `x` between -1000 and 1000: there the functions below have reached their limits, in f64 too, and no product is 0 · ∞.
#[inline(always)]
fn clamp<T: Real>(x: T) -> T {
    let (low, high) = (T::of(-1000.), T::of(1000.));
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn at_least<T: Real>(low: T, x: T) -> T {
    if x < low { low } else { x }
}

pub(super) struct Tanh;

impl Activation for Tanh {
    const NAME: &'static str = "tanh";
    const FROM_RESULT: bool = true;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x.tanh_()
    }
    #[inline(always)]
    fn gradient<T: Real>(y: T, g: T) -> T {
        g * (T::ONE - y * y)
    }
}

pub(super) struct Sigmoid;

impl Activation for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const FROM_RESULT: bool = true;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x.sigmoid_()
    }
    #[inline(always)]
    fn gradient<T: Real>(y: T, g: T) -> T {
        g * (y * (T::ONE - y))
    }
}

pub(super) struct Relu;

impl Activation for Relu {
    const NAME: &'static str = "relu";
    const FROM_RESULT: bool = true;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        // Written so that NaN stays.
        if x <= T::ZERO { T::ZERO } else { x }
    }
    #[inline(always)]
    fn gradient<T: Real>(y: T, g: T) -> T {
        if y <= T::ZERO { T::ZERO } else { g }
    }
}

pub(super) struct Silu;

impl Activation for Silu {
    const NAME: &'static str = "silu";
    const FROM_RESULT: bool = false;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        at_least(T::of(-1000.), x) * x.sigmoid_()
    }
    #[inline(always)]
    fn gradient<T: Real>(x: T, g: T) -> T {
        let s = x.sigmoid_();
        g * (s + clamp(x) * (s * (T::ONE - s)))
    }
}

pub(super) struct Softplus;

impl Activation for Softplus {
    const NAME: &'static str = "softplus";
    const FROM_RESULT: bool = false;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x.softplus_()
    }
    #[inline(always)]
    fn gradient<T: Real>(x: T, g: T) -> T {
        g * x.sigmoid_()
    }
}

pub(super) struct Gelu;

impl Activation for Gelu {
    const NAME: &'static str = "gelu";
    const FROM_RESULT: bool = false;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        at_least(T::of(-1000.), x) * x.normal_cdf_()
    }
    #[inline(always)]
    fn gradient<T: Real>(x: T, g: T) -> T {
        const DENSITY: f64 = 0.398_942_280_401_432_7; // 1 / √(2π)
        let c = clamp(x);
        let density = T::of(DENSITY) * (c * c * T::of(-0.5)).exp_();
        g * (x.normal_cdf_() + c * density)
    }
}

pub(super) struct GeluTanh;

/// `2 √(2/π)`: with it `(1 + tanh(u)) / 2` is `σ(2u)`, one exponential and no cancellation.
const TWICE_ROOT: f64 = 1.595_769_121_605_730_7;
const CUBIC: f64 = 0.044_715;

impl Activation for GeluTanh {
    const NAME: &'static str = "gelu_tanh";
    const FROM_RESULT: bool = false;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        let c = clamp(x);
        let u = T::of(TWICE_ROOT) * (c + T::of(CUBIC) * (c * c * c));
        at_least(T::of(-1000.), x) * u.sigmoid_()
    }
    #[inline(always)]
    fn gradient<T: Real>(x: T, g: T) -> T {
        let c = clamp(x);
        let square = c * c;
        let s = (T::of(TWICE_ROOT) * (c + T::of(CUBIC) * (square * c))).sigmoid_();
        let slope = T::of(TWICE_ROOT) * (T::ONE + T::of(3. * CUBIC) * square);
        g * (s + c * slope * (s * (T::ONE - s)))
    }
}

pub(super) struct ActivationOp<A>(pub(super) A);

struct Values<'a, T, A>(&'a [T], PhantomData<A>);

impl<T: Real, A: Activation> Body<T> for Values<'_, T, A> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let xs = &self.0[start..][..part.len()];
        part.iter_mut().zip(xs).for_each(|(y, x)| *y = A::value(*x));
    }
}

/// Operands or results, and the gradients of the results.
struct Gradients<'a, T, A>(&'a [T], &'a [T], PhantomData<A>);

impl<T: Real, A: Activation> Body<T> for Gradients<'_, T, A> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let vs = &self.0[start..][..part.len()];
        let gs = &self.1[start..][..part.len()];
        for ((d, v), g) in part.iter_mut().zip(vs).zip(gs) {
            *d = A::gradient(*v, *g);
        }
    }
}

impl<A: Activation> FusedOp for ActivationOp<A> {
    const NAME: &'static str = A::NAME;
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let x = inputs[0];
        let mut ys = buffer(x.data.len());
        for_parts(&mut ys, 1, &Values::<T, A>(x.data, PhantomData));
        Ok((vec![(ys, x.dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let seen = if A::FROM_RESULT { pass.outputs[0] } else { pass.inputs[0] };
        let grads = pass.grads[0].map_or(&[][..], |g| g.data);
        let mut dx = buffer(grads.len());
        for_parts(&mut dx, 1, &Gradients::<T, A>(seen.data, grads, PhantomData));
        Ok(vec![Some(dx)])
    }
}

pub(super) struct GluOp;

/// Operand (rows, 2 n).
struct GluValues<'a, T>(&'a [T], usize);

impl<T: Real> Body<T> for GluValues<'_, T> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let n = self.1;
        for (ys, xs) in part.chunks_exact_mut(n).zip(self.0[2 * start..].chunks_exact(2 * n)) {
            let (a, b) = xs.split_at(n);
            for ((y, a), b) in ys.iter_mut().zip(a).zip(b) {
                *y = *a * b.sigmoid_();
            }
        }
    }
}

/// Operand (rows, 2 n) and gradient (rows, n).
struct GluGradients<'a, T>(&'a [T], &'a [T], usize);

impl<T: Real> Body<T> for GluGradients<'_, T> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let n = self.2;
        let xs = self.0[start..].chunks_exact(2 * n);
        let gs = self.1[start / 2..].chunks_exact(n);
        for ((ds, xs), gs) in part.chunks_exact_mut(2 * n).zip(xs).zip(gs) {
            let (a, b) = xs.split_at(n);
            let (d_a, d_b) = ds.split_at_mut(n);
            for ((((d_a, d_b), a), b), g) in d_a.iter_mut().zip(d_b).zip(a).zip(b).zip(gs) {
                let s = b.sigmoid_();
                *d_a = *g * s;
                *d_b = *g * *a * (s * (T::ONE - s));
            }
        }
    }
}

impl FusedOp for GluOp {
    const NAME: &'static str = "glu";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let x = inputs[0];
        let mut dims = x.dims.to_vec();
        let n = x.dims[x.dims.len() - 1] / 2;
        dims[x.dims.len() - 1] = n;
        let mut ys = buffer(x.data.len() / 2);
        if n > 0 {
            for_parts(&mut ys, n, &GluValues(x.data, n));
        }
        Ok((vec![(ys, dims)], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs[0];
        let n = x.dims[x.dims.len() - 1] / 2;
        let grads = pass.grads[0].map_or(&[][..], |g| g.data);
        let mut dx = buffer(x.data.len());
        if n > 0 {
            for_parts(&mut dx, 2 * n, &GluGradients(x.data, grads, n));
        }
        Ok(vec![Some(dx)])
    }
}
