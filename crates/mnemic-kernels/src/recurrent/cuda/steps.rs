//! Scans of any size: one product and one kernel a step.

use candle_core::{DType, Result, Tensor};

use super::scan::{Backward, Forward, Kind, ScanOp, Sizes, W_HH, X};
use crate::cuda::{Launch, empty, zeros};

const THREADS: usize = 256;

impl ScanOp {
    fn step<'a>(&self, what: &str, sizes: Sizes) -> Launch<'a> {
        let name = format!("recurrent_steps_{what}");
        let blocks = (sizes.b * sizes.h).div_ceil(THREADS);
        Launch::new("recurrent_steps", name).grid(blocks, 1, 1).block(THREADS)
    }

    /// The number of steps of the longest row, but one at least: the first step clears what stands behind the rows' ends.
    fn longest(&self, t: usize) -> usize {
        self.lengths.as_ref().map_or(t, |l| l.iter().copied().max().unwrap_or(0)).max(1)
    }

    /// The weights that multiply the state, and those that multiply `r ∘ h`.
    fn parts(&self, w: &Tensor, h: usize) -> Result<(Tensor, Option<Tensor>)> {
        if !self.kind.resets_before() {
            return Ok((w.clone(), None));
        }
        Ok((w.narrow(0, 0, 2 * h)?, Some(w.narrow(0, 2 * h, h)?)))
    }

    pub(super) fn forward_steps(&self, inputs: &[Tensor], job: &mut Forward<'_>) -> Result<()> {
        let sizes = self.sizes(inputs)?;
        let Sizes { b, t, h } = sizes;
        let device = inputs[X].device();
        let new = || empty((b, h), DType::F32, device);
        let start = |s: usize| match self.places.states[s] {
            Some(i) => Ok(inputs[i].clone()),
            None => zeros((b, h), DType::F32, device),
        };
        let cell = self.kind == Kind::Lstm;
        let (w, w_last) = self.parts(&inputs[W_HH], h)?;
        let (mut now, mut c_now) = (start(0)?, cell.then(|| start(1)).transpose()?);
        let what = format!("forward_{}", self.kind.name());
        for i in 0..self.longest(t) {
            let p = now.matmul(&w.t()?)?;
            let mut last = None;
            if let Some(w) = &w_last {
                let reset = new()?;
                let launch = self.forward_arguments(self.step("reset", sizes), inputs, job)?;
                launch.tensor(&p).tensor(&now).tensor(&reset).int(i)?.run(device)?;
                last = Some(reset.matmul(&w.t()?)?);
            }
            let (next, c_next) = (new()?, cell.then(new).transpose()?);
            let launch = self.forward_arguments(self.step(&what, sizes), inputs, job)?;
            let launch = launch.tensor(&p).optional(last.as_ref());
            let launch = launch.tensor(&now).optional(c_now.as_ref());
            launch.tensor(&next).optional(c_next.as_ref()).int(i)?.run(device)?;
            (now, c_now) = (next, c_next);
        }
        job.ends = [Some(now), c_now];
        Ok(())
    }

    pub(super) fn backward_steps(&self, job: &mut Backward<'_>) -> Result<()> {
        let inputs = job.pass.inputs;
        let sizes = self.sizes(inputs)?;
        let Sizes { b, t, h } = sizes;
        let device = inputs[X].device();
        let new = || empty((b, h), DType::F32, device);
        let grad = |i: usize| job.pass.grads.get(i).cloned().flatten();
        let cell = self.kind == Kind::Lstm;
        let (w, w_last) = self.parts(&inputs[W_HH], h)?;
        let (mut direct, mut product, mut dc) = (grad(1), None, grad(2));
        let what = format!("backward_{}", self.kind.name());
        for i in (0..self.longest(t)).rev() {
            let p = empty((b, w.dim(0)?), DType::F32, device)?;
            let last = w_last.is_some().then(new).transpose()?;
            let (direct_to, dc_to) = (new()?, cell.then(new).transpose()?);
            let launch = self.backward_arguments(self.step(&what, sizes), job)?;
            let launch = launch.optional(direct.as_ref()).optional(product.as_ref());
            let launch = launch.optional(dc.as_ref()).tensor(&p).optional(last.as_ref());
            launch.tensor(&direct_to).optional(dc_to.as_ref()).int(i)?.run(device)?;
            if let (Some(last), Some(w)) = (&last, &w_last) {
                let d_reset = last.matmul(w)?;
                let launch = self.backward_arguments(self.step("reset_back", sizes), job)?;
                launch.tensor(&d_reset).tensor(&p).tensor(&direct_to).int(i)?.run(device)?;
            }
            product = Some(p.matmul(&w)?);
            (direct, dc) = (Some(direct_to), dc_to);
        }
        if let (Some(end), Some(direct), Some(product)) = (&mut job.d_states[0], direct, product) {
            *end = (direct + product)?;
        }
        if let (Some(end), Some(dc)) = (&mut job.d_states[1], dc) {
            *end = dc;
        }
        Ok(())
    }
}
