//! The CUDA path over given scores. Forward: a launch over the rows and one that joins their losses. Backward: one launch.
//! Nothing is read back: the divisor of the mean stays on the device.

use candle_core::{DType, Device, Result, Tensor};

use super::{CrossEntropy, Reduction};
use crate::cuda::{DeviceOp, Launch, Pass, Rows, THREADS, elementwise, empty, empty_like, suffix};

/// Targets and options, on the device.
pub(super) struct Targets {
    /// i32 in the bits of u32.
    ids: Tensor,
    pub(super) reduction: Reduction,
    smoothing: f64,
    /// f32.
    weights: Option<Tensor>,
}

impl Targets {
    pub(super) fn new(ids: &[i64], options: &CrossEntropy, device: &Device) -> Result<Self> {
        let ids: Vec<u32> = ids.iter().map(|&y| (y as i32).cast_unsigned()).collect();
        let there = |w: &Tensor| w.detach().to_device(device)?.to_dtype(DType::F32)?.contiguous();
        Ok(Self {
            ids: Tensor::from_slice(&ids, ids.len(), device)?,
            reduction: options.reduction,
            smoothing: options.label_smoothing,
            weights: options.class_weights.as_ref().map(there).transpose()?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.ids.elem_count()
    }

    fn options<'a>(&'a self, launch: Launch<'a>, classes: usize) -> Launch<'a> {
        launch.float(1. - self.smoothing).float(self.smoothing / classes as f64)
    }

    /// What is kept of rows: see the kernel.
    pub(super) fn kept(&self) -> Result<Tensor> {
        empty((5, self.len()), DType::F32, self.ids.device())
    }

    /// Losses and statistics of the rows from `first` on, whose scores are `x` and a bias.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        kept: &Tensor,
        first: usize,
    ) -> Result<()> {
        let rows = rows(x);
        let name = format!("cross_entropy_forward_{}", suffix(x.dtype())?);
        let launch = rows.grid(Launch::new("cross_entropy", name)).tensor(x).optional(bias);
        let launch = launch.tensor(&self.ids).optional(self.weights.as_ref()).tensor(kept);
        let launch = launch.int(first)?.int(rows.count)?.int(self.len())?.int(rows.width)?;
        self.options(launch.int(rows.lanes)?, rows.width).run(x.device())
    }

    /// The gradient of those scores, which may take their place. `grads` are those of the losses, or one for all.
    pub(super) fn gradient(
        &self,
        [x, dx]: [&Tensor; 2],
        bias: Option<&Tensor>,
        kept: &Tensor,
        grads: Option<&Tensor>,
        divisor: Option<&Tensor>,
        first: usize,
    ) -> Result<()> {
        let rows = rows(x);
        let name = format!("cross_entropy_gradient_{}", suffix(x.dtype())?);
        let launch = rows.grid(Launch::new("cross_entropy", name)).tensor(x).optional(bias);
        let launch = launch.tensor(&self.ids).optional(self.weights.as_ref()).tensor(kept);
        let launch = launch.optional(grads).optional(divisor).tensor(dx);
        let launch = launch.int(first)?.int(rows.count)?.int(self.len())?.int(rows.width)?;
        let launch = launch.int(rows.lanes)?.flag(self.reduction == Reduction::None);
        self.options(launch, rows.width).run(x.device())
    }

    /// The joined losses of the rows in `dtype`, and what the mean was divided by.
    pub(super) fn reduce(&self, kept: &Tensor, dtype: DType) -> Result<(Tensor, Option<Tensor>)> {
        let (n, device) = (self.len(), kept.device());
        if self.reduction == Reduction::None {
            return Ok((round(kept, n, dtype)?, None));
        }
        let loss = empty((), dtype, device)?;
        let (weights, divisor) = if self.reduction == Reduction::Mean {
            (Some(kept.narrow(0, 1, 1)?), Some(empty((), DType::F32, device)?))
        } else {
            (None, None)
        };
        let name = format!("cross_entropy_total_{}", suffix(dtype)?);
        let launch = Launch::new("cross_entropy", name).block(1024).tensor(kept);
        let launch = launch.optional(weights.as_ref()).tensor(&loss).optional(divisor.as_ref());
        launch.int(n)?.float(1.).run(device)?;
        Ok((loss, divisor))
    }

    /// What the mean divides by, before there are losses.
    pub(super) fn divisor(&self) -> Result<Option<Tensor>> {
        if self.reduction != Reduction::Mean {
            return Ok(None);
        }
        let (n, device) = (self.len(), self.ids.device());
        let weights = empty(n, DType::F32, device)?;
        let launch = Launch::new("cross_entropy", "cross_entropy_weights");
        let launch = launch.grid(n.div_ceil(THREADS), 1, 1).block(THREADS).tensor(&self.ids);
        launch.optional(self.weights.as_ref()).tensor(&weights).int(n)?.run(device)?;
        let divisor = empty((), DType::F32, device)?;
        let launch = Launch::new("cross_entropy", "cross_entropy_total_f32").block(1024);
        let launch = launch.tensor(&weights).optional(None).tensor(&divisor).optional(None);
        launch.int(n)?.float(1.).run(device)?;
        Ok(Some(divisor))
    }
}

/// Blocks of few threads where there are many rows; large ones where few rows have to fill the device.
fn rows(x: &Tensor) -> Rows {
    let rows = Rows::of(x);
    let most = if rows.count >= 264 { 256 } else { 512 };
    Rows { lanes: rows.lanes.min(most), ..rows }
}

/// The first `n` numbers of `x`, f32, in `dtype`.
fn round(x: &Tensor, n: usize, dtype: DType) -> Result<Tensor> {
    let y = empty(n, dtype, x.device())?;
    let name = format!("cross_entropy_round_{}", suffix(dtype)?);
    let launch = Launch::new("cross_entropy", name).grid(n.div_ceil(THREADS), 1, 1);
    launch.block(THREADS).tensor(x).tensor(&y).int(n)?.run(x.device())?;
    Ok(y)
}

/// The sum of `n` losses in f32, divided by a number.
pub(crate) fn total(losses: &Tensor, divisor: f64, dtype: DType) -> Result<Tensor> {
    let sum = empty((), dtype, losses.device())?;
    let name = format!("cross_entropy_total_{}", suffix(dtype)?);
    let launch = Launch::new("cross_entropy", name).block(1024).tensor(losses).optional(None);
    let launch = launch.tensor(&sum).optional(None).int(losses.elem_count())?;
    launch.float(divisor).run(losses.device())?;
    Ok(sum)
}

/// `x` times a number of its type on the device.
pub(super) fn scaled(x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let y = empty_like(x)?;
    let name = format!("cross_entropy_scaled_{}", suffix(x.dtype())?);
    let launch = elementwise(Launch::new("cross_entropy", name), x, x.elem_count(), true);
    launch.tensor(x).tensor(scale).tensor(&y).int(x.elem_count())?.run(x.device())?;
    Ok(y)
}

pub(super) struct CrossEntropyOp(pub(super) Targets);

impl DeviceOp for CrossEntropyOp {
    const NAME: &'static str = "mnemic-cross-entropy";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let kept = self.0.kept()?;
        self.0.forward(&inputs[0], None, &kept, 0)?;
        let (loss, divisor) = self.0.reduce(&kept, inputs[0].dtype())?;
        Ok((vec![loss], [Some(kept), divisor].into_iter().flatten().collect()))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (x, Some(grad)) = (&pass.inputs[0], &pass.grads[0]) else { return Ok(vec![None]) };
        let dx = empty_like(x)?;
        let (kept, divisor) = (&pass.saved[0], pass.saved.get(1));
        self.0.gradient([x, &dx], None, kept, Some(grad), divisor, 0)?;
        Ok(vec![Some(dx)])
    }
}
