//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use crate::cross_entropy::Reduction;

/// Plain twin of [`super::bce_with_logits`].
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor, reduction: Reduction) -> Result<Tensor> {
    // `max(x, 0) = (x + |x|) / 2`, whose derivative at 0 is 1/2: with that of the logarithm, σ(0).
    let positive = ((logits + logits.abs()?)? * 0.5)?;
    let soft = (logits.abs()?.neg()?.exp()? + 1.)?.log()?;
    let losses = ((positive - (logits * targets)?)? + soft)?;
    match reduction {
        Reduction::Mean => losses.mean_all(),
        Reduction::Sum => losses.sum_all(),
        Reduction::None => Ok(losses),
    }
}
