//! The definition, in ordinary candle operations.

use candle_core::{D, DType, Result, Tensor};

/// Plain twin of [`super::softmax`].
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    if xs.elem_count() == 0 {
        return Ok(xs.clone());
    }
    let (max, _) = max_and_live(xs)?;
    let e = xs.broadcast_sub(&max)?.exp()?;
    let sum = e.sum_keepdim(D::Minus1)?;
    // A row with nothing in it divides by one.
    let empty = sum.eq(0f64)?.to_dtype(xs.dtype())?;
    e.broadcast_div(&(sum + empty)?)
}

/// Plain twin of [`super::masked_softmax`].
pub fn masked_softmax(xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mask = mask.to_dtype(DType::U8)?.contiguous()?;
    softmax(&mask.where_cond(xs, &lowest(xs)?)?)
}

/// Plain twin of [`super::log_softmax`].
pub fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    if xs.elem_count() == 0 {
        return Ok(xs.clone());
    }
    let (max, live) = max_and_live(xs)?;
    let shifted = xs.broadcast_sub(&max)?;
    let sum = shifted.exp()?.sum_keepdim(D::Minus1)?;
    let empty = sum.eq(0f64)?.to_dtype(xs.dtype())?;
    let log_p = shifted.broadcast_sub(&(sum + empty)?.log()?)?;
    // Cuts a row with nothing in it from the graph.
    live.broadcast_as(xs.shape())?.where_cond(&log_p, &lowest(xs)?)
}

/// The largest score of each row, 0 for a row of `-inf`, and whether the row is another. The maximum is a constant shift: cutting
/// it from the graph leaves the gradient exact.
fn max_and_live(xs: &Tensor) -> Result<(Tensor, Tensor)> {
    let max = xs.detach().max_keepdim(D::Minus1)?;
    let live = max.ne(f64::NEG_INFINITY)?;
    Ok((live.where_cond(&max, &max.zeros_like()?)?, live))
}

fn lowest(xs: &Tensor) -> Result<Tensor> {
    Tensor::full(f32::NEG_INFINITY, xs.shape(), xs.device())?.to_dtype(xs.dtype())
}
