//! Elementary functions in f32: polynomials between branch-free reductions.
//!
//! Coefficients without a name beside them are minimax fits made for this crate. No fused multiply-add anywhere: the bits are those
//! of plain IEEE operations, whatever the SIMD level. Conditions choose between computed values, which compiles to blends.

/// Cody-Waite reduction to `|r| <= ln 2 / 2`, then a polynomial of degree 6 in Horner form. Saturates to 0 and infinity.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = if x < -104.0 { -104.0 } else { x };
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
pub(super) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = -5.704_988_7e-3_f32;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let small = p * z * x + x;
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    // The sign of a zero, too.
    (if a < 0.625 { small } else { large }).copysign(x)
}

/// `1 / (1 + e^{-x})`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x = 2^k (1 + f)` with `1 + f` in `[√½, √2)`, then `k ln 2 + f - f²/2 + f³ P(f)`.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    const SQRT_HALF: i32 = 0x3f35_04f3; // the bits of √½
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    let k = bits.wrapping_sub(SQRT_HALF) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(k << 23) as u32) - 1.0;
    let k = k as f32 - if subnormal { 23.0 } else { 0.0 };
    let mut p = 6.750_956e-2_f32;
    p = p * f - 1.167_144_9e-1;
    p = p * f + 1.188_356_8e-1;
    p = p * f - 1.240_603_2e-1;
    p = p * f + 1.422_032_7e-1;
    p = p * f - 1.666_799_6e-1;
    p = p * f + 2.000_207_3e-1;
    p = p * f - 2.500_001e-1;
    p = p * f + 3.333_331_3e-1;
    let square = f * f;
    // ln 2 in two parts, of which the first times `k` is exact; the small terms first.
    let low = p * (square * f) + k * -2.121_944_4e-4;
    let y = (low - 0.5 * square + f) + k * 0.693_359_4;
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// `max(x, 0) + ln(1 + u)`, `u = e^{-|x|}`, where `ln(1 + u) = 2 artanh(s / 2)` with `s = u / (1 + u/2)`.
#[inline(always)]
pub(super) fn softplus(x: f32) -> f32 {
    let u = exp(-x.abs());
    let s = u / (1.0 + 0.5 * u);
    let z = 0.25 * (s * s);
    let mut p = 2.424_525_6e-1_f32;
    p = p * z + 2.144_388_6e-1;
    p = p * z + 2.861_521_2e-1;
    p = p * z + 3.999_895e-1;
    p = p * z + 6.666_667_5e-1;
    let positive = if x > 0.0 { x } else { 0.0 };
    positive + (s + s * (0.5 * z * p))
}

/// `x (1 + P(x²))` below 0.921875, above it `1 - e^{-t Q(t)}` with `t = |x|`; from 4 on the result is 1.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = 7.962_679e-5_f32;
    p = p * z - 8.042_697_4e-4;
    p = p * z + 5.191_889e-3;
    p = p * z - 2.685_557_9e-2;
    p = p * z + 1.128_362_4e-1;
    p = p * z - 3.761_263e-1;
    p = p * z + 1.283_791_7e-1;
    let small = x + x * p;
    let t = if a > 4.0 { 4.0 } else { a };
    let mut q = -2.134_575_2e-4_f32;
    q = q * t + 3.210_710_1e-3;
    q = q * t - 2.287_67e-2;
    q = q * t + 1.052_417_3e-1;
    q = q * t + 6.357_331e-1;
    q = q * t + 1.128_510_1;
    let large = (1.0 - exp(-(q * t))).copysign(x);
    if a < 0.921_875 { small } else { large }
}

/// The normal distribution function: `Φ(-t) = e^{-t P(t)} / 2` for `t = |x|`, and `1 - Φ(-t)` at positive `x`.
///
/// Its absolute error is below 1e-7; below -4 also the relative error grows, but the result still falls to 0.
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> f32 {
    let t = x.abs();
    let mut p = 3.268_26e-8_f32;
    p = p * t - 8.683_656_5e-7;
    p = p * t + 9.955_667e-6;
    p = p * t - 6.359_059e-5;
    p = p * t + 2.208_663_4e-4;
    p = p * t - 3.947_329_6e-5;
    p = p * t - 4.783_449e-3;
    p = p * t + 3.633_683e-2;
    p = p * t + 3.183_095_8e-1;
    p = p * t + 7.978_846e-1;
    let tail = 0.5 * exp(-(t * p));
    if x > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use crate::real::Real;

    #[test]
    fn the_normal_distribution_function() {
        for i in -400_000..=400_000 {
            let x = i as f32 * 4e-5;
            let error = (f64::from(x.normal_cdf_()) - f64::from(x).normal_cdf_()).abs();
            assert!(error < 1e-7, "{x}: {error:e}");
        }
        let inf = f32::INFINITY;
        assert_eq!([inf, 1e4, -1e4, -inf, 0.].map(Real::normal_cdf_), [1., 1., 0., 0., 0.5]);
        assert!(f32::NAN.normal_cdf_().is_nan());
    }
}
