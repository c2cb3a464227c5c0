//! The CUDA path: candle's kernels, and gradients that are handed on as they are.

use candle_core::{Result, Tensor};

use crate::cuda::{DeviceOp, Pass, column_sums};

/// Operands: `a`, and `b` of the shape of the last axes of `a`.
pub(super) struct AddOp;

impl DeviceOp for AddOp {
    const NAME: &'static str = "add";
    const HALF: bool = true;

    fn forward(&self, x: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        Ok((vec![x[0].broadcast_add(&x[1])?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None, None]) };
        let width = pass.inputs[1].elem_count();
        let d_b = match pass.wanted[1] {
            false => None,
            true if width == dy.elem_count() => Some(dy.clone()),
            true => Some(column_sums(&dy.reshape(((), width))?, dy.dtype())?),
        };
        Ok(vec![Some(dy.clone()), d_b])
    }
}

pub(super) struct ScaleOp(pub(super) f64);

impl DeviceOp for ScaleOp {
    const NAME: &'static str = "scale";
    const HALF: bool = true;

    fn forward(&self, x: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        Ok((vec![x[0].affine(self.0, 0.)?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![pass.grads[0].as_ref().map(|dy| dy.affine(self.0, 0.)).transpose()?])
    }
}
