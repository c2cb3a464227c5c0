//! Softmax with masks, over the last axis.
//!
//! `p_i = m_i exp(x_i - max_j x_j) / Σ_k m_k exp(x_k - max_j x_j)` with a mask `m` of zeros and ones, the maximum over the
//! unmasked places only. Masked places get exactly 0 and no gradient; a wholly masked row is all zeros, never NaN.

mod plain;

use candle_core::{Result, Tensor, bail};

/// Softmax over the last axis of `xs` (any rank).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let p = mnemic_kernels::softmax::softmax(&Tensor::new(&[[0f32, 0.]], &Device::Cpu)?)?;
/// assert_eq!(p.to_vec2::<f32>()?, [[0.5, 0.5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    plain::softmax(xs)
}

/// Softmax over the last axis where `mask` (u8, same shape as `xs`) is 1.
///
/// # Errors
/// When the shapes differ.
pub fn masked_softmax(xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    if xs.dims() != mask.dims() {
        bail!("masked_softmax: scores are {:?}, the mask is {:?}", xs.dims(), mask.dims());
    }
    plain::masked_softmax(xs, mask)
}

/// Log-softmax over the last axis.
pub fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    plain::log_softmax(xs)
}
