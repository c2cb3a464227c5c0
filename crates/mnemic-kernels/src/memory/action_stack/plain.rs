use candle_core::{Result, Tensor};

use super::{EMPTY, Step, Structure, Weights};
use crate::{activation, softmax};

/// Plain twin of [`super::update`].
pub fn update(
    structure: Structure,
    cells: &Tensor,
    actions: &Tensor,
    values: &Tensor,
    capacity: usize,
    visible: usize,
) -> Result<Step> {
    let (b, s, n) = cells.dims3()?;
    let m = structure.cells_after(n, capacity);
    let head = structure.head(m);
    let empty =
        |count: usize| Tensor::full(EMPTY, (b, s, count), cells.device())?.to_dtype(cells.dtype());
    // Where the old cell of the new place 0 lies among the old ones, with two empty cells before them and enough behind.
    let start = 2 + structure.head(n) - head;
    let wide = Tensor::cat(&[&empty(2)?, cells, &empty(m + 3)?], 2)?;
    let moved = |by: usize| wide.narrow(2, start + by - 1, m); // 0: from the left, 1: from here, 2: from the right
    let (left, here, right) = (moved(0)?, moved(1)?, moved(2)?);
    let action = |i: usize| actions.narrow(2, i, 1);
    let blend = |action: Tensor, cells: &Tensor| cells.broadcast_mul(&action);
    let value = values.unsqueeze(2)?;
    let (written, no_op, mut out) = match structure {
        // PUSH moves all cells down.
        Structure::Stack => (over(&left, &value, head)?, 2, blend(action(1)?, &right)?),
        Structure::List => {
            let turned = (blend(action(1)?, &left)? + blend(action(2)?, &right)?)?;
            // INSERT moves the cells on the left and what was under the head.
            let before = right.narrow(2, 0, head)?;
            let after = here.narrow(2, head, m - head)?;
            (over(&Tensor::cat(&[before, after], 2)?, &value, head)?, 3, turned)
        }
    };
    out = (out + blend(action(0)?, &written)?)?;
    if actions.dim(2)? > no_op {
        out = (out + blend(action(no_op)?, &here)?)?;
    }
    let first = (m + head).checked_add_signed(structure.first_visible(visible)).unwrap_or(0);
    let around = Tensor::cat(&[&empty(m)?, &out, &empty(visible)?], 2)?;
    Ok(Step { visible: around.narrow(2, first, visible)?.contiguous()?, cells: out })
}

/// `cells` with `value` in place of cell `at`.
fn over(cells: &Tensor, value: &Tensor, at: usize) -> Result<Tensor> {
    let rest = cells.dim(2)? - at - 1;
    Tensor::cat(&[&cells.narrow(2, 0, at)?, value, &cells.narrow(2, at + 1, rest)?], 2)
}

/// Plain twin of [`super::scan`]: step by step.
pub fn scan(
    structure: Structure,
    embedded: &Tensor,
    weights: Weights<'_>,
    capacity: usize,
    visible: usize,
) -> Result<Tensor> {
    let (b, t, _) = embedded.dims3()?;
    let s = weights.push.dim(0)?;
    let a = weights.actions.dim(0)? / s;
    let empty =
        |dims: &[usize]| Tensor::full(EMPTY, dims, embedded.device())?.to_dtype(embedded.dtype());
    let through = |x: &Tensor, w: &Tensor| x.matmul(&w.t()?);
    let mut cells = empty(&[b, s, structure.first_cells()])?;
    let mut seen = empty(&[b, s * visible])?;
    let mut all: Vec<Tensor> = Vec::with_capacity(t);
    for step in 0..t {
        let mut sum =
            (embedded.narrow(1, step, 1)?.squeeze(1)? + through(&seen, weights.visible)?)?;
        if let (Some(recurrent), Some(before)) = (weights.recurrent, all.last()) {
            sum = (sum + through(before, recurrent)?)?;
        }
        let hidden = activation::plain::sigmoid(&sum)?; // (b, m)
        let actions = through(&hidden, weights.actions)?.reshape((b, s, a))?;
        let actions = softmax::plain::softmax(&actions)?;
        let values = activation::plain::sigmoid(&through(&hidden, weights.push)?)?;
        let next = update(structure, &cells, &actions, &values, capacity, visible)?;
        (cells, seen) = (next.cells, next.visible.reshape((b, s * visible))?);
        all.push(hidden);
    }
    Tensor::stack(&all, 1)
}
