//! The CUDA path: one block a batch row, one launch in either direction. Memories whose weights do not fit into shared memory go
//! on to the plain twin.

use candle_core::{Result, Tensor, bail};

use super::{Addressed, Content};
use crate::cuda::{DeviceOp, Launch, Pass, apply, empty, empty_like, suffix, takes};

/// The most places: their weights are in shared memory.
const PLACES: usize = 50_000;

/// Whether the kernels can take these operands.
pub(super) fn can(query: &Tensor, keys: &Tensor, values: &Tensor, options: Content<'_>) -> bool {
    let there = |m: &Tensor| m.device().same_device(query.device());
    keys.dims()[1] <= PLACES && takes(&[query, keys, values]) && options.mask.is_none_or(there)
}

pub(super) fn content_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    options: Content<'_>,
) -> Result<Addressed> {
    let absent = options.absent.map(|a| a.iter().map(|x| *x as f32).collect::<Vec<_>>());
    let op = ContentOp {
        mask: options.mask.map(Tensor::contiguous).transpose()?,
        linear: options.linear,
        absent: absent.map(|a| Tensor::new(a, query.device())).transpose()?,
    };
    match <[Tensor; 3]>::try_from(apply(op, &[query, keys, values])?) {
        Ok([scores, weights, output]) => Ok(Addressed { scores, weights, output }),
        Err(_) => bail!("content_attention: internal error: expected three results"),
    }
}

/// `q (b, d)`, `k (b, n, d)` and `v (b, n, d_v)` to the scores `(b, n)`, `p (b, n)` and `o (b, d_v)`.
struct ContentOp {
    /// u8, `(b, n)`.
    mask: Option<Tensor>,
    linear: bool,
    /// f32, `(b)`.
    absent: Option<Tensor>,
}

impl ContentOp {
    fn launch<'a>(&'a self, direction: &str, x: &'a [Tensor]) -> Result<Launch<'a>> {
        let (b, n, _) = x[1].dims3()?;
        let name = format!("content_{direction}_{}", suffix(x[0].dtype())?);
        let launch = Launch::new("content", name).grid(b, 1, 1).block(256).shared(4 * n);
        let launch = launch.tensor(&x[0]).tensor(&x[1]).tensor(&x[2]);
        Ok(launch.optional(self.mask.as_ref()))
    }

    fn run(&self, launch: Launch<'_>, x: &[Tensor]) -> Result<()> {
        let ((_, n, d), (_, _, dv)) = (x[1].dims3()?, x[2].dims3()?);
        launch.int(n)?.int(d)?.int(dv)?.flag(self.linear).run(x[0].device())
    }
}

impl DeviceOp for ContentOp {
    const NAME: &'static str = "content_attention";
    const HALF: bool = true;

    fn forward(&self, x: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let ((b, n, _), (_, _, dv)) = (x[1].dims3()?, x[2].dims3()?);
        let (dtype, device) = (x[0].dtype(), x[0].device());
        let (scores, weights) = (empty((b, n), dtype, device)?, empty((b, n), dtype, device)?);
        let output = empty((b, dv), dtype, device)?;
        let launch = self.launch("forward", x)?.optional(self.absent.as_ref());
        self.run(launch.tensor(&scores).tensor(&weights).tensor(&output), x)?;
        Ok((vec![scores, weights, output], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let wanted = pass.inputs.iter().zip(pass.wanted);
        let grads = wanted.map(|(t, &wanted)| wanted.then(|| empty_like(t)).transpose());
        let grads = grads.collect::<Result<Vec<_>>>()?;
        let mut launch = self.launch("backward", pass.inputs)?.tensor(&pass.outputs[1]);
        for given in pass.grads.iter().chain(&grads) {
            launch = launch.optional(given.as_ref());
        }
        self.run(launch, pass.inputs)?;
        Ok(grads)
    }
}
