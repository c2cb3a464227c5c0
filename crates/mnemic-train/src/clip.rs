//! Clipping of gradients.

use mnemic_kernels::optimizer::{clamp, clip_factor};
use serde::{Deserialize, Serialize};

use crate::Gradients;
use crate::error::{Result, check};
use crate::gradients::Scaled;

/// Which clippings apply; those that are set are done in the order of the fields.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_train::{Clip, Gradients};
/// let g = Tensor::new(&[3f64, 4.], &Device::Cpu)?;
/// let mut gradients = Gradients::from_tensors(&[("w".into(), Some(g))])?;
/// let clip = Clip { global_norm: Some(1.), ..Clip::default() };
/// assert_eq!(clip.apply(&mut gradients)?, 5.);
/// assert!((gradients.norm()? - 1.).abs() < 1e-12);
/// # Ok::<(), mnemic_train::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clip {
    /// Cuts each number to `-value..=value`.
    pub value: Option<f64>,
    /// Scales each parameter's gradient down to at most this norm (Sukhbaatar et al. 2015).
    pub tensor_norm: Option<f64>,
    /// Scales all gradients together down to at most this norm (Pascanu et al. 2013).
    pub global_norm: Option<f64>,
}

impl Clip {
    /// Checks every value.
    ///
    /// # Errors
    /// A limit that is not above 0, by name.
    pub fn validate(&self) -> Result<()> {
        let fields = [
            ("clip.value", self.value),
            ("clip.tensor_norm", self.tensor_norm),
            ("clip.global_norm", self.global_norm),
        ];
        for (field, limit) in fields {
            if let Some(limit) = limit {
                check(field, limit, limit > 0., "a number above 0")?;
            }
        }
        Ok(())
    }

    /// Clips, and returns the norm of all gradients as it was before. If that norm is NaN or infinite, nothing is
    /// changed. Clipping by a norm only notes a factor, which the optimiser's step applies.
    ///
    /// # Errors
    /// None on a CPU; elsewhere the device may fail.
    pub fn apply(&self, gradients: &mut Gradients) -> Result<f64> {
        let mut squares = gradients.squares()?;
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        for (g, square) in gradients.present_mut().zip(&mut squares) {
            // No number is larger than the norm.
            if let Some(limit) = self.value
                && square.sqrt() > limit
            {
                *g = Scaled::new(&clamp(g.view(), limit)?)?;
                *square = g.square()?;
            }
            if let Some(limit) = self.tensor_norm {
                let factor = clip_factor(square.sqrt(), limit);
                g.scale *= factor;
                *square *= factor * factor;
            }
        }
        if let Some(limit) = self.global_norm {
            gradients.scale(clip_factor(squares.iter().sum::<f64>().sqrt(), limit));
        }
        Ok(norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn gradients(list: &[&[f64]]) -> Gradients {
        let list: Vec<_> = (0..)
            .zip(list)
            .map(|(i, v)| (format!("p{i}"), Some(Tensor::new(*v, &Device::Cpu).unwrap())))
            .collect();
        Gradients::from_tensors(&list).unwrap()
    }

    fn numbers(g: &Gradients) -> Vec<f64> {
        let flat = |(_, t): &(String, Option<Tensor>)| t.as_ref().unwrap().to_vec1().unwrap();
        g.to_tensors().unwrap().iter().flat_map(flat).collect()
    }

    fn clipped(clip: &Clip, list: &[&[f64]]) -> (f64, Vec<f64>) {
        let mut g = gradients(list);
        (clip.apply(&mut g).unwrap(), numbers(&g))
    }

    #[test]
    fn each_kind() {
        let list: &[&[f64]] = &[&[3., 4.], &[0., 12.]];
        assert_eq!(clipped(&Clip::default(), list), (13., vec![3., 4., 0., 12.]));
        let value = Clip { value: Some(3.5), ..Clip::default() };
        assert_eq!(clipped(&value, list), (13., vec![3., 3.5, 0., 3.5]));
        let tensor = Clip { tensor_norm: Some(6.), ..Clip::default() };
        assert_eq!(clipped(&tensor, list), (13., vec![3., 4., 0., 6.]));
        let global = Clip { global_norm: Some(6.5), ..Clip::default() };
        assert_eq!(clipped(&global, list), (13., vec![1.5, 2., 0., 6.]));
        assert_eq!(clipped(&Clip { global_norm: Some(14.), ..global }, list).1[3], 12.);
    }

    #[test]
    fn all_kinds_in_order() {
        let all = Clip { value: Some(8.), tensor_norm: Some(4.), global_norm: Some(3.) };
        let (norm, got) = clipped(&all, &[&[30., 0.], &[0., 2.]]);
        assert_eq!(norm, 904f64.sqrt());
        let factor = 3. / 20f64.sqrt();
        assert!((got[0] - 4. * factor).abs() < 1e-12 && (got[3] - 2. * factor).abs() < 1e-12);
    }

    #[test]
    fn a_bad_gradient_is_left_for_the_report() {
        let clip = Clip { value: Some(1.), ..Clip::default() };
        let (norm, got) = clipped(&clip, &[&[2., f64::INFINITY]]);
        assert_eq!((norm, got), (f64::INFINITY, vec![2., f64::INFINITY]));
        let bad = Clip { global_norm: Some(0.), ..Clip::default() }.validate().unwrap_err();
        assert_eq!(bad.to_string(), "clip.global_norm: expected a number above 0, got 0");
    }
}
