//! Elementary functions over slices of f32, at the SIMD level that the processor has.
//!
//! The same code runs in every fused operation. It is branch-free and uses no fused multiply-add, so the results are the same, bit
//! for bit, at every SIMD level. The errors below are the largest over *all* f32 arguments, in units in the
//! last place of the correctly rounded result (of the smallest subnormal number where the result is subnormal).
//!
//! | function | largest error | ends |
//! | --- | --- | --- |
//! | [`exp`] | 1.06 | 0 below -104, infinity above 88.72 |
//! | [`tanh`] | 1.34 | ±1 |
//! | [`sigmoid`] | 2.49 | 1; 0 below -88.73 |
//! | [`ln`] | 1.00 | -infinity at ±0, NaN below 0, infinity |
//! | [`softplus`] | 2.80 | 0 below -104; `x` |
//! | [`erf`] | 1.22 | ±1 |
//!
//! NaN gives NaN everywhere; subnormal arguments count in full.

use candle_core::{Result, bail};

use crate::real::Real;
use crate::simd;

/// A function of one number.
trait Unary {
    fn at(x: f32) -> f32;
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident, $unary:ident, $method:ident;)*) => {$(
        struct $unary;
        impl Unary for $unary {
            #[inline(always)]
            fn at(x: f32) -> f32 {
                x.$method()
            }
        }

        $(#[$doc])*
        ///
        /// # Errors
        /// When the slices differ in length.
        pub fn $name(xs: &[f32], ys: &mut [f32]) -> Result<()> {
            map::<$unary>(stringify!($name), xs, ys)
        }
    )*};
}

functions! {
    /// `y = e^x`, within 1.06 units in the last place.
    ///
    /// ```
    /// let mut y = [0.; 2];
    /// mnemic_kernels::math::exp(&[0., 1.], &mut y)?;
    /// assert_eq!(y, [1., std::f32::consts::E]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    exp, Exp, exp_;
    /// `y = tanh(x)`, within 1.34 units in the last place.
    tanh, Tanh, tanh_;
    /// `y = 1 / (1 + e^{-x})`, within 2.49 units in the last place.
    sigmoid, Sigmoid, sigmoid_;
    /// `y = ln(x)`, within 1.00 units in the last place.
    ln, Ln, ln_;
    /// `y = ln(1 + e^x)`, within 2.80 units in the last place.
    softplus, Softplus, softplus_;
    /// The error function, `y = 2/√π ∫₀ˣ e^{-t²} dt`, within 1.22 units in the last place.
    erf, Erf, erf_;
}

