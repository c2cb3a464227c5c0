//! The operation: products before and after the scan, and the launches of the scan.

use candle_core::{DType, Device, Result, Tensor};

use super::super::{Nonlinearity, Reset};
use super::path::{self, Grid, Path, Small};
use crate::cuda::{DeviceOp, Launch, Pass, empty, numbers, zeros};

/// The cell of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rnn(Nonlinearity),
    Lstm,
    Gru(Reset),
    Attention,
}

impl Kind {
    /// The cell's name in the kernels'.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Rnn(_) => "rnn",
            Kind::Lstm => "lstm",
            Kind::Gru(Reset::After) => "gru",
            Kind::Gru(Reset::Before) => "gru_before",
            Kind::Attention => "attention",
        }
    }

    pub(super) fn gates(self) -> usize {
        match self {
            Kind::Rnn(_) => 1,
            Kind::Attention => 2,
            Kind::Gru(_) => 3,
            Kind::Lstm => 4,
        }
    }

    /// Groups of four weights a gate that a thread holds in registers, as in the kernels.
    pub(super) fn chunks(self) -> usize {
        match self {
            Kind::Rnn(_) => 16,
            Kind::Attention => 8,
            Kind::Gru(_) => 5,
            Kind::Lstm => 4,
        }
    }

    pub(super) fn resets_before(self) -> bool {
        self == Kind::Gru(Reset::Before)
    }

    /// Numbers kept a unit and step for the backward pass, beside the old states.
    fn kept(self) -> usize {
        match self {
            Kind::Rnn(_) => 1,
            Kind::Attention => 3,
            Kind::Gru(_) | Kind::Lstm => 4,
        }
    }

    /// Whether the gradients of input and recurrent products differ.
    fn splits(self) -> bool {
        matches!(self, Kind::Attention | Kind::Gru(Reset::After))
    }
}

/// Where each operand stands in the list that the operation is given; the inputs stand first, then `w_hh`.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) w_ih: Option<usize>,
    pub(super) b_ih: Option<usize>,
    pub(super) b_hh: Option<usize>,
    pub(super) states: [Option<usize>; 2],
    pub(super) gates: Option<usize>,
    pub(super) peepholes: Option<usize>,
}

pub(super) const X: usize = 0;
pub(super) const W_HH: usize = 1;

#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) b: usize,
    pub(super) t: usize,
    pub(super) h: usize,
}

pub(super) struct ScanOp {
    pub(super) kind: Kind,
    pub(super) places: Places,
    /// `None` where all rows are full.
    pub(super) lengths: Option<Vec<usize>>,
    pub(super) reverse: bool,
}

/// What a forward scan writes.
pub(super) struct Forward<'a> {
    pub(super) x: &'a Tensor,
    pub(super) lengths: Option<&'a Tensor>,
    pub(super) output: Tensor,
    pub(super) ends: [Option<Tensor>; 2],
    /// The numbers kept `(n, b, t, h)` and the old states `(b, t, h)`.
    pub(super) kept: [Option<Tensor>; 3],
}

/// What a backward scan writes.
pub(super) struct Backward<'a> {
    pub(super) lengths: Option<&'a Tensor>,
    pub(super) dx: Tensor,
    pub(super) dp: Option<Tensor>,
    /// The terms of the gates' gradients, `(b, t, h)`.
    pub(super) d_gates: Option<Tensor>,
    pub(super) d_states: [Option<Tensor>; 2],
    pub(super) pass: &'a Pass<'a>,
}

impl ScanOp {
    pub(super) fn sizes(&self, inputs: &[Tensor]) -> Result<Sizes> {
        let ((b, t, _), h) = (inputs[X].dims3()?, inputs[W_HH].dim(1)?);
        Ok(Sizes { b, t, h })
    }

