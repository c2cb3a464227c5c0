//! Running averages and sums of tensors, in place; cutting of gradients.

use candle_core::{Result, Tensor};

use super::rule::{Float, Rule, apply};
use super::{Gradient, plain};

/// `average += weight * (value - average)`, in place: one step of an exponential moving average.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let average = Tensor::new(&[0f32, 4.], &Device::Cpu)?;
/// mnemic_kernels::optimizer::lerp(&average, &Tensor::new(&[4f32, 4.], &Device::Cpu)?, 0.25)?;
/// assert_eq!(average.to_vec1::<f32>()?, [1., 4.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Tensors of two shapes, types or devices; an average that is not contiguous.
pub fn lerp(average: &Tensor, value: &Tensor, weight: f64) -> Result<()> {
    apply(&Lerp(weight), average, value.into(), [])
}

/// `sum = sum_scale * sum + other`, in place: gathers gradients of several batches.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::optimizer::{Gradient, add_scaled};
/// let (sum, other) = (Tensor::new(&[1f32], &Device::Cpu)?, Tensor::new(&[10f32], &Device::Cpu)?);
/// add_scaled(&sum, 2., Gradient { tensor: &other, scale: 3. })?;
/// assert_eq!(sum.to_vec1::<f32>()?, [32.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Tensors of two shapes, types or devices; a sum that is not contiguous.
pub fn add_scaled<'a>(sum: &Tensor, sum_scale: f64, other: impl Into<Gradient<'a>>) -> Result<()> {
    apply(&AddScaled(sum_scale), sum, other.into(), [])
}

/// The gradient with each number cut to `-limit..=limit`, as a new tensor; a NaN stays.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let g = Tensor::new(&[-3f32, 0.5, 2.], &Device::Cpu)?;
/// let cut = mnemic_kernels::optimizer::clamp(&g, 1.)?;
/// assert_eq!(cut.to_vec1::<f32>()?, [-1., 0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// A tensor that is neither f32 nor f64.
pub fn clamp<'a>(grad: impl Into<Gradient<'a>>, limit: f64) -> Result<Tensor> {
    let grad = grad.into();
    let cut = grad.tensor.detach().zeros_like()?;
    apply(&Clamp(limit), &cut, grad, [])?;
    Ok(cut)
}

struct Lerp(f64);

impl Rule<1, 0> for Lerp {
    const NAME: &'static str = "lerp";
    const KERNEL: &'static str = "lerp";
    const STATES: [&'static str; 0] = [];

    fn constants(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn update<T: Float>(&self, [weight]: [T; 1], p: T, g: T, _: [T; 0]) -> (T, [T; 0]) {
        (p + weight * (g - p), [])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, _: [&Tensor; 0]) -> Result<Vec<Tensor>> {
        Ok(vec![plain::lerp(p, g, self.0)?])
    }
}

struct AddScaled(f64);

impl Rule<1, 0> for AddScaled {
    const NAME: &'static str = "add-scaled";
    const KERNEL: &'static str = "add_scaled";
    const STATES: [&'static str; 0] = [];

    fn constants(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn update<T: Float>(&self, [scale]: [T; 1], p: T, g: T, _: [T; 0]) -> (T, [T; 0]) {
        (scale * p + g, [])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, _: [&Tensor; 0]) -> Result<Vec<Tensor>> {
        Ok(vec![plain::add_scaled(p, self.0, g, 1.)?])
    }
}

struct Clamp(f64);

impl Rule<2, 0> for Clamp {
    const NAME: &'static str = "clamp";
    const KERNEL: &'static str = "clamp";
    const STATES: [&'static str; 0] = [];

    fn constants(&self) -> [f64; 2] {
        [-self.0, self.0]
    }

    #[inline(always)]
    fn update<T: Float>(&self, [low, high]: [T; 2], _: T, g: T, _: [T; 0]) -> (T, [T; 0]) {
        (g.cut(low, high), [])
    }

    fn plain(&self, _: &Tensor, g: &Tensor, _: [&Tensor; 0]) -> Result<Vec<Tensor>> {
        Ok(vec![g.clamp(-self.0, self.0)?])
    }
}