fn map<U: Unary>(name: &str, xs: &[f32], ys: &mut [f32]) -> Result<()> {
    struct Map<'a, U>(&'a [f32], &'a mut [f32], std::marker::PhantomData<U>);
    impl<U: Unary> pulp::WithSimd for Map<'_, U> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            self.1.iter_mut().zip(self.0).for_each(|(y, x)| *y = U::at(*x));
        }
    }
    if xs.len() != ys.len() {
        bail!("{name}: {} arguments, but room for {} results", xs.len(), ys.len());
    }
    simd::level().dispatch(Map::<U>(xs, ys, std::marker::PhantomData));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{available, with_level};

    type Slices = fn(&[f32], &mut [f32]) -> Result<()>;

    /// Name, function, the same in f64, first and last argument, largest error.
    type Case = (&'static str, Slices, fn(f64) -> f64, [f32; 2], f64);

    const ALL: [Case; 6] = [
        ("exp", exp, f64::exp, [-105., 89.5], 1.06),
        ("tanh", tanh, f64::tanh, [-10., 10.], 1.34),
        ("sigmoid", sigmoid, <f64 as Real>::sigmoid_, [-88.7, 30.], 2.49),
        ("ln", ln, f64::ln, [0., f32::MAX], 1.0),
        ("softplus", softplus, <f64 as Real>::softplus_, [-105., 30.], 2.8),
        ("erf", erf, <f64 as Real>::erf_, [-4.5, 4.5], 1.22),
    ];

    /// The numbers between two, in steps of `step` representable ones.
    fn sweep([low, high]: [f32; 2], step: i64) -> impl Iterator<Item = f32> {
        // Floats ordered as integers: the negative ones count down.
        let order = |x: f32| {
            let bits = i64::from(x.to_bits());
            if x.is_sign_negative() { 0x8000_0000 - bits } else { bits }
        };
        let number =
            |i: i64| f32::from_bits(if i < 0 { (0x8000_0000 - i) as u32 } else { i as u32 });
        let (low, high) = (order(low), order(high));
        (0..=(high - low) / step).map(move |k| number(low + k * step))
    }

    /// The error of `y` in units in the last place of the result `exact`.
    fn ulps(y: f32, exact: f64) -> f64 {
        let near = exact as f32;
        if near.is_infinite() || near == 0. {
            return if y == near { 0. } else { (f64::from(y) - exact).abs() / 1.4e-45 };
        }
        let a = near.abs();
        let ulp = f64::from(a) - f64::from(f32::from_bits(a.to_bits() - 1));
        (f64::from(y) - exact).abs() / ulp
    }

    fn worst(f: Slices, exact: fn(f64) -> f64, range: [f32; 2], step: i64) -> (f64, f32) {
        let mut worst = (0., 0.);
        let mut xs = sweep(range, step);
        loop {
            let block: Vec<f32> = xs.by_ref().take(4096).collect();
            if block.is_empty() {
                return worst;
            }
            let mut ys = vec![0.; block.len()];
            f(&block, &mut ys).unwrap();
            for (x, y) in block.iter().zip(ys) {
                let error = ulps(y, exact(f64::from(*x)));
                if error.is_nan() || error > worst.0 {
                    worst = (error, *x);
                }
            }
        }
    }

    /// Every 1999th number (an odd step: every pattern of low bits comes up); all of them, which takes minutes, where
    /// `MNEMIC_ALL_FLOATS` is set. That is how the stated figures were found.
    #[test]
    fn errors_in_ulps() {
        let step = if std::env::var_os("MNEMIC_ALL_FLOATS").is_some() { 1 } else { 1999 };
        for (name, f, exact, range, most) in ALL {
            let (error, x) = worst(f, exact, range, step);
            println!("{name}: {error:.4} ulps at {x:e}");
            assert!(error <= most, "{name}({x:e}): {error} ulps");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let xs: Vec<f32> = sweep([f32::NEG_INFINITY, f32::INFINITY], 65_537).collect();
        for (name, f, ..) in ALL {
            let at = |level| {
                let mut ys = vec![0.; xs.len()];
                with_level(level, || f(&xs, &mut ys)).unwrap().unwrap();
                ys
            };
            let first = at(simd::Level::Portable);
            for level in available() {
                let same = at(level)
                    .iter()
                    .zip(&first)
                    .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
                assert!(same, "{name} at {level:?}");
            }
        }
    }

    #[test]
    fn ends() {
        const INF: f32 = f32::INFINITY;
        let xs = [f32::NAN, INF, -INF, 0., -0., 1e4, -1e4, 1e-45, -1e-45, f32::MAX, f32::MIN];
        let expected: [(Slices, [f32; 11]); 6] = {
            const NAN: f32 = f32::NAN;
            [
                (exp, [NAN, INF, 0., 1., 1., INF, 0., 1., 1., INF, 0.]),
                (tanh, [NAN, 1., -1., 0., -0., 1., -1., 1e-45, -1e-45, 1., -1.]),
                (sigmoid, [NAN, 1., 0., 0.5, 0.5, 1., 0., 0.5, 0.5, 1., 0.]),
                (
                    ln,
                    [NAN, INF, NAN, -INF, -INF, 9.210_340_5, NAN, -103.278_93, NAN, 88.722_84, NAN],
                ),
                (softplus, {
                    let half = std::f32::consts::LN_2;
                    [NAN, INF, 0., half, half, 1e4, 0., half, half, f32::MAX, 0.]
                }),
                (erf, [NAN, 1., -1., 0., -0., 1., -1., 1e-45, -1e-45, 1., -1.]),
            ]
        };
        for (k, (f, expected)) in expected.into_iter().enumerate() {
            let mut ys = [7.; 11];
            f(&xs, &mut ys).unwrap();
            for ((x, y), e) in xs.iter().zip(ys).zip(expected) {
                let same = y.to_bits() == e.to_bits() || (y.is_nan() && e.is_nan());
                assert!(same, "function {k} of {x:e}: {y:e}, not {e:e}");
            }
        }
    }

    #[test]
    fn lengths_must_agree() {
        let error = exp(&[1.], &mut [0.; 2]).unwrap_err().to_string();
        assert!(error.contains("1 arguments") && error.contains("2 results"), "{error}");
    }
}
