//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use super::{CrossEntropy, IGNORE, Reduction};
use crate::softmax::plain::log_softmax;

/// Plain twin of [`super::cross_entropy`].
pub fn cross_entropy(logits: &Tensor, targets: &[i64], options: &CrossEntropy) -> Result<Tensor> {
    let (n, c) = logits.dims2()?;
    let (device, dtype) = (logits.device(), logits.dtype());
    if n == 0 {
        let zero = logits.sum_all()?;
        return match options.reduction {
            Reduction::None => logits.sum(1),
            Reduction::Sum => Ok(zero),
            Reduction::Mean => zero / 0.,
        };
    }
    let class_weights = match &options.class_weights {
        Some(w) => w.detach().to_dtype(dtype)?,
        None => Tensor::ones(c, dtype, device)?,
    };
    let kept: Vec<u8> = targets.iter().map(|&y| u8::from(y != IGNORE)).collect();
    let kept = Tensor::from_vec(kept, n, device)?;
    let ids: Vec<u32> = targets.iter().map(|&y| if y == IGNORE { 0 } else { y as u32 }).collect();
    let ids = Tensor::from_vec(ids, n, device)?;
    let row_weights = class_weights.index_select(&ids, 0)?; // (n)

    let log_p = log_softmax(logits)?; // (n, c)
    let picked = log_p.gather(&ids.unsqueeze(1)?, 1)?.squeeze(1)?; // (n)
    let hard = (picked * &row_weights)?;
    let smoothing = options.label_smoothing;
    let mut loss = (hard * -(1. - smoothing))?;
    if smoothing > 0. {
        let all = log_p.broadcast_mul(&class_weights)?.sum(1)?;
        loss = (loss - (all * (smoothing / c as f64))?)?;
    }
    // Chosen, not multiplied by zero: the loss of an ignored row may be infinite.
    let loss = kept.where_cond(&loss, &loss.zeros_like()?)?;
    match options.reduction {
        Reduction::None => Ok(loss),
        Reduction::Sum => loss.sum_all(),
        Reduction::Mean => loss.sum_all()? / (row_weights * kept.to_dtype(dtype)?)?.sum_all()?,
    }
}

/// Plain twin of [`super::linear_cross_entropy`].
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    targets: &[i64],
    options: &CrossEntropy,
) -> Result<Tensor> {
    let mut logits = hidden.matmul(&weight.t()?)?; // (n, v)
    if let Some(bias) = bias {
        logits = logits.broadcast_add(bias)?;
    }
    cross_entropy(&logits, targets, options)
}
