//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use crate::softmax::plain::log_softmax;

/// Plain twin of [`super::policy_gradient`].
pub fn policy_gradient(
    logits: &Tensor,
    chosen: &[usize],
    advantages: &[f64],
    entropy: f64,
) -> Result<Tensor> {
    let (n, actions) = logits.dims2()?;
    let logits = match actions {
        1 => Tensor::cat(&[logits.zeros_like()?, logits.clone()], 1)?,
        _ => logits.contiguous()?,
    };
    let logs = log_softmax(&logits)?;
    let actions = logits.dim(1)?;
    let mut factors = vec![0f64; n * actions];
    for (i, (&action, &advantage)) in chosen.iter().zip(advantages).enumerate() {
        factors[i * actions + action] = -advantage;
    }
    let factors = Tensor::from_vec(factors, (n, actions), logits.device())?;
    let taken = (&logs * factors.to_dtype(logits.dtype())?)?.sum_all()?;
    // What is never done has no entropy: its logarithm is kept from being infinite.
    let spread = (logs.exp()? * logs.maximum(-1e30)?)?.sum_all()?;
    taken + (spread * entropy)?
}