    /// Which of the cell's variants the kernels compute.
    fn variant(&self) -> bool {
        match self.kind {
            Kind::Rnn(nonlinearity) => nonlinearity == Nonlinearity::Relu,
            _ => self.places.gates.is_some(),
        }
    }

    fn lengths(&self, device: &Device) -> Result<Option<Tensor>> {
        self.lengths.as_ref().map(|l| numbers(l, device)).transpose()
    }

    /// The scan's arguments, the same for all kernels.
    pub(super) fn forward_arguments<'a>(
        &self,
        launch: Launch<'a>,
        inputs: &'a [Tensor],
        job: &'a Forward<'_>,
    ) -> Result<Launch<'a>> {
        let Sizes { b, t, h } = self.sizes(inputs)?;
        let at = |place: Option<usize>| place.map(|i| &inputs[i]);
        let p = &self.places;
        let launch = launch
            .tensor(job.x)
            .tensor(&inputs[W_HH])
            .optional(at(p.b_ih))
            .optional(at(p.b_hh))
            .optional(at(p.states[0]))
            .optional(at(p.states[1]))
            .optional(at(p.gates))
            .optional(at(p.peepholes))
            .optional(job.lengths)
            .tensor(&job.output);
        let written = job.ends.iter().chain(&job.kept);
        let launch = written.fold(launch, |l, t| l.optional(t.as_ref()));
        let launch = launch.int(b)?.int(t)?.int(h)?;
        Ok(launch.flag(self.reverse).flag(self.variant()))
    }

    pub(super) fn backward_arguments<'a>(
        &self,
        launch: Launch<'a>,
        job: &'a Backward<'_>,
    ) -> Result<Launch<'a>> {
        let (inputs, p) = (job.pass.inputs, &self.places);
        let Sizes { b, t, h } = self.sizes(inputs)?;
        let at = |place: Option<usize>| place.map(|i| &inputs[i]);
        let saved = |i: usize| job.pass.saved.get(i);
        let grad = |i: usize| job.pass.grads.get(i).and_then(Option::as_ref);
        let launch = launch
            .tensor(&inputs[W_HH])
            .optional(at(p.gates))
            .optional(at(p.peepholes))
            .optional(job.lengths)
            .optional(saved(0))
            .optional(saved(1))
            .optional(saved(2))
            .optional(grad(0))
            .optional(grad(1))
            .optional(grad(2))
            .tensor(&job.dx)
            .optional(job.dp.as_ref())
            .optional(job.d_gates.as_ref())
            .optional(job.d_states[0].as_ref())
            .optional(job.d_states[1].as_ref());
        let launch = launch.int(b)?.int(t)?.int(h)?;
        Ok(launch.flag(self.reverse).flag(self.variant()))
    }

    fn small<'a>(&self, pass: path::Pass, layout: Small, b: usize) -> Launch<'a> {
        let Small { threads, rows, shared, .. } = layout;
        let name = format!("recurrent_small_{}_{}_{rows}", pass.name(), self.kind.name());
        let launch = Launch::new("recurrent_small", name).grid(b.div_ceil(rows), 1, 1);
        launch.block(threads).shared(shared)
    }

    fn grid<'a>(&self, pass: path::Pass, layout: Grid) -> Launch<'a> {
        let name = format!("recurrent_grid_{}_{}", pass.name(), self.kind.name());
        let launch = Launch::new("recurrent_grid", name).grid(layout.blocks, 1, 1);
        launch.block(512).shared(layout.shared).cooperative()
    }

    fn scan_forward(&self, inputs: &[Tensor], job: &mut Forward<'_>) -> Result<()> {
        let (device, sizes) = (inputs[X].device(), self.sizes(inputs)?);
        let pass = path::Pass::Forward;
        match path::choose(self.kind, pass, sizes, device) {
            Path::Small(layout) => {
                let launch = self.small(pass, layout, sizes.b);
                let launch = self.forward_arguments(launch, inputs, job)?;
                launch.int(layout.lanes)?.int(layout.chunks)?.run(device)
            }
            Path::Grid(layout) => {
                let shape = (2, sizes.b, sizes.h.next_multiple_of(4));
                let vectors = zeros(shape, DType::F32, device)?;
                let counter = zeros(1, DType::U32, device)?;
                let launch = self.forward_arguments(self.grid(pass, layout), inputs, job)?;
                let launch = launch.tensor(&vectors).tensor(&counter);
                launch.int(layout.units)?.int(layout.parts)?.run(device)
            }
            Path::Steps => self.forward_steps(inputs, job),
        }
    }

    fn scan_backward(&self, job: &mut Backward<'_>) -> Result<()> {
        let inputs = job.pass.inputs;
        let (device, sizes) = (inputs[X].device(), self.sizes(inputs)?);
        let pass = path::Pass::Backward;
        match path::choose(self.kind, pass, sizes, device) {
            Path::Small(layout) => {
                let launch = self.small(pass, layout, sizes.b);
                let launch = self.backward_arguments(launch, job)?;
                launch.int(layout.lanes)?.int(layout.chunks)?.run(device)
            }
            Path::Grid(layout) => {
                let shape = (2, sizes.b, self.kind.gates(), sizes.h.next_multiple_of(4));
                let vectors = zeros(shape, DType::F32, device)?;
                let counter = zeros(1, DType::U32, device)?;
                let launch = self.backward_arguments(self.grid(pass, layout), job)?;
                let launch = launch.tensor(&vectors).tensor(&counter);
                launch.int(layout.units)?.int(layout.parts)?.run(device)
            }
            Path::Steps => self.backward_steps(job),
        }
    }

    /// The inputs of the products for weights, `(b t, d)`: zeros behind the rows' ends, since what stands there may be anything.
    fn rows_read(&self, x: &Tensor, lengths: Option<&Tensor>) -> Result<Tensor> {
        let (b, t, d) = x.dims3()?;
        let Some(lengths) = lengths else { return x.reshape((b * t, d)) };
        let clean = empty((b * t, d), DType::F32, x.device())?;
        let launch =
            Launch::new("recurrent_rows", "recurrent_clean").grid((b * t).min(65536), 1, 1);
        let launch = launch.block(d.next_multiple_of(32).min(256)).tensor(x).tensor(lengths);
        launch.tensor(&clean).int(b * t)?.int(t)?.int(d)?.run(x.device())?;
        Ok(clean)
    }

    /// The gradient of `w_hh` from that of the recurrent products.
    fn recurrent_weights(&self, dp: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let Sizes { b, t, h } = self.sizes(pass.inputs)?;
        let n = b * t;
        let dw = dp.t()?.matmul(&pass.saved[1].reshape((n, h))?)?; // (g h, h)
        if !self.kind.resets_before() {
            return Ok(dw);
        }
        let reset = pass.saved[0].narrow(0, 3, 1)?.reshape((n, h))?;
        let last = dp.narrow(1, 2 * h, h)?.t()?.contiguous()?.matmul(&reset)?;
        Tensor::cat(&[&dw.narrow(0, 0, 2 * h)?, &last], 0)
    }

    /// The gradient `(3, h)` of the peepholes: sums of the gates' gradients times the cells that they read.
    fn peepholes(&self, dx: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let Sizes { b, t, h } = self.sizes(pass.inputs)?;
        let n = b * t;
        let kept = |q: usize| pass.saved[0].narrow(0, q, 1)?.reshape((n, h));
        let old = pass.saved[2].reshape((n, h))?;
        let new = ((kept(1)? * &old)? + (kept(0)? * kept(2)?)?)?;
        let sum = |q: usize, c: &Tensor| cuda_sums(&(dx.narrow(1, q * h, h)? * c)?);
        Tensor::stack(&[sum(0, &old)?, sum(1, &old)?, sum(3, &new)?], 0)
    }
}

