//! The CUDA path: some threads or a block a row, one launch in each direction.

use candle_core::{Result, Tensor};

use super::cpu::Kind;
use crate::cuda::{DeviceOp, Launch, Pass, Rows, empty_like, suffix};

pub(super) struct SoftmaxOp {
    pub(super) kind: Kind,
    /// u8, of the scores' shape; 0 hides a score.
    pub(super) mask: Option<Tensor>,
}

impl SoftmaxOp {
    fn launch<'a>(&self, direction: &str, like: &Tensor) -> Result<(Launch<'a>, Rows)> {
        let rows = Rows::of(like);
        let name = format!("softmax_{direction}_{}", suffix(like.dtype())?);
        Ok((rows.grid(Launch::new("softmax", name)), rows))
    }
}

impl DeviceOp for SoftmaxOp {
    const NAME: &'static str = "mnemic-softmax";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let y = empty_like(x)?;
        let (launch, rows) = self.launch("forward", x)?;
        let launch = launch.tensor(x).optional(self.mask.as_ref()).tensor(&y);
        let launch = launch.int(rows.count)?.int(rows.width)?.int(rows.lanes)?;
        launch.flag(self.kind == Kind::LogSoftmax).run(x.device())?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (y, Some(dy)) = (&pass.outputs[0], &pass.grads[0]) else { return Ok(vec![None]) };
        let dx = empty_like(y)?;
        let (launch, rows) = self.launch("backward", y)?;
        let launch = launch.tensor(y).tensor(dy).tensor(&dx);
        let launch = launch.int(rows.count)?.int(rows.width)?.int(rows.lanes)?;
        launch.flag(self.kind == Kind::LogSoftmax).run(y.device())?;
        Ok(vec![Some(dx)])
    }
}
