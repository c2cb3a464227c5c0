//! The definition, in ordinary candle operations.

use candle_core::{D, Result, Tensor};

/// Plain twin of [`super::layer_norm`].
pub fn layer_norm(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let centred = xs.broadcast_sub(&xs.mean_keepdim(D::Minus1)?)?;
    let y = rms_norm(&centred, weight, eps)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Plain twin of [`super::rms_norm`].
pub fn rms_norm(xs: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let norm = (xs.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let y = xs.broadcast_div(&norm)?;
    match weight {
        Some(weight) => y.broadcast_mul(weight),
        None => Ok(y),
    }
}
