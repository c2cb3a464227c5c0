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
    /// `a b`.
    fn times<S: Simd>(simd: S, a: Self::V<S>, b: Self::V<S>) -> Self::V<S>;
    /// `a + b`.
    fn plus<S: Simd>(simd: S, a: Self::V<S>, b: Self::V<S>) -> Self::V<S>;
    /// `yes` where `x > 0`, else `no`.
    fn where_positive<S: Simd>(
        simd: S,
        x: Self::V<S>,
        yes: Self::V<S>,
        no: Self::V<S>,
    ) -> Self::V<S>;
    /// The sum of the numbers, in a fixed order.
    fn total<S: Simd>(simd: S, x: Self::V<S>) -> Self;
    /// `xs` as whole registers, without what is left over at its end.
    fn whole<S: Simd>(xs: &[Self]) -> &[Self::V<S>];
    /// `xs` as whole registers to be written.
    fn whole_mut<S: Simd>(xs: &mut [Self]) -> &mut [Self::V<S>];
}

macro_rules! lanes {
    ($t:ident, $v:ident, $splat:ident, $load:ident, $store:ident, $fma:ident, $whole:ident, $whole_mut:ident, $count:ident, $mul:ident, $add:ident,
     $greater:ident, $select:ident, $sum:ident) => {
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

            #[inline(always)]
            fn times<S: Simd>(simd: S, a: S::$v, b: S::$v) -> S::$v {
                simd.$mul(a, b)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$v, b: S::$v) -> S::$v {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn where_positive<S: Simd>(simd: S, x: S::$v, yes: S::$v, no: S::$v) -> S::$v {
                simd.$select(simd.$greater(x, simd.$splat(0.)), yes, no)
            }

            #[inline(always)]
            fn total<S: Simd>(simd: S, x: S::$v) -> $t {
                simd.$sum(x)
            }

            #[inline(always)]
            fn whole<S: Simd>(xs: &[$t]) -> &[S::$v] {
                S::$whole(xs).0
            }

            #[inline(always)]
            fn whole_mut<S: Simd>(xs: &mut [$t]) -> &mut [S::$v] {
                S::$whole_mut(xs).0
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
    F32_LANES,
    mul_f32s,
    add_f32s,
    greater_than_f32s,
    select_f32s,
    reduce_sum_f32s
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
    F64_LANES,
    mul_f64s,
    add_f64s,
    greater_than_f64s,
    select_f64s,
    reduce_sum_f64s
);
