//! The policy gradient of REINFORCE (R. J. Williams, Machine Learning 8, 1992) for hard decisions.

mod cpu;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// A loss whose gradient is that of expected returns: `Σ_i -A_i log π_i(a_i) - c H(π_i)` over the rows of `logits (n, actions)`, with `π_i = softmax`,
/// the action taken, `a_i = chosen[i]`, its advantage `A_i` (the return less a baseline, a constant) and the weight `c` of the entropy `H`. A row of one logit z decides between 0
/// and 1 with `π(1) = σ(z)`. What is forbidden has a logit so low that its probability is 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::policy_gradient::policy_gradient;
/// let logits = Tensor::new(&[[0f32, 0.]], &Device::Cpu)?;
/// let loss = policy_gradient(&logits, &[1], &[2.], 0.)?;
/// assert!((loss.to_scalar::<f32>()? - 2. * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the numbers of rows differ, or there is no such action.
pub fn policy_gradient(
    logits: &Tensor,
    chosen: &[usize],
    advantages: &[f64],
    entropy: f64,
) -> Result<Tensor> {
    let (n, actions) = logits.dims2()?;
    if chosen.len() != n || advantages.len() != n {
        let (chosen, advantages) = (chosen.len(), advantages.len());
        bail!(
            "policy gradient: expected {n} actions and advantages, got {chosen} and {advantages}"
        );
    }
    if let Some(action) = chosen.iter().find(|&&action| action >= actions.max(2)) {
        bail!("policy gradient: expected one of {} actions, got {action}", actions.max(2));
    }
    if n * actions == 0 || !fused::takes(&[logits]) {
        return plain::policy_gradient(logits, chosen, advantages, entropy);
    }
    let op = cpu::PolicyOp { chosen: chosen.to_vec(), advantages: advantages.to_vec(), entropy };
    fused::apply1(op, &[logits])
}
