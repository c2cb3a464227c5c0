use candle_core::{Result, Tensor};

use super::{EMPTY, Step, Structure};

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
