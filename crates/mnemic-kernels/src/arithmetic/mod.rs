//! Sums of two tensors and products with a number, as fused operations: a graph of fused operations alone is walked backwards
//! without candle (see [`crate::backward`]), and residual connections are everywhere.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// `a + b`, where `b` has the shape of `a` or of its last axes: then it is added to each of the rows that they make.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let b = Tensor::new(&[10f32, 20.], &Device::Cpu)?;
/// let sum = mnemic_kernels::arithmetic::add(&a, &b)?;
/// assert_eq!(sum.to_vec2::<f32>()?, [[11., 22.], [13., 24.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.dims().ends_with(b.dims()) {
        bail!("add: expected {:?} or its last axes, got {:?}", a.dims(), b.dims());
    }
    if fused::takes(&[a, b]) && a.elem_count() > 0 {
        return fused::apply1(cpu::AddOp, &[a, b]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[a, b]) {
        return crate::cuda::apply1(cuda::AddOp, &[a, b]);
    }
    plain::add(a, b)
}

/// `factor · x`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[1f32, -2.], &Device::Cpu)?;
/// assert_eq!(mnemic_kernels::arithmetic::scale(&x, 3.)?.to_vec1::<f32>()?, [3., -6.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Those of candle's product.
pub fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
    if fused::takes(&[x]) {
        return fused::apply1(cpu::ScaleOp(factor), &[x]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[x]) {
        return crate::cuda::apply1(cuda::ScaleOp(factor), &[x]);
    }
    plain::scale(x, factor)
}

/// `g ∘ a + (1 - g) ∘ b`, all of one shape: what a gate lets through.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let gate = Tensor::new(&[1f32, 0.25], &Device::Cpu)?;
/// let (a, b) = (Tensor::new(&[4f32, 4.], &Device::Cpu)?, Tensor::new(&[8f32, 8.], &Device::Cpu)?);
/// let y = mnemic_kernels::arithmetic::interpolate(&gate, &a, &b)?;
/// assert_eq!(y.to_vec1::<f32>()?, [4., 7.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes differ, naming them.
pub fn interpolate(gate: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if gate.dims() != a.dims() || gate.dims() != b.dims() {
        let (a, b) = (a.dims(), b.dims());
        bail!("interpolate: expected two of {:?}, got {a:?} and {b:?}", gate.dims());
    }
    match fused::takes(&[gate, a, b]) {
        true => fused::apply1(cpu::InterpolateOp, &[gate, a, b]),
        false => plain::interpolate(gate, a, b),
    }
}

/// The definitions, in ordinary candle operations.
pub mod plain {
    use super::*;

    /// Plain twin of [`super::add`].
    pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.broadcast_add(b)
    }

    /// Plain twin of [`super::scale`].
    pub fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
        x.affine(factor, 0.)
    }

    /// Plain twin of [`super::interpolate`].
    pub fn interpolate(gate: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        (gate * a)? + ((1. - gate)? * b)?
    }
}
