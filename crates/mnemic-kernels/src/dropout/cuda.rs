//! The CUDA path: the CPU's mask, drawn in one launch in each direction. Tensors past 2^31 elements are refused.

use candle_core::{Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, elementwise, empty_like, suffix};
use crate::rng::Philox;

pub(super) struct DropoutOp {
    rng: Philox,
    /// As on the CPU: at `p >= 1`, where it does not fit, `keep` is 0.
    threshold: u32,
    keep: f64,
}

impl DropoutOp {
    pub(super) fn new(p: f64, rng: Philox) -> Self {
        let threshold = (p * 4_294_967_296.0) as u32;
        Self { rng, threshold, keep: if p >= 1. { 0. } else { 1. / (1. - p) } }
    }

    fn mask(&self, x: &Tensor) -> Result<Tensor> {
        let y = empty_like(x)?;
        let name = format!("dropout_{}", suffix(x.dtype())?);
        let launch = elementwise(Launch::new("dropout", name), x, x.elem_count(), true);
        let launch = launch.tensor(x).tensor(&y).int(x.elem_count())?;
        let launch = launch.long(self.rng.seed()).long(self.rng.stream());
        launch.long(u64::from(self.threshold)).float(self.keep).run(x.device())?;
        Ok(y)
    }
}

impl DeviceOp for DropoutOp {
    const NAME: &'static str = "dropout";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        Ok((vec![self.mask(&inputs[0])?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![pass.grads[0].as_ref().map(|g| self.mask(g)).transpose()?])
    }
}
