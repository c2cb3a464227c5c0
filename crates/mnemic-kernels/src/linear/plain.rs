//! The definitions, in ordinary candle operations.

use candle_core::{Result, Tensor};

/// Plain twin of [`super::linear`].
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (o, i) = weight.dims2()?;
    let rows = xs.elem_count() / i.max(1);
    let mut dims = xs.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = o;
    }
    // (…, o); candle's product refuses operands without elements.
    let ys = if xs.elem_count() == 0 || o == 0 {
        Tensor::zeros(dims, xs.dtype(), xs.device())?
    } else {
        xs.reshape((rows, i))?.matmul(&weight.t()?)?.reshape(dims)?
    };
    match bias {
        Some(bias) => ys.broadcast_add(bias),
        None => Ok(ys),
    }
}

/// Plain twin of [`super::column_sum`].
pub fn column_sum(xs: &Tensor) -> Result<Tensor> {
    let mut xs = xs.clone();
    while xs.rank() > 1 {
        xs = xs.sum(0)?;
    }
    Ok(xs)
}
