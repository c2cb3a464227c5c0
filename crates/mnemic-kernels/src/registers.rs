//! Vectors of f32 or f64 at the SIMD level of a dispatched function.

use pulp::Simd;

/// A number that SIMD registers hold several of.
pub(crate) trait Registers: Copy {
    /// A register.
    type V<S: Simd>: Copy;
    fn lanes<S: Simd>() -> usize;
    fn splat<S: Simd>(simd: S, x: Self) -> Self::V<S>;
    /// The first numbers of `xs`; zeros beyond its end.
    fn load<S: Simd>(simd: S, xs: &[Self]) -> Self::V<S>;
    /// Writes to as many places as `xs` has.
    fn store<S: Simd>(simd: S, xs: &mut [Self], v: Self::V<S>);
    /// `a b + c`, fused where the level has it.
    fn mul_add<S: Simd>(simd: S, a: Self::V<S>, b: Self::V<S>, c: Self::V<S>) -> Self::V<S>;
}

macro_rules! lanes {
    ($t:ident, $v:ident, $splat:ident, $load:ident, $store:ident, $fma:ident, $whole:ident, $whole_mut:ident, $count:ident) => {
        impl Registers for $t {
            type V<S: Simd> = S::$v;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$count
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: $t) -> S::$v {
                simd.$splat(x)
            }

            #[inline(always)]
            fn load<S: Simd>(simd: S, xs: &[$t]) -> S::$v {
                match S::$whole(xs).0.first() {
                    Some(v) => *v,
                    None => simd.$load(xs),
                }
            }

            #[inline(always)]
            fn store<S: Simd>(simd: S, xs: &mut [$t], v: S::$v) {
                match S::$whole_mut(xs).0.first_mut() {
                    Some(place) => *place = v,
                    None => simd.$store(xs, v),
                }
            }

            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$v, b: S::$v, c: S::$v) -> S::$v {
                simd.$fma(a, b, c)
            }
        }
    };
}

lanes!(
    f32,
    f32s,
    splat_f32s,
    partial_load_f32s,
    partial_store_f32s,
    mul_add_e_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    F32_LANES
);
lanes!(
    f64,
    f64s,
    splat_f64s,
    partial_load_f64s,
    partial_store_f64s,
    mul_add_e_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    F64_LANES
);
