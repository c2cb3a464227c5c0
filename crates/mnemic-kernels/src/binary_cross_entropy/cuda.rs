//! The CUDA path: one launch for losses, two for their sum, one for both gradients.

use candle_core::{DType, Result, Tensor};

use crate::cross_entropy::Reduction;
use crate::cross_entropy::cuda::total;
use crate::cuda::{DeviceOp, Launch, Pass, THREADS, elementwise, empty, empty_like, suffix};

pub(super) struct BceOp(pub(super) Reduction);

/// Sums of losses that are added in a second launch, at most.
const PARTS: usize = 1056;

impl BceOp {
    fn divisor(&self, elements: usize) -> f64 {
        if self.0 == Reduction::Mean { elements as f64 } else { 1. }
    }
}

impl DeviceOp for BceOp {
    const NAME: &'static str = "mnemic-bce-with-logits";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let (x, y) = (&inputs[0], &inputs[1]);
        let (n, kind) = (x.elem_count(), suffix(x.dtype())?);
        if self.0 == Reduction::None {
            let losses = empty_like(x)?;
            let launch = Launch::new("bce", format!("bce_losses_{kind}"));
            let launch = elementwise(launch, x, n, true).tensor(x).tensor(y).tensor(&losses);
            launch.int(n)?.run(x.device())?;
            return Ok((vec![losses], vec![]));
        }
        let pack = 16 / x.dtype().size_in_bytes();
        let parts = n.div_ceil(2 * THREADS * pack).min(PARTS);
        let sums = empty(parts, DType::F32, x.device())?;
        let launch = Launch::new("bce", format!("bce_sums_{kind}")).grid(parts, 1, 1);
        let launch = launch.block(THREADS).tensor(x).tensor(y).tensor(&sums);
        launch.int(n)?.run(x.device())?;
        Ok((vec![total(&sums, self.divisor(n), x.dtype())?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = &pass.grads[0] else { return Ok(vec![None, None]) };
        let (x, y) = (&pass.inputs[0], &pass.inputs[1]);
        let room = |k: usize| pass.wanted[k].then(|| empty_like(x)).transpose();
        let (dx, dy) = (room(0)?, room(1)?);
        let n = x.elem_count();
        let launch = Launch::new("bce", format!("bce_gradient_{}", suffix(x.dtype())?));
        let launch = elementwise(launch, x, n, true).tensor(x).tensor(y).tensor(grad);
        let launch = launch.optional(dx.as_ref()).optional(dy.as_ref()).int(n)?;
        let launch = launch.flag(self.0 == Reduction::None).float(1. / self.divisor(n));
        launch.run(x.device())?;
        Ok(vec![dx, dy])
    }
}
