//! Norms of gradients, and the search for the number that spoils one.

use candle_core::{DType, Result, Tensor, bail};

use super::rule::Float;
use super::{Gradient, cpu, plain};
use crate::{simd, threads};

/// The sum of squares in f64, whatever the type. Parts of fixed size are summed in a fixed order: the same bits at any
/// SIMD level and number of threads.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[3f32], [4.]], &Device::Cpu)?;
/// assert_eq!(mnemic_kernels::optimizer::sum_of_squares(&xs)?, 25.);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// A tensor that is neither f32 nor f64.
pub fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    match xs.dtype() {
        #[cfg(cuda_path)]
        _ if super::cuda::can(xs) => Ok(sums_of_squares(&[xs])?.into_iter().sum()),
        DType::F32 | DType::F64 if !xs.device().is_cpu() => plain::sum_of_squares(xs),
        DType::F32 => cpu::with_slice(&xs.contiguous()?, |xs: &[f32]| squares(xs)),
        DType::F64 => cpu::with_slice(&xs.contiguous()?, |xs: &[f64]| squares(xs)),
        other => bail!("sum of squares: expected f32 or f64, got {other:?}"),
    }
}

/// [`sum_of_squares`] of each tensor. On a CUDA device all are computed before the first is waited for.
///
/// # Errors
/// A tensor that is neither f32 nor f64.
pub fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    #[cfg(cuda_path)]
    if let Some(first) = tensors.first()
        && tensors.iter().all(|t| super::cuda::can(t) && t.device().same_device(first.device()))
    {
        let whole = tensors.iter().map(|t| t.detach().contiguous()).collect::<Result<Vec<_>>>()?;
        return super::cuda::sums_of_squares(&whole);
    }
    tensors.iter().map(|t| sum_of_squares(t)).collect()
}

/// The Euclidean norm of all gradients together, NaN or infinite if one of them is so.
///
/// # Errors
/// A gradient that is neither f32 nor f64.
pub fn global_norm(grads: &[Gradient<'_>]) -> Result<f64> {
    let tensors: Vec<&Tensor> = grads.iter().map(|g| g.tensor).collect();
    let sums = sums_of_squares(&tensors)?;
    let sum: f64 = grads.iter().zip(sums).map(|(g, sum)| g.scale * g.scale * sum).sum();
    Ok(sum.sqrt())
}

/// The factor that brings a vector of this norm to at most `max_norm` (Pascanu et al. 2013); 1 for one that is short
/// enough, or NaN.
///
/// ```
/// assert_eq!(mnemic_kernels::optimizer::clip_factor(4., 1.), 0.25);
/// assert_eq!(mnemic_kernels::optimizer::clip_factor(0.5, 1.), 1.);
/// ```
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if norm > max_norm { max_norm / norm } else { 1. }
}

/// The first NaN or infinity of a gradient: flat index and value.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[1f32, f32::INFINITY], &Device::Cpu)?;
/// let found = mnemic_kernels::optimizer::first_non_finite(&xs)?;
/// assert_eq!(found, Some((1, f64::INFINITY)));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// A tensor that is neither f32 nor f64.
pub fn first_non_finite<'a>(grad: impl Into<Gradient<'a>>) -> Result<Option<(usize, f64)>> {
    let Gradient { tensor, scale } = grad.into();
    let xs = tensor.to_device(&candle_core::Device::Cpu)?.contiguous()?;
    match xs.dtype() {
        DType::F32 => cpu::with_slice(&xs, |xs: &[f32]| find_non_finite(xs, scale)),
        DType::F64 => cpu::with_slice(&xs, |xs: &[f64]| find_non_finite(xs, scale)),
        other => bail!("first non-finite: expected f32 or f64, got {other:?}"),
    }
}

/// Numbers whose sum is one part of the whole.
const BLOCK: usize = 1 << 14;
const LANES: usize = 32;

fn squares<T: Float>(xs: &[T]) -> f64 {
    let level = simd::level();
    let blocks = xs.len().div_ceil(BLOCK);
    if blocks <= 1 {
        return level.dispatch(Squares(xs));
    }
    let mut parts = vec![0f64; blocks];
    let size = threads::rows_per_task(blocks, BLOCK / 4);
    let tasks = parts.chunks_mut(size).zip(xs.chunks(size * BLOCK)).collect();
    threads::for_each(tasks, |(parts, xs): (&mut [f64], &[T])| {
        for (part, xs) in parts.iter_mut().zip(xs.chunks(BLOCK)) {
            *part = level.dispatch(Squares(xs));
        }
    });
    parts.iter().sum()
}

struct Squares<'a, T>(&'a [T]);

impl<T: Float> pulp::WithSimd for Squares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
        let mut sums = [0f64; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += x.wide() * x.wide();
            }
        }
        let mut total = 0.;
        for sum in sums {
            total += sum;
        }
        for x in rest {
            total += x.wide() * x.wide();
        }
        total
    }
}

fn find_non_finite<T: Float>(xs: &[T], scale: f64) -> Option<(usize, f64)> {
    let (level, scale) = (simd::level(), T::of(scale));
    let mut parts = xs.chunks(BLOCK).enumerate();
    let (block, part) = parts.find(|(_, part)| level.dispatch(AnyBad(part, scale)))?;
    let i = part.iter().position(|x| !(*x * scale).wide().is_finite())?;
    Some((block * BLOCK + i, (part[i] * scale).wide()))
}

struct AnyBad<'a, T>(&'a [T], T);

impl<T: Float> pulp::WithSimd for AnyBad<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> bool {
        // Zero times a NaN or infinity is NaN.
        self.0.iter().map(|x| *x * self.1).fold(false, |bad, x| bad | (x * T::ZERO != T::ZERO))
    }
}
