//! The largest elements of the last axis.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use candle_core::{D, Result, Tensor, bail};

use crate::fused;

/// The `k` largest elements of the last axis, (…, n) to values (…, k) and their indices (…, k) in u32, the largest first.
///
/// Of equal elements (0 and -0 are equal) the one with the lower index comes first. NaN counts as larger than
/// everything, as in PyTorch. Gradients flow to the chosen elements; the indices have none.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[3f32, 5., 1., 5.], &Device::Cpu)?;
/// let (values, indices) = mnemic_kernels::top_k::top_k(&xs, 3)?;
/// assert_eq!(values.to_vec1::<f32>()?, [5., 5., 3.]);
/// assert_eq!(indices.to_vec1::<u32>()?, [1, 3, 0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the last axis is missing, has fewer than `k` elements or more than u32 can count.
pub fn top_k(xs: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
    if xs.rank() == 0 {
        bail!("top_k: expected at least one axis, got a scalar");
    }
    let n = xs.dim(D::Minus1)?;
    if k > n || u32::try_from(n).is_err() {
        bail!("top_k: cannot take {k} of the last axis of {:?}", xs.dims());
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) && (1..=cuda::MOST).contains(&k) {
        let chosen = Arc::new(OnceLock::new());
        let op = cuda::TopKOp { k, chosen: Arc::clone(&chosen) };
        let values = crate::cuda::apply1(op, &[xs])?;
        let Some(indices) = chosen.get() else { bail!("top_k: internal error: no indices") };
        return Ok((values, indices.clone()));
    }
    if !fused::takes(&[xs]) {
        return plain::top_k(xs, k);
    }
    let chosen = Arc::new(OnceLock::new());
    let op = cpu::TopKOp { k, chosen: Arc::clone(&chosen) };
    let values = fused::apply1(op, &[xs])?;
    let Some(indices) = chosen.get() else { bail!("top_k: internal error: no indices") };
    let indices = Tensor::from_slice(indices, values.shape(), xs.device())?;
    Ok((values, indices))
}
