//! The CUDA path: one launch in each direction. Tensors past 2^31 elements are refused.

use candle_core::{DType, Result, Tensor};

use super::cpu::Activation;
use crate::cuda::{DeviceOp, Launch, Pass, elementwise, empty, empty_like, suffix};

pub(super) struct ActivationOp<A>(pub(super) A);

impl<A: Activation> DeviceOp for ActivationOp<A> {
    const NAME: &'static str = A::NAME;
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let y = empty_like(x)?;
        let name = format!("activation_{}_{}_forward", A::NAME, suffix(x.dtype())?);
        let launch = elementwise(Launch::new("activation", name), x, x.elem_count(), true);
        launch.tensor(x).tensor(&y).int(x.elem_count())?.run(x.device())?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None]) };
        // In half precision, the kernels derive from the operand, as the result is rounded.
        let from_result = A::FROM_RESULT && dy.dtype() == DType::F32;
        let seen = if from_result { &pass.outputs[0] } else { &pass.inputs[0] };
        let dx = empty_like(dy)?;
        let name = format!("activation_{}_{}_backward", A::NAME, suffix(dy.dtype())?);
        let launch = elementwise(Launch::new("activation", name), dy, dy.elem_count(), true);
        launch.tensor(seen).tensor(dy).tensor(&dx).int(dy.elem_count())?.run(dy.device())?;
        Ok(vec![Some(dx)])
    }
}

pub(super) struct GluOp;

impl GluOp {
    /// The launch, the number of results and the width of their rows.
    fn launch<'a>(direction: &str, x: &Tensor) -> Result<(Launch<'a>, usize, usize)> {
        let (n, width) = (x.elem_count() / 2, x.dims().last().map_or(1, |d| d / 2));
        let name = format!("activation_glu_{}_{direction}", suffix(x.dtype())?);
        let packs = width.is_multiple_of(16 / x.dtype().size_in_bytes());
        Ok((elementwise(Launch::new("activation", name), x, n, packs), n, width))
    }
}

impl DeviceOp for GluOp {
    const NAME: &'static str = "glu";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let (launch, n, width) = Self::launch("forward", x)?;
        let mut dims = x.dims().to_vec();
        dims[x.rank() - 1] = width;
        let y = empty(dims, x.dtype(), x.device())?;
        launch.tensor(x).tensor(&y).int(n)?.int(width)?.run(x.device())?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (x, Some(dy)) = (&pass.inputs[0], &pass.grads[0]) else { return Ok(vec![None]) };
        let dx = empty_like(x)?;
        let (launch, n, width) = Self::launch("backward", x)?;
        launch.tensor(x).tensor(dy).tensor(&dx).int(n)?.int(width)?.run(x.device())?;
        Ok(vec![Some(dx)])
    }
}
