//! The CUDA path: one launch forward, with the softmax; two or three and a sum backward. Scores of a query that do not fit into
//! shared memory go on to the plain twin.

use candle_core::{DType, Result, Tensor};

use super::Output;
use crate::cuda::{DeviceOp, Launch, Pass, apply1, column_sums, empty, empty_like, takes};

/// The most numbers in shared memory: the scores of a query and the query.
const SHARED: usize = 50_000;

/// Whether the kernels can take these operands.
pub(super) fn can(queries: &Tensor, keys: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> bool {
    let fits = keys.dims()[1] + keys.dims()[2] <= SHARED;
    let there = |m: &Tensor| m.device().same_device(queries.device());
    fits && takes(&[queries, keys, v]) && mask.is_none_or(there)
}

pub(super) fn additive(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    output: Output,
) -> Result<Tensor> {
    // Scores know no mask.
    let mask = mask.filter(|_| output != Output::Scores);
    let mask = mask.map(Tensor::contiguous).transpose()?;
    apply1(AdditiveOp { mask, output }, &[queries, keys, v])
}

/// `q (b, t, d)`, `k (b, s, d)` and `v (d)` to `(b, t, s)`.
struct AdditiveOp {
    /// u8, `(b, s)` or `(b, t, s)`.
    mask: Option<Tensor>,
    output: Output,
}

impl AdditiveOp {
    /// A launch with the operands and the mask.
    fn launch<'a>(&'a self, kernel: &str, x: &'a [Tensor]) -> Launch<'a> {
        let launch = Launch::new("additive", format!("additive_{kernel}"));
        launch.tensor(&x[0]).tensor(&x[1]).tensor(&x[2]).optional(self.mask.as_ref())
    }

    fn run(&self, launch: Launch<'_>, x: &[Tensor], output: Option<Output>) -> Result<()> {
        let ((_, t, d), s) = (x[0].dims3()?, x[1].dim(1)?);
        let mask_rows = self.mask.as_ref().map_or(1, |m| if m.rank() == 3 { t } else { 1 });
        let launch = launch.int(t)?.int(s)?.int(d)?.int(mask_rows)?;
        let launch = match output {
            Some(output) => launch.int(output as usize)?,
            None => launch,
        };
        launch.run(x[0].device())
    }
}

/// Threads for a column each.
fn threads(d: usize) -> usize {
    d.next_multiple_of(32).min(256)
}

impl DeviceOp for AdditiveOp {
    const NAME: &'static str = "additive_attention";
    const HALF: bool = false;

    fn forward(&self, x: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let ((b, t, d), s) = (x[0].dims3()?, x[1].dim(1)?);
        let y = empty((b, t, s), DType::F32, x[0].device())?;
        let launch = self.launch("forward", x).tensor(&y);
        let threads = (s * 32).min(256);
        let launch = launch.grid(b * t, 1, 1).block(threads).shared(4 * (s + d));
        self.run(launch, x, Some(self.output))?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None; 3]) };
        let (x, y) = (pass.inputs, &pass.outputs[0]);
        let ((b, t, d), s) = (x[0].dims3()?, x[1].dim(1)?);
        let de = empty_like(dy)?;
        let new = |i: usize| pass.wanted[i].then(|| empty_like(&x[i])).transpose();
        let (d_queries, d_keys) = (new(0)?, new(1)?);
        // One row of v's gradient a query.
        let rows = || empty((b * t, d), DType::F32, dy.device());
        let parts = pass.wanted[2].then(rows).transpose()?;
        let launch = self.launch("backward_queries", x).tensor(y).tensor(dy).tensor(&de);
        let launch = launch.optional(d_queries.as_ref()).optional(parts.as_ref());
        let launch = launch.grid(b * t, 1, 1).block(threads(d)).shared(4 * s);
        self.run(launch, x, Some(self.output))?;
        if let Some(d_keys) = &d_keys {
            let launch = self.launch("backward_keys", x).tensor(&de).tensor(d_keys);
            self.run(launch.grid(b * s, 1, 1).block(threads(d)), x, None)?;
        }
        let d_v = parts.map(|parts| column_sums(&parts, DType::F32)).transpose()?;
        Ok(vec![d_queries, d_keys, d_v])
    }
}
