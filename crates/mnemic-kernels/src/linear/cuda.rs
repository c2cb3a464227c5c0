//! The CUDA path: products by cuBLAS on the operands as they lie, and the bias added in place.

use candle_core::{Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, aligned, blocks, column_sums, suffix, zeros};

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
            all.push(if wanted { Some(column_sums(&dy, dy.dtype())?) } else { None });
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
        Ok((vec![column_sums(&inputs[0], inputs[0].dtype())?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None]) };
        let x = rows(&pass.inputs[0])?;
        let dx = zeros(x.shape(), x.dtype(), x.device())?;
        add_bias(&dx, dy)?;
        Ok(vec![Some(dx)])
    }
}
