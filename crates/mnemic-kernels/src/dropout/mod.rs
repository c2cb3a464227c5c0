//! Dropout whose mask is a pure function of a random stream: nothing is saved for the backward pass, which draws it again.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use crate::fused;
use crate::rng::Philox;

/// Dropout (Srivastava et al. 2014): zeroes each element with probability `p` and scales the rest by `1 / (1 - p)`.
///
/// Element `4 k + i` (row-major) is dropped where word `i` of block `k` of `rng` is below `p 2^32`, so the mask depends
/// on neither the number of threads nor the type. `p <= 0` is the identity; `p >= 1` gives zeros.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::{dropout::dropout, rng::Philox};
/// let xs = Tensor::ones(1000, DType::F32, &Device::Cpu)?;
/// let ys = dropout(&xs, 0.75, Philox::new(1, 0))?.to_vec1::<f32>()?;
/// assert!(ys.iter().all(|y| *y == 0. || *y == 4.));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `p` is not a number.
pub fn dropout(xs: &Tensor, p: f64, rng: Philox) -> Result<Tensor> {
    if p.is_nan() {
        candle_core::bail!("dropout: the probability is not a number");
    }
    if p <= 0. {
        return Ok(xs.clone());
    }
    if fused::takes(&[xs]) {
        return fused::apply1(cpu::DropoutOp::new(p, rng), &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::DropoutOp::new(p, rng), &[xs]);
    }
    plain::dropout(xs, p, rng)
}
