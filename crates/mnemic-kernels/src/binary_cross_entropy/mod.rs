//! Binary cross-entropy of logits.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::cross_entropy::Reduction;
use crate::fused;

/// Binary cross-entropy of `logits` with `targets` in `[0, 1]` of the same shape and type:
/// `-y log σ(x) - (1 - y) log(1 - σ(x)) = max(x, 0) - x y + log(1 + exp(-|x|))`, which overflows nowhere. The mean is over all elements;
/// without reduction there is one loss an element. Targets that are tracked get their gradient `-x`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::{binary_cross_entropy::bce_with_logits, cross_entropy::Reduction};
/// let logits = Tensor::new(&[-200f32, 0.], &Device::Cpu)?;
/// let targets = Tensor::new(&[1f32, 1.], &Device::Cpu)?;
/// let losses = bce_with_logits(&logits, &targets, Reduction::None)?.to_vec1::<f32>()?;
/// assert_eq!(losses[0], 200.);
/// assert!((losses[1] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes differ.
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor, reduction: Reduction) -> Result<Tensor> {
    if logits.dims() != targets.dims() {
        bail!("bce_with_logits: expected targets {:?}, got {:?}", logits.dims(), targets.dims());
    }
    if fused::takes(&[logits, targets]) {
        return fused::apply1(cpu::BceOp(reduction), &[logits, targets]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[logits, targets]) {
        return crate::cuda::apply1(cuda::BceOp(reduction), &[logits, targets]);
    }
    plain::bce_with_logits(logits, targets, reduction)
}
