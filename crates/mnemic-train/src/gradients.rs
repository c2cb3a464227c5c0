//! Gradients in the order of the parameters' names.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::Result;
use crate::values::Values;

/// The gradients of one optimiser step, in the order of the parameters that they belong to.
///
/// candle's `GradStore` has no order; here sums over parameters come out the same in every run.
///
/// ```
/// use candle_core::{Device, Var};
/// use mnemic_train::Gradients;
/// let w = Var::new(&[3f64, 4.], &Device::Cpu)?;
/// let vars = vec![("w".to_string(), w.clone())];
/// let store = (w.sqr()?.sum_all()? * 0.5)?.backward()?;
/// assert_eq!(Gradients::new(&vars, &store)?.norm(), 5.);
/// # Ok::<(), mnemic_train::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gradients {
    pub(crate) entries: Vec<(String, Option<Values>)>,
}

impl Gradients {
    /// Takes the gradients of `vars` out of `store`; a parameter that the loss does not depend on has none.
    ///
    /// # Errors
    /// A parameter that is neither f32 nor f64.
    pub fn new(vars: &[(String, Var)], store: &GradStore) -> Result<Self> {
        let entry = |(name, var): &(String, Var)| {
            Ok((name.clone(), store.get(var).map(Values::read).transpose()?))
        };
        Ok(Self { entries: vars.iter().map(entry).collect::<Result<_>>()? })
    }

    /// Gradients given one by one, in order.
    ///
    /// # Errors
    /// A tensor that is neither f32 nor f64.
    pub fn from_tensors(tensors: &[(String, Option<Tensor>)]) -> Result<Self> {
        let entry = |(name, tensor): &(String, Option<Tensor>)| {
            Ok((name.clone(), tensor.as_ref().map(Values::read).transpose()?))
        };
        Ok(Self { entries: tensors.iter().map(entry).collect::<Result<_>>()? })
    }

    /// The Euclidean norm over all gradients together.
    pub fn norm(&self) -> f64 {
        self.values().map(Values::sum_of_squares).sum::<f64>().sqrt()
    }

    /// The parameters that got no gradient, in order.
    pub fn missing(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, g)| g.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// The first NaN or infinity in order: parameter, flat index, value.
    pub fn first_non_finite(&self) -> Option<(&str, usize, f64)> {
        self.entries.iter().find_map(|(name, g)| {
            let (index, value) = g.as_ref()?.first_non_finite()?;
            Some((name.as_str(), index, value))
        })
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f64) {
        self.values_mut().for_each(|g| g.scale(factor));
    }

    fn values(&self) -> impl Iterator<Item = &Values> {
        self.entries.iter().filter_map(|(_, g)| g.as_ref())
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Values> {
        self.entries.iter_mut().filter_map(|(_, g)| g.as_mut())
    }

    /// Adds `weight` times `other`, which must come from the same parameters.
    fn add_scaled(&mut self, other: Self, weight: f64) -> Result<()> {
        for ((_, sum), (_, g)) in self.entries.iter_mut().zip(other.entries) {
            match (sum, g) {
                (Some(sum), Some(g)) => sum.add_scaled(&g, weight)?,
                (sum @ None, Some(mut g)) => {
                    g.scale(weight);
                    *sum = Some(g);
                }
                (_, None) => {}
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
        match &mut self.sum {
            None => self.sum = Some(gradients),
            Some(sum) => {
                if self.batches == 1 {
                    sum.scale(self.weight);
                }
                sum.add_scaled(gradients, weight)?;
            }
        }
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

    fn get(g: &Gradients) -> &[f64] {
        match &g.entries[0].1 {
            Some(Values::F64(v)) => v,
            other => panic!("{other:?}"),
        }
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
    fn missing_and_bad_ones_are_named() {
        let cpu = &Device::Cpu;
        let g = Gradients::from_tensors(&[
            ("a".into(), None),
            ("b".into(), Some(Tensor::new(&[1f32, f32::NAN], cpu).unwrap())),
        ])
        .unwrap();
        assert_eq!(g.missing(), ["a"]);
        let (name, index, value) = g.first_non_finite().unwrap();
        assert_eq!((name, index), ("b", 1));
        assert!(value.is_nan() && g.norm().is_nan());
    }
}
