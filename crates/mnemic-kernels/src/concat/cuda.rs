//! The CUDA path: one copy in either direction, at most 32 parts a launch.

use candle_core::{Result, Tensor};

use crate::cuda::{DeviceOp, Pass, Way, copy, empty, empty_like};

pub(super) struct ConcatOp;

fn width(t: &Tensor) -> usize {
    t.dims().last().copied().unwrap_or(1)
}

impl DeviceOp for ConcatOp {
    const NAME: &'static str = "concat";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = inputs.iter().map(width).sum();
        }
        let whole = empty(dims, x.dtype(), x.device())?;
        let parts: Vec<_> = inputs.iter().map(|t| (Some(t), width(t))).collect();
        copy(Way::In, &whole, x.elem_count() / width(x), &parts)?;
        Ok((vec![whole], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let x = &pass.inputs[0];
        let Some(grad) = &pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        let wanted = pass.inputs.iter().zip(pass.wanted);
        let grads = wanted.map(|(t, &wanted)| wanted.then(|| empty_like(t)).transpose());
        let grads = grads.collect::<Result<Vec<_>>>()?;
        let parts: Vec<_> =
            grads.iter().zip(pass.inputs).map(|(g, t)| (g.as_ref(), width(t))).collect();
        copy(Way::Out, grad, x.elem_count() / width(x), &parts)?;
        Ok(grads)
    }
}

/// Cuts into parts of these widths.
pub(super) struct SplitOp(pub(super) Vec<usize>);

impl DeviceOp for SplitOp {
    const NAME: &'static str = "split";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let part = |&width: &usize| {
            let mut dims = x.dims().to_vec();
            if let Some(last) = dims.last_mut() {
                *last = width;
            }
            empty(dims, x.dtype(), x.device())
        };
        let results = self.0.iter().map(part).collect::<Result<Vec<_>>>()?;
        let parts: Vec<_> = results.iter().zip(&self.0).map(|(t, w)| (Some(t), *w)).collect();
        copy(Way::Out, x, x.elem_count() / width(x), &parts)?;
        Ok((results, vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let x = &pass.inputs[0];
        let dx = empty_like(x)?;
        let parts: Vec<_> = pass.grads.iter().zip(&self.0).map(|(g, w)| (g.as_ref(), *w)).collect();
        copy(Way::In, &dx, x.elem_count() / width(x), &parts)?;
        Ok(vec![Some(dx)])
    }
}
