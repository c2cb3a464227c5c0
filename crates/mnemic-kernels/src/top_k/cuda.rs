//! The CUDA path: a block a row. Where the chosen do not fit into shared memory, the plain twin sorts them on the host.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, THREADS, empty, suffix, zeros};

/// Elements that can be chosen of a row.
pub(super) const MOST: usize = 16 << 10;

/// Operand: (…, n).
pub(super) struct TopKOp {
    /// From 1 to [`MOST`].
    pub(super) k: usize,
    /// The indices in their rows, (…, k), set by the forward pass.
    pub(super) chosen: Arc<OnceLock<Tensor>>,
}

impl DeviceOp for TopKOp {
    const NAME: &'static str = "top_k";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let n = x.dims().last().copied().unwrap_or(1);
        let mut dims = x.dims().to_vec();
        dims[x.rank() - 1] = self.k;
        let values = empty(dims.as_slice(), x.dtype(), x.device())?;
        let indices = empty(dims, DType::U32, x.device())?;
        let size = self.k.next_power_of_two();
        let threads = n.div_ceil(4).next_multiple_of(32).min(512);
        let name = format!("top_k_select_{}", suffix(x.dtype())?);
        let launch = Launch::new("top_k", name).grid(x.elem_count() / n, 1, 1).block(threads);
        let launch = launch.shared(8 * size).tensor(x).tensor(&values).tensor(&indices);
        launch.int(n)?.int(self.k)?.int(size)?.run(x.device())?;
        // Only the first forward pass of an operation counts, and there is one.
        self.chosen.get_or_init(|| indices);
        Ok((vec![values], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (x, Some(dy), Some(indices)) = (&pass.inputs[0], &pass.grads[0], self.chosen.get())
        else {
            return Ok(vec![None]);
        };
        let n = x.dims().last().copied().unwrap_or(1);
        let dx = zeros(x.shape(), x.dtype(), x.device())?;
        let name = format!("top_k_scatter_{}", suffix(x.dtype())?);
        let blocks = dy.elem_count().div_ceil(THREADS);
        let launch = Launch::new("top_k", name).grid(blocks, 1, 1).block(THREADS);
        let launch = launch.tensor(indices).tensor(dy).tensor(&dx);
        launch.int(x.elem_count() / n)?.int(n)?.int(self.k)?.run(x.device())?;
        Ok(vec![Some(dx)])
    }
}
