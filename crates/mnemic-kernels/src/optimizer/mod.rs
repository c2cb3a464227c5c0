//! Steps of optimisers in one pass over memory: each number of parameter, gradient and state is read once and written
//! once, in place.
//!
//! | settings | rule | states |
//! | --- | --- | --- |
//! | [`Sgd`] | gradient descent with momentum, dampening, Nesterov's momentum | momentum buffer or none |
//! | [`Adam`] | Adam, AdamW, AMSGrad | two moments, their largest second one with AMSGrad |
//! | [`Adagrad`] | Adagrad | sum of squares |
//! | [`RmsProp`] | RMSProp as in PyTorch, centred, with momentum | mean square, mean, momentum buffer |
//! | [`RmsPropGraves`] | RMSProp as in Graves 2013 | mean square, mean, last change |
//!
//! The states are ordinary tensors that the caller makes (zeros, mostly), keeps and saves. Parameter and states must
//! be contiguous, of one shape and type (f32 or f64), and each in a memory of its own; a gradient may have any strides.
//! A parameter is a [`candle_core::Var`]'s tensor: whoever holds a clone of it sees the update, as with
//! [`candle_core::Var::set`].
//!
//! A gradient is given as `&Tensor`, or as a [`Gradient`] with a factor. With the factor of [`clip_factor`] gradients
//! are clipped on the way into the step, and the clipped ones are never written:
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use mnemic_kernels::optimizer::{Adam, AdamState, Gradient, clip_factor, global_norm};
//! let w = Var::new(&[3f32, 4.], &Device::Cpu)?;
//! let (m, v) = (w.zeros_like()?, w.zeros_like()?);
//! let adam = Adam::new(0.1);
//! for t in 1..=3 {
//!     let grads = (w.sqr()?.sum_all()? * 0.5)?.backward()?;
//!     let Some(g) = grads.get(&w) else { continue };
//!     let scale = clip_factor(global_norm(&[g.into()])?, 1.);
//!     let state = AdamState { exp_avg: &m, exp_avg_sq: &v, max_exp_avg_sq: None };
//!     adam.step(t, &w, Gradient { tensor: g, scale }, state)?;
//! }
//! assert!((w.to_vec1::<f32>()?[0] - 2.7).abs() < 1e-3);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! On the CPU the loops are vectorised, and large tensors are shared among threads; neither changes a bit, nor does the
//! number of threads. On a CUDA device parameters of f32 are changed by kernels, many of them by one within [`together`]; on
//! other devices, and for f64, the plain twins in [`plain`] run.

mod adagrad;
mod adam;
mod cpu;
#[cfg(cuda_path)]
mod cuda;
mod mix;
mod norm;
pub mod plain;
mod rmsprop;
mod rule;
mod sgd;

use candle_core::Tensor;

pub use adagrad::Adagrad;
pub use adam::{Adam, AdamState};
pub use mix::{add_scaled, clamp, lerp};
pub use norm::{clip_factor, first_non_finite, global_norm, sum_of_squares, sums_of_squares};
pub use rmsprop::{RmsProp, RmsPropGraves, RmsPropGravesState, RmsPropState};
pub use sgd::Sgd;

/// `scale * tensor`, which is computed where it is used and never stored.
#[derive(Debug, Clone, Copy)]
pub struct Gradient<'a> {
    /// The gradient as it was computed.
    pub tensor: &'a Tensor,
    /// A factor, rounded to the type of the tensor before it multiplies.
    pub scale: f64,
}

impl<'a> From<&'a Tensor> for Gradient<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { tensor, scale: 1. }
    }
}

/// Runs `f`, and takes the steps that it takes on a CUDA device together in the end, in few launches. Until then `f` must not read
/// what it has changed; a second step of the same parameter waits for the first. Elsewhere this just calls `f`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::optimizer::{Sgd, together};
/// let (a, b) = (Var::new(&[1f32], &Device::Cpu)?, Var::new(&[2f32], &Device::Cpu)?);
/// let g = Tensor::new(&[1f32], &Device::Cpu)?;
/// together(|| [&a, &b].into_iter().try_for_each(|p| Sgd::new(0.5).step(1, p, &g, None)))?;
/// assert_eq!((a.to_vec1::<f32>()?, b.to_vec1::<f32>()?), (vec![0.5], vec![1.5]));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Those of `f`; the device may fail. What was done before an error stays done.
pub fn together<R>(f: impl FnOnce() -> candle_core::Result<R>) -> candle_core::Result<R> {
    #[cfg(cuda_path)]
    return cuda::together(f);
    #[cfg(not(cuda_path))]
    f()
}

/// The steps count from 1: at 0 the corrections of the moments' bias divide by zero.
fn check_step(name: &str, t: u64) -> candle_core::Result<()> {
    if t == 0 {
        candle_core::bail!("{name}: the step counts from 1, got 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
