//! The error function in f64, by the rational approximations of W. J. Cody, "Rational Chebyshev approximations for the
//! error function", Mathematics of Computation 23 (1969).
#![allow(clippy::excessive_precision, reason = "the coefficients as they were published")]

/// `erf(x) = x R(x²)` for `|x| <= 0.46875`: numerator and denominator, highest power first.
const SMALL: ([f64; 5], [f64; 5]) = (
    [
        1.857_777_061_846_031_53e-1,
        3.161_123_743_870_565_6,
        1.138_641_541_510_501_56e2,
        3.774_852_376_853_020_21e2,
        3.209_377_589_138_469_47e3,
    ],
    [
        1.,
        2.360_129_095_234_412_09e1,
        2.440_246_379_344_441_73e2,
        1.282_616_526_077_372_28e3,
        2.844_236_833_439_170_62e3,
    ],
);

/// `erfc(x) = e^{-x²} R(x)` for `0.46875 <= x <= 4`.
const MIDDLE: ([f64; 9], [f64; 9]) = (
    [
        2.153_115_354_744_038_46e-8,
        5.641_884_969_886_700_89e-1,
        8.883_149_794_388_375_94,
        6.611_919_063_714_162_95e1,
        2.986_351_381_974_001_31e2,
        8.819_522_212_417_690_9e2,
        1.712_047_612_634_070_58e3,
        2.051_078_377_826_071_47e3,
        1.230_339_354_797_997_25e3,
    ],
    [
        1.,
        1.574_492_611_070_983_47e1,
        1.176_939_508_913_124_99e2,
        5.371_811_018_620_098_58e2,
        1.621_389_574_566_690_19e3,
        3.290_799_235_733_459_63e3,
        4.362_619_090_143_247_16e3,
        3.439_367_674_143_721_64e3,
        1.230_339_354_803_749_42e3,
    ],
);

/// `erfc(x) = e^{-x²} / x (1/√π - x⁻² R(x⁻²))` for `x >= 4`.
const LARGE: ([f64; 6], [f64; 6]) = (
    [
        1.631_538_713_730_209_78e-2,
        3.053_266_349_612_323_44e-1,
        3.603_448_999_498_044_39e-1,
        1.257_817_261_112_292_46e-1,
        1.608_378_514_874_227_66e-2,
        6.587_491_615_298_378_03e-4,
    ],
    [
        1.,
        2.568_520_192_289_822_42,
        1.872_952_849_923_460_47,
        5.279_051_029_514_284_12e-1,
        6.051_834_131_244_131_91e-2,
        2.335_204_976_268_691_85e-3,
    ],
);

fn ratio<const N: usize>((p, q): &([f64; N], [f64; N]), x: f64) -> f64 {
    let horner = |c: &[f64; N]| c.iter().fold(0., |sum, c| sum * x + c);
    horner(p) / horner(q)
}

/// `e^{-x²}` without the rounding error of `x²`, which its size would multiply.
fn exp_minus_square(x: f64) -> f64 {
    let high = (x * 16.).trunc() / 16.;
    (-high * high).exp() * (-(x - high) * (x + high)).exp()
}

/// The error function, to about one unit in the last place.
pub(super) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a <= 0.46875 {
        return x * ratio(&SMALL, x * x);
    }
    let erfc = if a <= 4. {
        exp_minus_square(a) * ratio(&MIDDLE, a)
    } else if a < 6. {
        let inverse = 1. / (a * a);
        let tail = 0.5 * std::f64::consts::FRAC_2_SQRT_PI - inverse * ratio(&LARGE, inverse);
        exp_minus_square(a) * tail / a
    } else {
        // Below 2^-54 there; of a NaN, itself.
        if a.is_nan() { a } else { 0. }
    };
    (1. - erfc).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Computed with 40 digits.
        for (x, y) in [
            (1e-300, 1.1283791670955126e-300),
            (1e-10, 1.1283791670955126e-10),
            (0.1, 0.1124629160182849),
            (0.25, 0.27632639016823696),
            (0.46, 0.4846553900016797),
            (0.47, 0.4937450508860821),
            (0.5, 0.5204998778130465),
            (0.75, 0.7111556336535151),
            (0.9, 0.7969082124228322),
            (1.0, 0.8427007929497149),
            (1.3, 0.9340079449406524),
            (1.7, 0.9837904585907745),
            (2.0, 0.9953222650189527),
            (2.5, 0.999593047982555),
            (3.0, 0.9999779095030014),
            (3.5, 0.9999992569016276),
            (3.9, 0.9999999652077514),
            (4.1, 0.9999999932999724),
            (4.5, 0.9999999998033839),
            (5.0, 0.9999999999984626),
            (5.5, 0.9999999999999927),
            (5.9, 0.9999999999999999),
        ] {
            let error = ((erf(x) - y) / y).abs();
            assert!(error < 3e-16, "{x}: {error:e}");
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!((erf(0.), erf(f64::INFINITY), erf(f64::NEG_INFINITY)), (0., 1., -1.));
        assert!(erf(f64::NAN).is_nan() && erf(-0.).is_sign_negative());
    }

    #[test]
    fn the_pieces_meet() {
        for edge in [0.46875f64, 4., 6.] {
            let (below, above) = (erf(edge), erf(edge + f64::EPSILON * edge));
            assert!((above - below).abs() < 3e-16, "{edge}: {below} and {above}");
        }
    }
}
