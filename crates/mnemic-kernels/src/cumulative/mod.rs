//! Cumulative sums and products over the last axis.
//!
//! candle's `cumsum` is a product with a triangular matrix, quadratic in the length, and it has no `cumprod`. Both take one pass
//! here, in each direction. The gradient of the product divides by nothing, so zeros among the factors do no harm.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// `y_j = Σ_{i≤j} x_i` over the last axis; where `exclusive`, `Σ_{i<j}`, so that `y_0 = 0`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
/// assert_eq!(mnemic_kernels::cumulative::cumsum(&xs, false)?.to_vec1::<f32>()?, [1., 3., 6.]);
/// assert_eq!(mnemic_kernels::cumulative::cumsum(&xs, true)?.to_vec1::<f32>()?, [0., 1., 3.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` is a scalar.
pub fn cumsum(xs: &Tensor, exclusive: bool) -> Result<Tensor> {
    check("cumsum", xs)?;
    if fused::takes(&[xs]) {
        return fused::apply1(cpu::CumsumOp { exclusive }, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::CumsumOp { exclusive }, &[xs]);
    }
    plain::cumsum(xs, exclusive)
}

/// `y_j = Π_{i≤j} x_i` over the last axis; where `exclusive`, `Π_{i<j}`, so that `y_0 = 1`.
///
/// The gradient is `dx_i = Π_{k<i} x_k · r_i` with `r_i = g_i + x_{i+1} r_{i+1}`, linear in the length.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[2f32, 3., 4.], &Device::Cpu)?;
/// assert_eq!(mnemic_kernels::cumulative::cumprod(&xs, false)?.to_vec1::<f32>()?, [2., 6., 24.]);
/// assert_eq!(mnemic_kernels::cumulative::cumprod(&xs, true)?.to_vec1::<f32>()?, [1., 2., 6.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` is a scalar.
pub fn cumprod(xs: &Tensor, exclusive: bool) -> Result<Tensor> {
    check("cumprod", xs)?;
    if fused::takes(&[xs]) {
        return fused::apply1(cpu::CumprodOp { exclusive }, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::CumprodOp { exclusive }, &[xs]);
    }
    plain::cumprod(xs, exclusive)
}

fn check(name: &str, xs: &Tensor) -> Result<()> {
    if xs.rank() == 0 {
        bail!("{name}: expected at least one axis, got a scalar");
    }
    Ok(())
}
