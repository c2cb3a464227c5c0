//! The element types of the fast paths, and the functions that their loops need.
//!
//! The f32 forms are branch-free polynomials without fused multiply-add, so that the compiler vectorises them at any
//! SIMD level and every level gives the same bits. Their errors are stated in [`crate::math`].

mod erf;
mod single;

use rayon::prelude::*;

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};

use crate::registers::Registers;
use crate::simd;

/// f32 or f64.
pub(crate) trait Real:
    WithDType + Registers + Default + std::ops::Neg<Output = Self> + std::iter::Sum + Send + Sync
{
    const ZERO: Self;
    const ONE: Self;
    const NAN: Self;
    /// The nearest number to a constant.
    fn of(constant: f64) -> Self;
    fn exp_(self) -> Self;
    fn tanh_(self) -> Self;
    fn sigmoid_(self) -> Self;
    fn ln_(self) -> Self;
    /// `ln(1 + e^x)`, without overflow and exact to the last places for very negative `x`.
    fn softplus_(self) -> Self;
    fn erf_(self) -> Self;
    /// The normal distribution function, `(1 + erf(x / √2)) / 2`.
    fn normal_cdf_(self) -> Self;
    fn abs_(self) -> Self;
    fn storage(values: Vec<Self>) -> CpuStorage;
}

impl Real for f32 {
    const ZERO: f32 = 0.;
    const ONE: f32 = 1.;
    const NAN: f32 = f32::NAN;

    #[inline(always)]
    fn of(constant: f64) -> f32 {
        constant as f32
    }
    #[inline(always)]
    fn exp_(self) -> f32 {
        single::exp(self)
    }
    #[inline(always)]
    fn tanh_(self) -> f32 {
        single::tanh(self)
    }
    #[inline(always)]
    fn sigmoid_(self) -> f32 {
        single::sigmoid(self)
    }
    #[inline(always)]
    fn ln_(self) -> f32 {
        single::ln(self)
    }
    #[inline(always)]
    fn softplus_(self) -> f32 {
        single::softplus(self)
    }
    #[inline(always)]
    fn erf_(self) -> f32 {
        single::erf(self)
    }
    #[inline(always)]
    fn normal_cdf_(self) -> f32 {
        single::normal_cdf(self)
    }
    #[inline(always)]
    fn abs_(self) -> f32 {
        self.abs()
    }

    fn storage(values: Vec<f32>) -> CpuStorage {
        CpuStorage::F32(values)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.;
    const ONE: f64 = 1.;
    const NAN: f64 = f64::NAN;

    #[inline(always)]
    fn of(constant: f64) -> f64 {
        constant
    }
    #[inline(always)]
    fn exp_(self) -> f64 {
        self.exp()
    }
    #[inline(always)]
    fn tanh_(self) -> f64 {
        self.tanh()
    }
    #[inline(always)]
    fn sigmoid_(self) -> f64 {
        1.0 / (1.0 + (-self).exp())
    }
    #[inline(always)]
    fn ln_(self) -> f64 {
        self.ln()
    }
    #[inline(always)]
    fn softplus_(self) -> f64 {
        let positive = if self > 0. { self } else { 0. };
        positive + (-self.abs()).exp().ln_1p()
    }
    fn erf_(self) -> f64 {
        erf::erf(self)
    }
    fn normal_cdf_(self) -> f64 {
        0.5 * (1.0 + erf::erf(self * std::f64::consts::FRAC_1_SQRT_2))
    }
    #[inline(always)]
    fn abs_(self) -> f64 {
        self.abs()
    }

    fn storage(values: Vec<f64>) -> CpuStorage {
        CpuStorage::F64(values)
    }
}

/// The elements of a contiguous operand.
pub(crate) fn slice<'a, T: Real>(
    op: &str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("{op}: internal error: operand is not contiguous"),
    }
}

/// A buffer for results, every place of which its user writes before it is read. Under test it holds NaN, so that a place that
/// is not written shows.
pub(crate) fn buffer<T: Real>(n: usize) -> Vec<T> {
    if cfg!(test) {
        return vec![T::NAN; n];
    }
    let mut values = Vec::with_capacity(n);
    // SAFETY: the capacity is there, `T` is f32 or f64, which have no invalid bits and no destructor, and no place is read
    // before it is written: the tests run every operation on buffers of NaN.
    #[allow(clippy::uninit_vec, reason = "clearing it would cost a pass over the memory")]
    unsafe {
        values.set_len(n);
    }
    values
}

/// Below so many numbers, threads cost more than they give.
const PARALLEL: usize = 1 << 16;

/// The body of a loop over parts of a slice. Everything in `run` must be `#[inline(always)]`, so that it is compiled for the
/// SIMD level in force.
pub(crate) trait Body<T>: Sync {
    /// Fills `part`, which begins at element `start` of the whole.
    fn run(&self, start: usize, part: &mut [T]);
}

/// A closure as a body. The compiler inlines it while it is short.
struct Closure<F>(F);

impl<T, F: Fn(usize, &mut [T]) + Sync> Body<T> for Closure<F> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        (self.0)(start, part);
    }
}

/// Runs `f(start, part)` over parts of `xs`, at the SIMD level in force and on threads where there is much to do. Parts
/// begin at multiples of `row`; the split does not depend on the number of threads.
pub(crate) fn for_chunks<T: Real>(xs: &mut [T], row: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    for_parts(xs, row, &Closure(f));
}

/// [`for_chunks`] with a body that is inlined for certain.
pub(crate) fn for_parts<T: Real, B: Body<T>>(xs: &mut [T], row: usize, body: &B) {
    struct Part<'a, T, B>(usize, &'a mut [T], &'a B);
    impl<T, B: Body<T>> pulp::WithSimd for Part<'_, T, B> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            self.2.run(self.0, self.1);
        }
    }
    let level = simd::level();
    let size = ((1 << 14) / row.max(1)).max(1) * row.max(1);
    let parts = xs.len().div_ceil(size);
    if xs.len() < PARALLEL || parts < 2 || rayon::current_num_threads() < 2 {
        level.dispatch(Part(0, xs, body));
    } else {
        xs.par_chunks_mut(size)
            .enumerate()
            .for_each(|(i, part)| level.dispatch(Part(i * size, part, body)));
    }
}
