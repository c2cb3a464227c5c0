//! Element-wise functions with their backward pass, each one pass over memory in either direction.
//!
//! Nothing is saved beside the operand and the result, which candle's graph holds anyway: a backward pass reads the
//! result where that gives the derivative without another exponential (tanh, sigmoid, ReLU), else the operand. The limits at
//! ±infinity come out right, without NaN.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{D, Result, Tensor, bail};

use crate::fused;

fn apply<A: cpu::Activation>(
    xs: &Tensor,
    activation: A,
    plain: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if fused::takes(&[xs]) {
        return fused::apply1(cpu::ActivationOp(activation), &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::ActivationOp(activation), &[xs]);
    }
    plain(xs)
}

/// `tanh(x)`, any shape.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::tanh(&Tensor::new(&[0f32, 20., -20.], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 1., -1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn tanh(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::Tanh, plain::tanh)
}

/// `σ(x) = 1 / (1 + e^{-x})`, any shape.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::sigmoid(&Tensor::new(&[0f32, 1e4, -1e4], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0.5, 1., 0.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::Sigmoid, plain::sigmoid)
}

/// GELU (Hendrycks and Gimpel 2016), exact: `x Φ(x)` with the normal distribution function `Φ(x) = (1 + erf(x/√2)) / 2`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::gelu(&Tensor::new(&[0f64, 1.], &Device::Cpu)?)?;
/// assert!((y.to_vec1::<f64>()?[1] - 0.841344746068543).abs() < 1e-14);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::Gelu, plain::gelu)
}

/// GELU, tanh approximation (Hendrycks and Gimpel 2016): `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`. GPT-2 uses it.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::gelu_tanh(&Tensor::new(&[0f64, 1.], &Device::Cpu)?)?;
/// assert!((y.to_vec1::<f64>()?[1] - 0.8411919906082768).abs() < 1e-14);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gelu_tanh(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::GeluTanh, plain::gelu_tanh)
}

/// SiLU, also called swish: `x σ(x)`, any shape.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::silu(&Tensor::new(&[0f32, 100., -1e4], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 100., 0.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn silu(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::Silu, plain::silu)
}

/// `ln(1 + e^x)`, any shape, without overflow.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::softplus(&Tensor::new(&[0f64, 1e4], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f64>()?, [std::f64::consts::LN_2, 1e4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softplus(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::Softplus, plain::softplus)
}

/// `max(x, 0)`, any shape. The derivative at 0 is 0, as in PyTorch (candle's is 1).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::relu(&Tensor::new(&[-1f32, 0., 2.], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 0., 2.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn relu(xs: &Tensor) -> Result<Tensor> {
    apply(xs, cpu::Relu, plain::relu)
}

/// The gated linear unit (Dauphin et al. 2017): the halves `a`, `b` of the last axis to `a ∘ σ(b)`; (…, 2n) to (…, n).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::glu(&Tensor::new(&[3f32, 4., 0., 100.], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [1.5, 4.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the last axis is odd or missing.
pub fn glu(xs: &Tensor) -> Result<Tensor> {
    if xs.rank() == 0 || xs.dim(D::Minus1)? % 2 != 0 {
        bail!("glu: expected a last axis of even size, got {:?}", xs.dims());
    }
    if fused::takes(&[xs]) {
        return fused::apply1(cpu::GluOp, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::GluOp, &[xs]);
    }
    plain::glu(xs)
}
