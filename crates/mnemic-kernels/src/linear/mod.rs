//! Linear maps `y = x Wᵀ + b` with their bias and all three gradients in one operation, and the sum of columns.
//!
//! In candle a linear layer is a product with a transposed view and a broadcast sum, whose backward pass adds up
//! the bias's gradient by a generic strided reduction and copies the transposed weight gradient. Here the bias is laid into the destination and the
//! product is added to it; for a few rows, as in writing token after token, the weights are read once as they lie. The bias's gradient is a vectorised sum over rows, in blocks whose order does not depend on the
//! number of threads.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
mod few;
mod panels;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

pub(crate) use cpu::{sum_rows, weight_gradient};
pub use panels::Panels;

use crate::fused;

/// `y = x Wᵀ + b`, PyTorch's `nn.functional.linear`: `xs` (…, i), `weight` (o, i), `bias` (o) to (…, o).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[1f32, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?;
/// let bias = Tensor::new(&[0f32, 10., 0.], &Device::Cpu)?;
/// let y = mnemic_kernels::linear::linear(&xs, &weight, Some(&bias))?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 12., 3.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// A `weight` that is the transposed view of a contiguous `(i, o)` is multiplied as it lies, without a copy. For a weight to which no gradient goes
/// [`Panels`] are faster.
///
/// # Errors
/// When the shapes do not fit together.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, w, b) = (xs.dims(), weight.dims(), bias.map(Tensor::dims));
    let fits = w.len() == 2 && x.last() == w.last() && b.is_none_or(|b| b == &w[..1]);
    if !fits {
        bail!(
            "linear: expected input (…, i), weight (o, i) and bias (o), got {x:?}, {w:?} and {b:?}"
        );
    }
    let operands: Vec<&Tensor> = [xs, weight].into_iter().chain(bias).collect();
    if fused::takes(&operands) {
        let turned = weight.t()?;
        if turned.is_contiguous() && !weight.is_contiguous() {
            let operands: Vec<&Tensor> = [xs, &turned].into_iter().chain(bias).collect();
            return fused::apply1(cpu::TurnedOp, &operands);
        }
        return fused::apply1(cpu::LinearOp, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) {
        return crate::cuda::apply1(cuda::LinearOp, &operands);
    }
    plain::linear(xs, weight, bias)
}

/// The sum over all axes but the last: (…, o) to (o).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[[1f32, 2.], [3., 4.]], [[5., 6.], [7., 8.]]], &Device::Cpu)?;
/// assert_eq!(mnemic_kernels::linear::column_sum(&xs)?.to_vec1::<f32>()?, [16., 20.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` is a scalar.
pub fn column_sum(xs: &Tensor) -> Result<Tensor> {
    if xs.rank() == 0 {
        bail!("column_sum: expected at least one axis, got a scalar");
    }
    if fused::takes(&[xs]) {
        return fused::apply1(cpu::ColumnSumOp, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply1(cuda::ColumnSumOp, &[xs]);
    }
    plain::column_sum(xs)
}
