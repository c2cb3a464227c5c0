//! The CUDA path: one block a row.

use candle_core::{Result, Tensor};

use super::cpu::Kind;
use crate::cuda::{DeviceOp, Launch, Pass, empty_like, suffix};

pub(super) struct SoftmaxOp {
    pub(super) kind: Kind,
    /// u8, of the scores' shape; 0 hides a score.
    pub(super) mask: Option<Tensor>,
}

impl SoftmaxOp {
    fn launch<'a>(&self, direction: &str, like: &Tensor) -> Result<(Launch<'a>, usize)> {
        let width = like.dims().last().copied().unwrap_or(1);
        let name = format!("softmax_{direction}_{}", suffix(like.dtype())?);
        let threads = width.div_ceil(4).next_multiple_of(32).min(512);
        let rows = like.elem_count() / width;
        Ok((Launch::new("softmax", name).grid(rows, 1, 1).block(threads), width))
    }
}

impl DeviceOp for SoftmaxOp {
    const NAME: &'static str = "mnemic-softmax";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let y = empty_like(x)?;
        let (launch, width) = self.launch("forward", x)?;
        let launch = launch.tensor(x).optional(self.mask.as_ref()).tensor(&y).int(width)?;
        launch.flag(self.kind == Kind::LogSoftmax).run(x.device())?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (y, Some(dy)) = (&pass.outputs[0], &pass.grads[0]) else { return Ok(vec![None]) };
        let dx = empty_like(y)?;
        let (launch, width) = self.launch("backward", y)?;
        let launch = launch.tensor(y).tensor(dy).tensor(&dx).int(width)?;
        launch.flag(self.kind == Kind::LogSoftmax).run(y.device())?;
        Ok(vec![Some(dx)])
    }
}