/// Sums over the rows of a matrix.
fn cuda_sums(x: &Tensor) -> Result<Tensor> {
    let (n, width) = x.dims2()?;
    Tensor::ones((1, n), x.dtype(), x.device())?.matmul(x)?.reshape(width)
}

impl DeviceOp for ScanOp {
    const NAME: &'static str = "mnemic-recurrent-scan";
    const HALF: bool = false;

    fn forward(&self, inputs: &[Tensor], grad: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let Sizes { b, t, h } = self.sizes(inputs)?;
        let device = inputs[X].device();
        let new = |shape: &[usize]| empty(shape, DType::F32, device);
        let x = match self.places.w_ih {
            Some(w) => inputs[X].reshape((b * t, ()))?.matmul(&inputs[w].t()?)?, // (b t, g h)
            None => inputs[X].clone(),
        };
        let lengths = self.lengths(device)?;
        let cell = self.kind == Kind::Lstm;
        let mut job = Forward {
            x: &x,
            lengths: lengths.as_ref(),
            output: new(&[b, t, h])?,
            ends: [Some(new(&[b, h])?), cell.then(|| new(&[b, h])).transpose()?],
            kept: [
                grad.then(|| new(&[self.kind.kept(), b, t, h])).transpose()?,
                grad.then(|| new(&[b, t, h])).transpose()?,
                (grad && cell).then(|| new(&[b, t, h])).transpose()?,
            ],
        };
        self.scan_forward(inputs, &mut job)?;
        let results = std::iter::once(job.output).chain(job.ends.into_iter().flatten());
        Ok((results.collect(), job.kept.into_iter().flatten().collect()))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (inputs, p) = (pass.inputs, &self.places);
        let Sizes { b, t, h } = self.sizes(inputs)?;
        let device = inputs[X].device();
        let new = |shape: &[usize]| empty(shape, DType::F32, device);
        let wanted = |place: Option<usize>| place.filter(|&i| pass.wanted[i]);
        let width = self.kind.gates() * h;
        let lengths = self.lengths(device)?;
        let start = |s: usize| wanted(p.states[s]).map(|_| new(&[b, h])).transpose();
        let mut job = Backward {
            lengths: lengths.as_ref(),
            dx: new(&[b * t, width])?,
            dp: self.kind.splits().then(|| new(&[b * t, width])).transpose()?,
            d_gates: wanted(p.gates).map(|_| new(&[b, t, h])).transpose()?,
            d_states: [start(0)?, start(1)?],
            pass: &pass,
        };
        self.scan_backward(&mut job)?;
        let (dx, dp) = (&job.dx, job.dp.as_ref().unwrap_or(&job.dx));
        let mut all = vec![None; inputs.len()];
        for s in 0..2 {
            if let Some(i) = p.states[s] {
                all[i].clone_from(&job.d_states[s]);
            }
        }
        if let (Some(i), Some(terms)) = (p.gates, &job.d_gates) {
            all[i] = Some(terms.sum(2)?);
        }
        if let Some(w) = wanted(p.w_ih) {
            all[w] = Some(dx.t()?.matmul(&self.rows_read(&inputs[X], job.lengths)?)?);
        }
        if let Some(i) = wanted(p.b_ih) {
            all[i] = Some(cuda_sums(dx)?);
        }
        if let Some(i) = wanted(p.b_hh) {
            all[i] = Some(cuda_sums(dp)?);
        }
        if pass.wanted[W_HH] {
            all[W_HH] = Some(self.recurrent_weights(dp, &pass)?);
        }
        if let Some(i) = wanted(p.peepholes) {
            all[i] = Some(self.peepholes(dx, &pass)?);
        }
        if pass.wanted[X] {
            all[X] = Some(match p.w_ih {
                Some(w) => dx.matmul(&inputs[w])?,
                None => job.dx,
            });
        }
        Ok(all)
    }
}
