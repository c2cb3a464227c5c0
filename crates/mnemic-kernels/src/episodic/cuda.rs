//! The CUDA path: one launch forward; one backward and the sum of what its blocks leave. Too wide ones, whose tiles do not
//! fit into shared memory, go on to the plain twin.

use candle_core::{DType, Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, empty, empty_like, sum_parts_into};

/// The sizes of the kernels' tiles.
const GROUPS: usize = 8;
const TILE: usize = 16;
const DEPTH: usize = 32;
const ROWS: usize = 32;
const STEP: usize = 16;
/// Bytes of shared memory that a block may have.
const SHARED: usize = 224 << 10;
/// Blocks of the backward pass; more batch rows share them.
const BLOCKS: usize = 264;

/// Operands: facts `(b, n, h)`, memory `(b, h)`, fixed `(b, n, u)`, inner `(u, 2h)`, outer `(u)`, bias `(1)`.
pub(super) struct EpisodicOp;

/// Threads along `n` columns, four columns each.
fn columns(n: usize) -> usize {
    n.div_ceil(4).min(32)
}

fn forward_shared(h: usize, u: usize) -> usize {
    let columns = columns(u);
    4 * (TILE * 2 * h.next_multiple_of(4) + DEPTH * (4 * columns + 4) + TILE * columns)
}

fn backward_shared(h: usize, u: usize) -> usize {
    let (hp, width) = (h.next_multiple_of(4), 4 * columns(h));
    4 * (ROWS * (u.next_multiple_of(STEP) + 2 * hp) + STEP * 2 * width + GROUPS * width + hp)
}

/// Whether the tiles fit.
pub(super) fn fits(h: usize, u: usize) -> bool {
    forward_shared(h, u) <= SHARED && backward_shared(h, u) <= SHARED
}

impl DeviceOp for EpisodicOp {
    const NAME: &'static str = "episodic_scores";
    const HALF: bool = false;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let (b, n, h) = inputs[0].dims3()?;
        let u = inputs[4].elem_count();
        let device = inputs[0].device();
        // tanh of the inner layer
        let saved = empty((b, n, u), DType::F32, device)?;
        let scores = empty((b, n), DType::F32, device)?;
        let mut launch = Launch::new("episodic", "episodic_forward")
            .grid((b * n).div_ceil(TILE), 1, 1)
            .block(GROUPS * columns(u))
            .shared(forward_shared(h, u));
        for operand in inputs.iter().chain([&saved, &scores]) {
            launch = launch.tensor(operand);
        }
        launch.int(b * n)?.int(n)?.int(h)?.int(u)?.run(device)?;
        Ok((vec![scores], vec![saved]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let [facts, memory, fixed, inner, outer, bias] = std::array::from_fn(|i| &pass.inputs[i]);
        let (b, n, h) = facts.dims3()?;
        let u = outer.elem_count();
        let Some(grad) = &pass.grads[0] else { return Ok(vec![None; 6]) };
        let grads = pass.inputs.iter().map(empty_like).collect::<Result<Vec<_>>>()?;
        let [d_facts, d_memory, d_fixed, d_inner, d_outer, d_bias] =
            std::array::from_fn(|i| &grads[i]);
        debug_assert!(fixed.dims() == [b, n, u] && bias.dims() == [1]);
        let count = b.min(BLOCKS);
        let parts = empty((count, 2 * h * u + u + 1), DType::F32, facts.device())?;
        let mut launch = Launch::new("episodic", "episodic_backward")
            .grid(count, 1, 1)
            .block(GROUPS * columns(h))
            .shared(backward_shared(h, u));
        let operands = [facts, memory, inner, outer, &pass.saved[0], grad];
        for operand in operands.into_iter().chain([d_facts, d_memory, d_fixed, &parts]) {
            launch = launch.tensor(operand);
        }
        launch.int(b)?.int(n)?.int(h)?.int(u)?.run(facts.device())?;
        sum_parts_into(&parts, &[d_inner, d_outer, d_bias])?;
        Ok(grads.into_iter().map(Some).collect())
    }
}
