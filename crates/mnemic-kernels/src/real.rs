//! The element types of the fast paths, and the functions that their loops need.
//!
//! The f32 forms are branch-free polynomials without fused multiply-add, so that the compiler vectorises them at any
//! SIMD level and every level gives the same bits.

use rayon::prelude::*;

use candle_core::{CpuStorage, Layout, Result, Tensor, WithDType, bail};

use crate::lanes::Lanes;
use crate::simd;

/// f32 or f64.
pub(crate) trait Real:
    WithDType + Lanes + Default + std::ops::Neg<Output = Self> + std::iter::Sum + Send + Sync
{
    const ZERO: Self;
    const ONE: Self;
    const NAN: Self;
    fn exp_(self) -> Self;
    fn tanh_(self) -> Self;
    fn sigmoid_(self) -> Self;
    fn abs_(self) -> Self;
    fn storage(values: Vec<Self>) -> CpuStorage;
}

impl Real for f32 {
    const ZERO: f32 = 0.;
    const ONE: f32 = 1.;
    const NAN: f32 = f32::NAN;

    /// Cody-Waite reduction to `|r| <= ln 2 / 2`, then a polynomial of degree 6 in Horner form. Saturates to 0 and infinity.
    #[inline(always)]
    fn exp_(self) -> f32 {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
        let x = if self < -104.0 { -104.0 } else { self };
        let x = if x > 89.0 { 89.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * 0.693_359_4;
        let r = r - n * -2.121_944_4e-4;
        let mut p = 1.987_569_1e-4_f32;
        p = p * r + 1.398_199_9e-3;
        p = p * r + 8.333_452e-3;
        p = p * r + 4.166_579_6e-2;
        p = p * r + 1.666_666_5e-1;
        p = p * r + 5.000_000_3e-1;
        let y = (p * r) * r + r + 1.0;
        // 2^n in two halves, so that subnormal results and the largest ones come out right.
        // The integer stands in the low bits of `shifted`; of a NaN it is arbitrary, but then `y` is NaN.
        let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        let half = n >> 1;
        let scale = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
        y * scale(half) * scale(n.wrapping_sub(half))
    }

    /// Odd polynomial below 0.625 (relative accuracy near 0), `1 - 2 / (e^{2|x|} + 1)` above.
    #[inline(always)]
    fn tanh_(self) -> f32 {
        let a = self.abs();
        let z = self * self;
        let mut p = -5.704_988_7e-3_f32;
        p = p * z + 2.063_909e-2;
        p = p * z - 5.373_971_6e-2;
        p = p * z + 1.333_144_2e-1;
        p = p * z - 3.333_328e-1;
        let small = p * z * self + self;
        let large = (1.0 - 2.0 / ((a + a).exp_() + 1.0)).copysign(self);
        if a < 0.625 { small } else { large }
    }

    #[inline(always)]
    fn sigmoid_(self) -> f32 {
        1.0 / (1.0 + (-self).exp_())
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

/// The elements of a CPU tensor, row-major.
pub(crate) fn to_vec<T: Real>(t: &Tensor) -> Result<Vec<T>> {
    t.flatten_all()?.to_vec1::<T>()
}

/// A zeroed buffer for results. Under test it holds NaN instead, so that a place that is not written shows.
pub(crate) fn buffer<T: Real>(n: usize) -> Vec<T> {
    vec![if cfg!(test) { T::NAN } else { T::ZERO }; n]
}

/// Below so many numbers, threads cost more than they give.
const PARALLEL: usize = 1 << 16;

/// Runs `f(start, part)` over parts of `xs`, at the SIMD level in force and on threads where there is much to do. Parts
/// begin at multiples of `row`; the split does not depend on the number of threads.
pub(crate) fn for_chunks<T: Real>(xs: &mut [T], row: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    struct Part<'a, T, F>(usize, &'a mut [T], &'a F);
    impl<T, F: Fn(usize, &mut [T])> pulp::WithSimd for Part<'_, T, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            (self.2)(self.0, self.1);
        }
    }
    let level = simd::level();
    let size = ((1 << 14) / row.max(1)).max(1) * row.max(1);
    let parts = xs.len().div_ceil(size);
    if xs.len() < PARALLEL || parts < 2 || rayon::current_num_threads() < 2 {
        level.dispatch(Part(0, xs, &f));
    } else {
        xs.par_chunks_mut(size)
            .enumerate()
            .for_each(|(i, part)| level.dispatch(Part(i * size, part, &f)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in units of the last place of the f32 result, over a dense sweep.
    fn worst_ulps(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, low: f32, high: f32) -> f64 {
        let n = 400_000;
        let mut worst = 0f64;
        for i in 0..=n {
            let x = low + (high - low) * i as f32 / n as f32;
            let y = exact(f64::from(x));
            let near = (y as f32).abs().max(f32::MIN_POSITIVE);
            let ulp = f64::from(f32::from_bits(near.to_bits() + 1) - near);
            worst = worst.max((f64::from(f(x)) - y).abs() / ulp);
        }
        worst
    }

    #[test]
    fn errors_in_ulps() {
        assert!(worst_ulps(f32::exp_, f64::exp, -87., 88.) < 1.5);
        assert!(worst_ulps(f32::tanh_, f64::tanh, -10., 10.) < 2.0);
        assert!(worst_ulps(f32::tanh_, f64::tanh, -1e-3, 1e-3) < 1.0);
        assert!(worst_ulps(f32::sigmoid_, |x| 1. / (1. + (-x).exp()), -80., 80.) < 3.0);
    }

    #[test]
    fn extremes() {
        assert_eq!((1e4f32.tanh_(), (-1e4f32).tanh_()), (1., -1.));
        assert_eq!((1e4f32.sigmoid_(), (-1e4f32).sigmoid_()), (1., 0.));
        assert_eq!((f32::INFINITY.exp_(), f32::NEG_INFINITY.exp_()), (f32::INFINITY, 0.));
        assert_eq!(0f32.tanh_().to_bits(), 0f32.to_bits());
        assert!(f32::NAN.tanh_().is_nan() && f32::NAN.exp_().is_nan());
    }
}
