//! Gradients in the order of the parameters' names.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var, bail};
use mnemic_kernels::optimizer::{
    Gradient, add_scaled, first_non_finite, sum_of_squares, sums_of_squares,
};

use crate::Result;

/// A tensor and the factor that it is still to be multiplied by. The optimiser does so on the way, so that scaled and
/// clipped gradients are never written.
#[derive(Debug, Clone)]
pub(crate) struct Scaled {
    tensor: Tensor,
    pub(crate) scale: f64,
}

impl Scaled {
    /// Shares the tensor's memory.
    pub(crate) fn new(tensor: &Tensor) -> candle_core::Result<Self> {
        match tensor.dtype() {
            DType::F32 | DType::F64 => {
                Ok(Self { tensor: tensor.detach().contiguous()?, scale: 1. })
            }
            other => bail!("only f32 and f64 parameters can be trained, got {other:?}"),
        }
    }

    /// In a memory of its own.
    fn owned(self) -> candle_core::Result<Self> {
        Ok(Self { tensor: self.tensor.force_contiguous()?, ..self })
    }

    pub(crate) fn view(&self) -> Gradient<'_> {
        Gradient { tensor: &self.tensor, scale: self.scale }
    }

    /// The sum of squares.
    pub(crate) fn square(&self) -> candle_core::Result<f64> {
        Ok(self.scale * self.scale * sum_of_squares(&self.tensor)?)
    }
}

/// The gradients of one optimiser step, in the order of the parameters that they belong to.
///
/// candle's `GradStore` has no order; here sums over parameters come out the same in every run. The numbers are not
/// copied: a factor (of clipping, of a mean over batches) is kept beside each tensor until the optimiser's step.
///
/// ```
/// use candle_core::{Device, Var};
/// use mnemic_train::Gradients;
/// let w = Var::new(&[3f64, 4.], &Device::Cpu)?;
/// let vars = vec![("w".to_string(), w.clone())];
/// let store = (w.sqr()?.sum_all()? * 0.5)?.backward()?;
/// assert_eq!(Gradients::new(&vars, &store)?.norm()?, 5.);
/// # Ok::<(), mnemic_train::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gradients {
    pub(crate) entries: Vec<(String, Option<Scaled>)>,
}

impl Gradients {
    /// Takes the gradients of `vars` out of `store`; a parameter that the loss does not depend on has none.
    ///
    /// # Errors
    /// A parameter that is neither f32 nor f64.
    pub fn new(vars: &[(String, Var)], store: &GradStore) -> Result<Self> {
        let entry = |(name, var): &(String, Var)| {
            Ok((name.clone(), store.get(var).map(Scaled::new).transpose()?))
        };
        Ok(Self { entries: vars.iter().map(entry).collect::<Result<_>>()? })
    }

    /// Gradients given one by one, in order.
    ///
    /// # Errors
    /// A tensor that is neither f32 nor f64.
    pub fn from_tensors(tensors: &[(String, Option<Tensor>)]) -> Result<Self> {
        let entry = |(name, tensor): &(String, Option<Tensor>)| {
            Ok((name.clone(), tensor.as_ref().map(Scaled::new).transpose()?))
        };
        Ok(Self { entries: tensors.iter().map(entry).collect::<Result<_>>()? })
    }

    /// The gradients by name, in order, as tensors: what [`Gradients::from_tensors`] takes.
    ///
    /// # Errors
    /// None in practice; candle's allocations may fail.
    pub fn to_tensors(&self) -> Result<Vec<(String, Option<Tensor>)>> {
        let tensor =
            |g: &Scaled| if g.scale == 1. { Ok(g.tensor.clone()) } else { &g.tensor * g.scale };
        let entry = |(name, g): &(String, Option<Scaled>)| {
            Ok((name.clone(), g.as_ref().map(tensor).transpose()?))
        };
        self.entries.iter().map(entry).collect()
    }

    /// The Euclidean norm over all gradients together, in f64.
    ///
    /// # Errors
    /// None on a CPU; elsewhere the device may fail.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.squares()?.iter().sum::<f64>().sqrt())
    }

    /// The sum of squares of each gradient that there is.
    pub(crate) fn squares(&self) -> Result<Vec<f64>> {
        let tensors: Vec<&Tensor> = self.present().map(|g| &g.tensor).collect();
        let sums = sums_of_squares(&tensors)?;
        Ok(self.present().zip(sums).map(|(g, sum)| g.scale * g.scale * sum).collect())
    }

    /// The parameters that got no gradient, in order.
    pub fn missing(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, g)| g.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// The first NaN or infinity in order: parameter, flat index, value.
    ///
    /// # Errors
    /// None on a CPU; elsewhere the device may fail.
    pub fn first_non_finite(&self) -> Result<Option<(&str, usize, f64)>> {
        for (name, g) in &self.entries {
            if let Some(g) = g
                && let Some((index, value)) = first_non_finite(g.view())?
            {
                return Ok(Some((name.as_str(), index, value)));
            }
        }
        Ok(None)
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f64) {
        self.present_mut().for_each(|g| g.scale *= factor);
    }

    fn present(&self) -> impl Iterator<Item = &Scaled> {
        self.entries.iter().filter_map(|(_, g)| g.as_ref())
    }

    pub(crate) fn present_mut(&mut self) -> impl Iterator<Item = &mut Scaled> {
        self.entries.iter_mut().filter_map(|(_, g)| g.as_mut())
    }

    /// The same in a memory of its own, so that [`Self::add_scaled`] changes nobody else's tensors.
    fn owned(self) -> Result<Self> {
        let entry =
            |(name, g): (String, Option<Scaled>)| Ok((name, g.map(Scaled::owned).transpose()?));
        Ok(Self { entries: self.entries.into_iter().map(entry).collect::<Result<_>>()? })
    }

    /// Adds `weight` times `other`, which must come from the same parameters, in place.
    fn add_scaled(&mut self, other: Self, weight: f64) -> Result<()> {
        for ((_, sum), (_, g)) in self.entries.iter_mut().zip(other.entries) {
            let Some(mut g) = g else { continue };
            g.scale *= weight;
            match sum {
                Some(sum) => {
                    add_scaled(&sum.tensor, sum.scale, g.view())?;
                    sum.scale = 1.;
                }
                None => *sum = Some(g.owned()?),
            }
        }
        Ok(())
    }
}

