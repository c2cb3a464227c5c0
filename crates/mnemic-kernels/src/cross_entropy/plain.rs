//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use super::{CrossEntropy, IGNORE, Reduction};
use crate::softmax::log_softmax;

pub(super) fn cross_entropy(
    logits: &Tensor,
    targets: &[i64],
    options: &CrossEntropy,
) -> Result<Tensor> {
    let (n, c) = logits.dims2()?;
    let (device, dtype) = (logits.device(), logits.dtype());
    let class_weights = match &options.class_weights {
        Some(w) => w.to_dtype(dtype)?,
        None => Tensor::ones(c, dtype, device)?,
    };
    let kept: Vec<f64> = targets.iter().map(|&y| if y == IGNORE { 0. } else { 1. }).collect();
    let kept = Tensor::from_vec(kept, n, device)?.to_dtype(dtype)?;
    let ids: Vec<u32> = targets.iter().map(|&y| if y == IGNORE { 0 } else { y as u32 }).collect();
    let ids = Tensor::from_vec(ids, n, device)?;
    let row_weights = (class_weights.index_select(&ids, 0)? * kept.clone())?; // (n)

    let log_p = log_softmax(logits)?; // (n, c)
    let picked = log_p.gather(&ids.unsqueeze(1)?, 1)?.squeeze(1)?; // (n)
    let hard = (picked * &row_weights)?;
    let smoothing = options.label_smoothing;
    let mut loss = (hard * -(1. - smoothing))?;
    if smoothing > 0. {
        let all = log_p.broadcast_mul(&class_weights)?.sum(1)?;
        loss = (loss - ((all * kept)? * (smoothing / c as f64))?)?;
    }
    match options.reduction {
        Reduction::None => Ok(loss),
        Reduction::Sum => loss.sum_all(),
        Reduction::Mean => loss.sum_all()? / row_weights.sum_all()?,
    }
}
