//! Normalization of rows (the last axis): layer norm and RMS norm, with an optional affine map.
//!
//! Only the statistics of a row are kept for the backward pass.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;
use cpu::NormOp;

/// Layer normalization over the last axis (Ba et al. 2016, section 3): `y = (x - μ) / √(σ² + eps) ∘ weight + bias`, with mean `μ` and
/// biased variance `σ²` of each row. `xs` is `(…, d)`, weight and bias are `(d)`.
///
/// The mean is corrected by the mean of what remains after subtracting it, so that rows far from zero keep their accuracy. With `eps = 0` a
/// constant row is `0 / 0`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[1f64, 3.], [10., 20.]], &Device::Cpu)?;
/// let y = mnemic_kernels::normalization::layer_norm(&xs, None, None, 0.)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[-1., 1.], [-1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` is a scalar, weight or bias is not `(d)`, or `eps` is negative or not finite.
pub fn layer_norm(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    check("layer_norm", xs, [("weight", weight), ("bias", bias)], eps)?;
    let mut operands = vec![xs];
    operands.extend(weight.into_iter().chain(bias));
    if fused::takes(&operands) {
        let (weight, bias) = (weight.is_some(), bias.is_some());
        return fused::apply1(NormOp { centred: true, weight, bias, eps }, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) {
        let (weight, bias) = (weight.is_some(), bias.is_some());
        let op = cuda::NormOp(NormOp { centred: true, weight, bias, eps });
        return crate::cuda::apply1(op, &operands);
    }
    plain::layer_norm(xs, weight, bias, eps)
}

/// Root mean square normalization over the last axis (Zhang and Sennrich 2019, eq. 4): `y = x / √(mean(x²) + eps) ∘ weight`. `xs` is
/// `(…, d)`, the weight is `(d)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[3f64, 3., -3., 3.]], &Device::Cpu)?;
/// let y = mnemic_kernels::normalization::rms_norm(&xs, None, 0.)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[1., 1., -1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(xs: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    check("rms_norm", xs, [("weight", weight), ("bias", None)], eps)?;
    let mut operands = vec![xs];
    operands.extend(weight);
    if fused::takes(&operands) {
        let op = NormOp { centred: false, weight: weight.is_some(), bias: false, eps };
        return fused::apply1(op, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) {
        let op =
            cuda::NormOp(NormOp { centred: false, weight: weight.is_some(), bias: false, eps });
        return crate::cuda::apply1(op, &operands);
    }
    plain::rms_norm(xs, weight, eps)
}

fn check(op: &str, xs: &Tensor, affine: [(&str, Option<&Tensor>); 2], eps: f64) -> Result<()> {
    let Some(&d) = xs.dims().last() else {
        bail!("{op}: expected at least one axis, got a scalar");
    };
    for (name, operand) in affine {
        if let Some(operand) = operand
            && operand.dims() != [d]
        {
            bail!("{op}: expected a {name} ({d}), got {:?}", operand.dims());
        }
    }
    if !(eps >= 0. && eps.is_finite()) {
        bail!("{op}: eps must be finite and not negative, got {eps}");
    }
    Ok(())
}
