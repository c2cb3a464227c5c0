//! The CUDA path: a launch forward; backward one for the rows, and one or two for weight and bias together.

use candle_core::{DType, Result, Tensor};

use super::cpu::NormOp as CpuOp;
use crate::cuda::{
    DeviceOp, Launch, Pass, Plan, Rows, THREADS, column_sums, empty, empty_like, suffix, sum_parts,
};

pub(super) struct NormOp(pub(super) CpuOp);

impl NormOp {
    fn weight<'a>(&self, inputs: &'a [Tensor]) -> Option<&'a Tensor> {
        if self.0.weight { inputs.get(1) } else { None }
    }

    /// The gradients of the weight and, where `bias` says so, of the bias.
    fn columns(
        x: &Tensor,
        dy: &Tensor,
        stats: &Tensor,
        bias: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let Rows { count, width, .. } = Rows::of(x);
        let plan = Plan::new(count, width, x.dtype());
        let side = 1 + usize::from(bias);
        let sums = empty((plan.parts, side * width), DType::F32, x.device())?;
        let kind = if plan.vector > 1 { "" } else { "single_" };
        let name = format!("norm_columns{side}_{kind}{}", suffix(x.dtype())?);
        let launch = Launch::new("norm", name).grid(plan.tiles, plan.parts, 1).block(THREADS);
        let launch = launch.tensor(x).tensor(dy).tensor(stats).tensor(&sums);
        launch.int(count)?.int(width)?.int(plan.lanes)?.run(x.device())?;
        let sums = match (plan.parts, x.dtype()) {
            (1, DType::F32) => sums.flatten_all()?,
            (_, dtype) => sum_parts(&sums, dtype)?,
        };
        let part = |k| sums.narrow(0, k * width, width);
        Ok((part(0)?, if bias { Some(part(1)?) } else { None }))
    }
}

impl DeviceOp for NormOp {
    const NAME: &'static str = "mnemic-norm";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], grad: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let rows = Rows::of(x);
        let y = empty_like(x)?;
        // Mean, the rest of the mean and scale, one after the other.
        let stats = grad.then(|| empty((3, rows.count), DType::F32, x.device())).transpose()?;
        let bias = if self.0.bias { inputs.last() } else { None };
        let name = format!("norm_forward_{}", suffix(x.dtype())?);
        let launch = rows.grid(Launch::new("norm", name)).tensor(x);
        let launch = launch.optional(self.weight(inputs)).optional(bias).tensor(&y);
        let launch = launch.optional(stats.as_ref());
        let launch = launch.int(rows.count)?.int(rows.width)?.int(rows.lanes)?;
        launch.flag(self.0.centred).float(self.0.eps).run(x.device())?;
        Ok((vec![y], stats.into_iter().collect()))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        let (x, stats) = (&pass.inputs[0], &pass.saved[0]);
        let mut results = vec![None; pass.inputs.len()];
        if pass.wanted[0] {
            let rows = Rows::of(x);
            let dx = empty_like(x)?;
            let name = format!("norm_backward_{}", suffix(x.dtype())?);
            let launch = rows.grid(Launch::new("norm", name)).tensor(x).tensor(dy);
            let launch = launch.optional(self.weight(pass.inputs)).tensor(stats).tensor(&dx);
            let launch = launch.int(rows.count)?.int(rows.width)?.int(rows.lanes)?;
            launch.flag(self.0.centred).run(x.device())?;
            results[0] = Some(dx);
        }
        let weight = self.0.weight && pass.wanted[1];
        let bias = self.0.bias && pass.wanted.last().copied().unwrap_or(false);
        let last = pass.inputs.len() - 1;
        if weight {
            let (d_weight, d_bias) = Self::columns(x, dy, stats, bias)?;
            results[1] = Some(d_weight);
            if bias {
                results[last] = d_bias;
            }
        } else if bias {
            results[last] = Some(column_sums(dy, dy.dtype())?);
        }
        Ok(results)
    }
}
