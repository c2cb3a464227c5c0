//! The CUDA path: steps are parts of the rows of the batch; one copy in either direction, at most 32 steps a launch.

use candle_core::{Result, Tensor};

use crate::cuda::{DeviceOp, Pass, Way, copy, empty};

/// Operand: (b, t, …).
pub(super) struct UnbindOp;

/// Operands: t times (b, …).
pub(super) struct StackOp;

/// The numbers of one step of one batch row.
fn width(step: &[usize]) -> usize {
    step[1..].iter().product()
}

/// New steps of these shapes from the sequence; `None` where not wanted.
fn split(xs: &Tensor, dims: &[usize], wanted: &[bool]) -> Result<Vec<Option<Tensor>>> {
    let step = |&wanted: &bool| wanted.then(|| empty(dims, xs.dtype(), xs.device())).transpose();
    let steps = wanted.iter().map(step).collect::<Result<Vec<_>>>()?;
    let parts: Vec<_> = steps.iter().map(|s| (s.as_ref(), width(dims))).collect();
    copy(Way::Out, xs, dims[0], &parts)?;
    Ok(steps)
}

/// A new sequence of the steps; an absent one is zero.
fn join(steps: &[Option<&Tensor>], dims: &[usize], like: &Tensor) -> Result<Tensor> {
    let all = [&dims[..1], &[steps.len()], &dims[1..]].concat();
    let xs = empty(all, like.dtype(), like.device())?;
    let parts: Vec<_> = steps.iter().map(|s| (*s, width(dims))).collect();
    copy(Way::In, &xs, dims[0], &parts)?;
    Ok(xs)
}

impl DeviceOp for UnbindOp {
    const NAME: &'static str = "unbind";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let dims = inputs[0].dims();
        let step = [&dims[..1], &dims[2..]].concat();
        let steps = split(&inputs[0], &step, &vec![true; dims[1]])?;
        Ok((steps.into_iter().flatten().collect(), vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let xs = &pass.inputs[0];
        let step = [&xs.dims()[..1], &xs.dims()[2..]].concat();
        let grads: Vec<_> = pass.grads.iter().map(Option::as_ref).collect();
        Ok(vec![Some(join(&grads, &step, xs)?)])
    }
}

impl DeviceOp for StackOp {
    const NAME: &'static str = "stack";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let steps: Vec<_> = inputs.iter().map(Some).collect();
        Ok((vec![join(&steps, inputs[0].dims(), &inputs[0])?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        match &pass.grads[0] {
            Some(grad) => split(grad, pass.inputs[0].dims(), pass.wanted),
            None => Ok(vec![None; pass.inputs.len()]),
        }
    }
}
