//! The definition, in ordinary candle operations.

use candle_core::{D, DType, Result, Tensor};

pub(super) fn softmax(xs: &Tensor) -> Result<Tensor> {
    // The maximum is a constant shift: cutting it from the graph leaves the gradient exact.
    let max = xs.detach().max_keepdim(D::Minus1)?;
    let e = xs.broadcast_sub(&max)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

pub(super) fn masked_softmax(xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mask = mask.to_dtype(DType::U8)?.contiguous()?;
    let low = Tensor::full(-1e30f32, xs.shape(), xs.device())?.to_dtype(xs.dtype())?;
    let kept = mask.where_cond(xs, &low)?;
    let max = kept.detach().max_keepdim(D::Minus1)?;
    let e = kept.broadcast_sub(&max)?.exp()?.mul(&mask.to_dtype(xs.dtype())?)?;
    let sum = e.sum_keepdim(D::Minus1)?;
    // A row with nothing in it divides by one.
    let empty = sum.eq(0f64)?.to_dtype(xs.dtype())?;
    e.broadcast_div(&(sum + empty)?)
}

pub(super) fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    let max = xs.detach().max_keepdim(D::Minus1)?;
    let shifted = xs.broadcast_sub(&max)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&log_sum)
}