/// Gathers the gradients of several batches into one step.
///
/// The result is the mean weighted by each batch's [`crate::LossOutput::weight`], so that `k` batches of `b` examples
/// (the last one may be smaller) give the gradient of one batch of all of them. One batch passes through untouched.
#[derive(Debug, Default)]
pub struct Accumulator {
    sum: Option<Gradients>,
    weight: f64,
    batches: usize,
}

impl Accumulator {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of batches gathered.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Adds the gradients of a mean over `weight` terms.
    ///
    /// # Errors
    /// Gradients of other shapes or types than before.
    pub fn add(&mut self, gradients: Gradients, weight: f64) -> Result<()> {
        self.sum = Some(match self.sum.take() {
            None => gradients,
            Some(mut sum) => {
                if self.batches == 1 {
                    sum = sum.owned()?;
                    sum.scale(self.weight);
                }
                sum.add_scaled(gradients, weight)?;
                sum
            }
        });
        self.weight += weight;
        self.batches += 1;
        Ok(())
    }

    /// The mean, leaving the accumulator empty; `None` if nothing was added.
    pub fn take(&mut self) -> Option<Gradients> {
        let Self { sum, weight, batches } = std::mem::take(self);
        let mut sum = sum?;
        if batches > 1 && weight > 0. {
            sum.scale(1. / weight);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn one(values: Option<&[f64]>) -> Gradients {
        let t = values.map(|v| Tensor::new(v, &Device::Cpu).unwrap());
        Gradients::from_tensors(&[("w".into(), t)]).unwrap()
    }

    fn get(g: &Gradients) -> Vec<f64> {
        g.to_tensors().unwrap()[0].1.as_ref().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn accumulation_is_the_weighted_mean() {
        let mut acc = Accumulator::new();
        assert!(acc.take().is_none());
        acc.add(one(Some(&[1., 2.])), 3.).unwrap();
        acc.add(one(None), 1.).unwrap();
        acc.add(one(Some(&[5., -2.])), 1.).unwrap();
        assert_eq!(acc.batches(), 3);
        assert_eq!(get(&acc.take().unwrap()), [8. / 5., 4. / 5.]);
        // A first batch without gradient does not hide a later one.
        acc.add(one(None), 1.).unwrap();
        acc.add(one(Some(&[4., 8.])), 3.).unwrap();
        assert_eq!(get(&acc.take().unwrap()), [3., 6.]);
    }

    #[test]
    fn a_single_batch_is_untouched() {
        let mut acc = Accumulator::new();
        acc.add(one(Some(&[0.1, 1e-300])), 7.).unwrap();
        assert_eq!(get(&acc.take().unwrap()), [0.1, 1e-300]);
    }

    #[test]
    fn the_tensors_of_the_batches_stay_as_they_are() {
        let tensors: Vec<_> =
            (1..4).map(|x| Tensor::new(&[f64::from(x)], &Device::Cpu).unwrap()).collect();
        let mut acc = Accumulator::new();
        // The second batch is the first to give `b` a gradient.
        for (i, t) in tensors.iter().enumerate() {
            let b = (i > 0).then(|| t.clone());
            let list = [("a".to_string(), Some(t.clone())), ("b".to_string(), b)];
            acc.add(Gradients::from_tensors(&list).unwrap(), 2.).unwrap();
        }
        let mut mean = acc.take().unwrap();
        let sums = mean.to_tensors().unwrap();
        let value = |i: usize| sums[i].1.as_ref().unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((value(0) - 2.).abs() < 1e-15 && (value(1) - 5. / 3.).abs() < 1e-15);
        let clip = crate::Clip { value: Some(0.5), ..Default::default() };
        clip.apply(&mut mean).unwrap();
        for (x, t) in (1..4).zip(&tensors) {
            assert_eq!(t.to_vec1::<f64>().unwrap(), [f64::from(x)]);
        }
    }

    #[test]
    fn others_than_floats_are_refused() {
        let ints = Tensor::new(&[1u32], &Device::Cpu).unwrap();
        let error = Gradients::from_tensors(&[("a".into(), Some(ints))]).unwrap_err().to_string();
        assert!(error.contains("only f32 and f64"), "{error}");
    }

    #[test]
    fn missing_and_bad_ones_are_named() {
        let cpu = &Device::Cpu;
        let g = Gradients::from_tensors(&[
            ("a".into(), None),
            ("b".into(), Some(Tensor::new(&[1f32, f32::NAN], cpu).unwrap())),
        ])
        .unwrap();
        assert_eq!(g.missing(), ["a"]);
        let (name, index, value) = g.first_non_finite().unwrap().unwrap();
        assert_eq!((name, index), ("b", 1));
        assert!(value.is_nan() && g.norm().unwrap().is_nan());
    }
}
