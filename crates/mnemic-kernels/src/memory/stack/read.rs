//! The weighted sum of rows that lie apart, fused.

use candle_core::{DType, Result, Tensor};

use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{add_scaled, dot};
use crate::real::Real;

/// Weights `(b, n)` and the rows `(b, m)` of the places in `active` to `(b, m)`.
pub(super) struct ReadOp {
    pub(super) active: Vec<usize>,
    pub(super) width: usize,
}

/// The places whose weight is not 0 throughout the batch.
pub(super) fn active(weights: &Tensor) -> Result<Vec<usize>> {
    let n = weights.dim(1)?;
    let weights = weights.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok((0..n).filter(|&i| weights.iter().any(|row| row[i] != 0.)).collect())
}

impl FusedOp for ReadOp {
    const NAME: &'static str = "stack read";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (b, n, m) = (x[0].dims[0], x[0].dims[1], self.width);
        let mut out = vec![T::ZERO; b * m];
        for (row, out) in out.chunks_exact_mut(m).enumerate() {
            for (&i, values) in self.active.iter().zip(&x[1..]) {
                let weight = x[0].data[row * n + i];
                if weight != T::ZERO {
                    add_scaled(out, &values.data[row * m..][..m], weight);
                }
            }
        }
        Ok((vec![(out, vec![b, m])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs;
        let (b, n, m) = (x[0].dims[0], x[0].dims[1], self.width);
        let Some(grad) = pass.grads[0] else { return Ok(vec![None; x.len()]) };
        let mut d_weights = vec![T::ZERO; b * n];
        let mut out = Vec::with_capacity(x.len());
        for ((&i, values), &wanted) in self.active.iter().zip(&x[1..]).zip(&pass.wanted[1..]) {
            let mut d_values = vec![T::ZERO; if wanted { b * m } else { 0 }];
            for (row, grad) in grad.data.chunks_exact(m).enumerate() {
                d_weights[row * n + i] = dot(&values.data[row * m..][..m], grad);
                if wanted {
                    add_scaled(&mut d_values[row * m..][..m], grad, x[0].data[row * n + i]);
                }
            }
            out.push(wanted.then_some(d_values));
        }
        out.insert(0, Some(d_weights));
        Ok(out)
    }
}
