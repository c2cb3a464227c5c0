//! Softmax with masks, over the last axis.
//!
//! `p_i = m_i exp(x_i - max_j x_j) / Σ_k m_k exp(x_k - max_j x_j)` with a mask `m` of zeros and ones, the maximum over the
//! unmasked places only. Masked places get exactly 0 and no gradient.
//!
//! A row without a finite score (wholly masked, or nothing but `-inf`) is no distribution. It is defined as all zeros, its log-softmax
//! as all `-inf`, and it gets no gradient. A NaN or `+inf` at an unmasked place makes its row NaN.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor, bail};

use crate::fused;
use cpu::{Kind, SoftmaxOp};

/// Softmax over the last axis of `xs` (any rank but 0).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let p = mnemic_kernels::softmax::softmax(&Tensor::new(&[[0f32, 0.]], &Device::Cpu)?)?;
/// assert_eq!(p.to_vec2::<f32>()?, [[0.5, 0.5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` is a scalar.
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    check("softmax", xs)?;
    if fused::takes(&[xs]) {
        return fused::apply1(SoftmaxOp { kind: Kind::Softmax, mask: None }, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::SoftmaxOp { kind: Kind::Softmax, mask: None }, &[xs]);
    }
    plain::softmax(xs)
}

/// Softmax over the last axis where `mask` (u8, same shape as `xs`) is not 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[0f32, 9., 0.], [1., 2., 3.]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0, 1], [0, 0, 0]], &Device::Cpu)?;
/// let p = mnemic_kernels::softmax::masked_softmax(&xs, &mask)?;
/// assert_eq!(p.to_vec2::<f32>()?, [[0.5, 0., 0.5], [0., 0., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes differ or `xs` is a scalar.
pub fn masked_softmax(xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    check("masked_softmax", xs)?;
    if xs.dims() != mask.dims() {
        bail!("masked_softmax: scores are {:?}, the mask is {:?}", xs.dims(), mask.dims());
    }
    if fused::takes(&[xs]) && mask.device().is_cpu() {
        let mask = mask.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
        return fused::apply1(SoftmaxOp { kind: Kind::Softmax, mask: Some(mask) }, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) && mask.device().same_device(xs.device()) {
        let mask = Some(mask.to_dtype(DType::U8)?.contiguous()?);
        return crate::cuda::apply1(cuda::SoftmaxOp { kind: Kind::Softmax, mask }, &[xs]);
    }
    plain::masked_softmax(xs, mask)
}

/// Log-softmax over the last axis of `xs` (any rank but 0).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let log_p = mnemic_kernels::softmax::log_softmax(&Tensor::new(&[3f64, 3.], &Device::Cpu)?)?;
/// assert!((log_p.to_vec1::<f64>()?[0] + 2f64.ln()).abs() < 1e-15);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` is a scalar.
pub fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    check("log_softmax", xs)?;
    if fused::takes(&[xs]) {
        return fused::apply1(SoftmaxOp { kind: Kind::LogSoftmax, mask: None }, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::SoftmaxOp { kind: Kind::LogSoftmax, mask: None }, &[xs]);
    }
    plain::log_softmax(xs)
}

fn check(op: &str, xs: &Tensor) -> Result<()> {
    if xs.rank() == 0 {
        bail!("{op}: expected at least one axis, got a scalar");
    }
    Ok(())
}
