//! Between a sequence and its time steps, with one copy in either direction.
//!
//! candle's `narrow` makes a full-size zero tensor in its backward pass, for each step: quadratic in the number of
//! steps. Here all gradients are laid into one buffer.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// The time steps of `xs`: (b, t, …) to t tensors (b, …).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[[1f32], [2.]], [[3.], [4.]]], &Device::Cpu)?; // (2, 2, 1)
/// let steps = mnemic_kernels::time_steps::unbind(&xs)?;
/// assert_eq!(steps[1].to_vec2::<f32>()?, [[2.], [4.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `xs` has fewer than two axes.
pub fn unbind(xs: &Tensor) -> Result<Vec<Tensor>> {
    if xs.rank() < 2 {
        bail!("unbind: expected (b, t, …), got {:?}", xs.dims());
    }
    if fused::takes(&[xs]) && xs.dims()[1] > 0 {
        return fused::apply(cpu::UnbindOp, &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply(cuda::UnbindOp, &[xs]);
    }
    plain::unbind(xs)
}

/// The sequence of the time steps `steps`: t tensors (b, …) to (b, t, …).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[[1f32], [3.]], &Device::Cpu)?; // (2, 1)
/// let b = Tensor::new(&[[2f32], [4.]], &Device::Cpu)?;
/// let xs = mnemic_kernels::time_steps::stack(&[a, b])?;
/// assert_eq!(xs.to_vec3::<f32>()?, [[[1.], [2.]], [[3.], [4.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When there are no steps, when they differ in shape, or when they have no batch axis.
pub fn stack(steps: &[Tensor]) -> Result<Tensor> {
    let Some(first) = steps.first() else { bail!("stack: no time steps") };
    if let Some((t, other)) = steps.iter().enumerate().find(|(_, s)| s.dims() != first.dims()) {
        bail!("stack: step 0 is {:?}, step {t} is {:?}", first.dims(), other.dims());
    }
    if first.rank() == 0 {
        bail!("stack: expected steps (b, …), got scalars");
    }
    let operands: Vec<&Tensor> = steps.iter().collect();
    if fused::takes(&operands) {
        return fused::apply1(cpu::StackOp, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) {
        return crate::cuda::apply1(cuda::StackOp, &operands);
    }
    plain::stack(steps)
}
