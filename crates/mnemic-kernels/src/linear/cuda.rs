//! The CUDA path: products by cuBLAS on the operands as they lie, and the bias added in place.

use candle_core::{DType, Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, aligned, blocks, empty, suffix, sum_parts, zeros};

/// Operands: `(…, i)`, `(o, i)` and perhaps `(o)`.
pub(super) struct LinearOp;

/// A tensor of rows of its last axis.
fn rows(t: &Tensor) -> Result<Tensor> {
    let width = t.dims().last().copied().unwrap_or(1);
    t.reshape((t.elem_count() / width, width))
}

/// `y += bias`, for rows of `bias`'s width.
fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let (rows, width) = y.dims2()?;
    let pack = 16 / y.dtype().size_in_bytes();
    let packed = width.is_multiple_of(pack) && aligned(bias, 16);
    let (width, end) = if packed { (width / pack, "_packed") } else { (width, "") };
    Launch::new("linear", format!("linear_bias_{}{end}", suffix(y.dtype())?))
        .grid(blocks(rows * width), 1, 1)
        .block(256)
        .tensor(y)
        .tensor(bias)
        .int(rows)?
        .int(width)?
        .run(y.device())
}

/// Up to so many rows are summed in one go; more in parts of so many, and those in turn.
const ROWS: usize = 2048;

/// The sums of the columns of a matrix.
pub(crate) fn sum_columns(x: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let y = empty(width, x.dtype(), x.device())?;
    let many = rows > ROWS;
    // No more parts than a grid can have and the second sum likes.
    let per_block = if many { (ROWS / 8).max(rows.div_ceil(4096)) } else { rows };
    let count = rows.div_ceil(per_block);
    let parts = many.then(|| empty((count, width), DType::F32, x.device())).transpose()?;
    Launch::new("linear", format!("linear_columns_{}", suffix(x.dtype())?))
        .grid(width.div_ceil(32), count, 1)
        .block(1024)
        .tensor(x)
        .tensor(&y)
        .optional(parts.as_ref())
        .int(rows)?
        .int(width)?
        .int(per_block)?
        .run(x.device())?;
    if let Some(parts) = &parts {
        sum_parts(parts, &[&y])?;
    }
    Ok(y)
}

impl DeviceOp for LinearOp {
    const NAME: &'static str = "linear";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let y = rows(&inputs[0])?.matmul(&inputs[1].t()?)?;
        if let Some(bias) = inputs.get(2) {
            add_bias(&y, bias)?;
        }
        let mut dims = inputs[0].dims().to_vec();
        if let (Some(last), Some(o)) = (dims.last_mut(), inputs[1].dims().first()) {
            *last = *o;
        }
        Ok((vec![y.reshape(dims)?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        let dy = rows(dy)?;
        let mut all = Vec::with_capacity(3);
        all.push(if pass.wanted[0] { Some(dy.matmul(&pass.inputs[1])?) } else { None });
        let d_weight = || dy.t()?.matmul(&rows(&pass.inputs[0])?);
        all.push(if pass.wanted[1] { Some(d_weight()?) } else { None });
        if let Some(&wanted) = pass.wanted.get(2) {
            all.push(if wanted { Some(sum_columns(&dy)?) } else { None });
        }
        Ok(all)
    }
}

/// Operand: `(…, o)`.
pub(super) struct ColumnSumOp;

impl DeviceOp for ColumnSumOp {
    const NAME: &'static str = "column_sum";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        Ok((vec![sum_columns(&rows(&inputs[0])?)?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None]) };
        let x = rows(&pass.inputs[0])?;
        let dx = zeros(x.shape(), x.dtype(), x.device())?;
        add_bias(&dx, dy)?;
        Ok(vec![Some(dx)])
    }
}
