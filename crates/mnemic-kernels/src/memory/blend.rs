//! A mixture of two memories, fused.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::Real;

/// Two arrays of one shape and a share `(1)` to one.
pub(super) struct BlendOp;

impl FusedOp for BlendOp {
    const NAME: &'static str = "blend";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let share = x[2].data[0];
        let rest = T::ONE - share;
        let mixed = x[0].data.iter().zip(x[1].data).map(|(&a, &b)| share * a + rest * b);
        Ok((vec![(mixed.collect(), x[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, share) = (pass.inputs, pass.inputs[2].data[0]);
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        let scaled = |by: T| grad.iter().map(|&g| by * g).collect::<Vec<T>>();
        // In f64: a sum over whole memories.
        let products = grad.iter().zip(x[0].data.iter().zip(x[1].data));
        let d_share: f64 = products.map(|(&g, (&a, &b))| (g * (a - b)).to_f64()).sum();
        Ok(vec![
            pass.wanted[0].then(|| scaled(share)),
            pass.wanted[1].then(|| scaled(T::ONE - share)),
            Some(vec![T::of(d_share)]),
        ])
    }
}
