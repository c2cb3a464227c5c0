//! The CUDA path: some threads or a block a row, one launch in each direction; a few wide rows in parts, in two.

use candle_core::{DType, Result, Tensor};

use super::cpu::Kind;
use crate::cuda::{DeviceOp, Launch, Pass, Rows, empty, empty_like, suffix};

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

/// Parts of a row of which a block takes one, where there are too few rows to fill a device; at most the threads of a block.
fn parts(rows: Rows) -> usize {
    if rows.width < 1 << 14 || rows.count > 66 {
        return 1;
    }
    (264 / rows.count).min(rows.width / 4096)
}

impl SoftmaxOp {
    /// [`DeviceOp::forward`] of a few wide rows.
    fn forward_in_parts(&self, x: &Tensor, y: &Tensor, rows: Rows, parts: usize) -> Result<()> {
        let found = empty((rows.count, parts, 2), DType::F32, x.device())?;
        let kind = suffix(x.dtype())?;
        let launch = |name: &str| {
            let launch = Launch::new("softmax", format!("softmax_{name}_{kind}"));
            launch.grid(parts, rows.count, 1).block(512).tensor(x).optional(self.mask.as_ref())
        };
        launch("parts").tensor(&found).int(rows.width)?.run(x.device())?;
        let launch = launch("finish").tensor(&found).tensor(y).int(rows.width)?;
        launch.flag(self.kind == Kind::LogSoftmax).run(x.device())
    }
}

impl DeviceOp for SoftmaxOp {
    const NAME: &'static str = "mnemic-softmax";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let y = empty_like(x)?;
        let (launch, rows) = self.launch("forward", x)?;
        let parts = parts(rows);
        if parts > 1 {
            self.forward_in_parts(x, &y, rows, parts)?;
            return Ok((vec![y], vec![]));
        }
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
