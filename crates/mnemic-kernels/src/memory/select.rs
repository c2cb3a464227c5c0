//! Rows picked from several tensors, fused.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::Real;

/// Tensors `(b, w)` to one of `(b, w)`, whose row i is that of tensor `from[i]`.
pub(super) struct SelectOp {
    pub(super) from: Vec<usize>,
}

impl FusedOp for SelectOp {
    const NAME: &'static str = "memory select";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = x[0].dims.to_vec();
        let w = dims[1];
        let mut out = Vec::with_capacity(dims[0] * w);
        for (row, &from) in self.from.iter().enumerate() {
            out.extend_from_slice(&x[from].data[row * w..][..w]);
        }
        Ok((vec![(out, dims)], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let w = pass.inputs[0].dims[1];
        let Some(grad) = pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        let mut out: Vec<Option<Vec<T>>> = pass
            .inputs
            .iter()
            .zip(pass.wanted)
            .map(|(x, &wanted)| wanted.then(|| vec![T::ZERO; x.data.len()]))
            .collect();
        for (row, &from) in self.from.iter().enumerate() {
            if let Some(Some(d)) = out.get_mut(from) {
                d[row * w..][..w].copy_from_slice(&grad.data[row * w..][..w]);
            }
        }
        Ok(out)
    }
}
