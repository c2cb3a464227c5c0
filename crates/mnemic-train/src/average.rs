//! Averages of weights: over training steps, and over checkpoints.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use mnemic_kernels::optimizer::{lerp, together};
use serde::{Deserialize, Serialize};

use crate::checkpoint::weights_at;
use crate::error::{Error, Result, check};

/// An exponential moving average of the weights: `a = d * a + (1 - d) * p` after each step.
///
/// Validation, the choice of the best checkpoint and the weights left in the end are those of the average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// d, such as 0.999.
    pub decay: f64,
    /// In step t uses `min(d, (1 + t) / (10 + t))`, so that the first weights are soon forgotten.
    #[serde(default)]
    pub warmup: bool,
}

impl EmaConfig {
    /// Checks the decay.
    ///
    /// # Errors
    /// A decay that is not at least 0 and below 1.
    pub fn validate(&self) -> Result<()> {
        let ok = (0. ..1.).contains(&self.decay);
        check("ema.decay", self.decay, ok, "a number of at least 0 and below 1")
    }
}

/// An exponential moving average at work.
///
/// ```
/// use candle_core::{Device, Var};
/// use mnemic_train::{Ema, EmaConfig};
/// let w = Var::new(&[0f64], &Device::Cpu)?;
/// let mut ema = Ema::new(EmaConfig { decay: 0.75, warmup: false }, vec![("w".into(), w.clone())])?;
/// w.set(&candle_core::Tensor::new(&[4f64], &Device::Cpu)?)?;
/// ema.update()?;
/// ema.swap()?; // the parameter now holds the average, and the average the parameter
/// assert_eq!(w.to_vec1::<f64>()?, [1.]);
/// # Ok::<(), mnemic_train::Error>(())
/// ```
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    vars: Vec<(String, Var)>,
    averages: Vec<Var>,
    updates: u64,
}

impl Ema {
    /// Starts at the present weights.
    ///
    /// # Errors
    /// A bad decay; a parameter that is neither f32 nor f64.
    pub fn new(config: EmaConfig, vars: Vec<(String, Var)>) -> Result<Self> {
        config.validate()?;
        let average = |(name, var): &(String, Var)| match var.dtype() {
            DType::F32 | DType::F64 => Ok(copied(var)?),
            other => {
                let text = format!("average of {name}: expected f32 or f64, got {other:?}");
                Err(Error::OptimizerState(text))
            }
        };
        let averages = vars.iter().map(average).collect::<Result<_>>()?;
        Ok(Self { config, vars, averages, updates: 0 })
    }

    /// Takes in the weights after a step.
    ///
    /// # Errors
    /// None in practice; candle's calls may fail.
    pub fn update(&mut self) -> Result<()> {
        self.updates += 1;
        let t = self.updates as f64;
        let limit = if self.config.warmup { (1. + t) / (10. + t) } else { 1. };
        let take = 1. - self.config.decay.min(limit);
        let mut pairs = self.vars.iter().zip(&self.averages);
        Ok(together(|| pairs.try_for_each(|((_, var), average)| lerp(average, var, take)))?)
    }

    /// Exchanges the parameters and their averages; a second call undoes it.
    ///
    /// # Errors
    /// None in practice; candle's calls may fail.
    pub fn swap(&mut self) -> Result<()> {
        for ((_, var), average) in self.vars.iter().zip(&self.averages) {
            let weights = var.as_detached_tensor().force_contiguous()?;
            var.set(average)?;
            average.set(&weights)?;
        }
        Ok(())
    }

    /// The number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averages by name.
    ///
    /// # Errors
    /// None in practice; candle's allocations may fail.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let tensor = |((name, _), average): (&(String, Var), &Var)| {
            let copy = average.as_detached_tensor().force_contiguous()?;
            Ok((name.clone(), copy.to_device(&Device::Cpu)?))
        };
        self.vars.iter().zip(&self.averages).map(tensor).collect()
    }

    /// Takes back what [`Ema::state`] and [`Ema::updates`] gave.
    ///
    /// # Errors
    /// A missing or misshapen tensor, by name; then nothing is changed.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>, updates: u64) -> Result<()> {
        let read = |(name, var): &(String, Var)| match state.get(name) {
            Some(t) if t.dims() == var.dims() && t.dtype() == var.dtype() => {
                Ok(copied(&t.to_device(var.device())?)?)
            }
            Some(t) => {
                let (want, got) = (var.dims(), t.dims());
                let text = format!("average of {name}: expected {want:?}, got {got:?}");
                Err(Error::OptimizerState(text))
            }
            None => Err(Error::OptimizerState(format!("average of {name} is missing"))),
        };
        self.averages = self.vars.iter().map(read).collect::<Result<_>>()?;
        self.updates = updates;
        Ok(())
    }
}

/// A variable of the same numbers.
fn copied(t: &Tensor) -> candle_core::Result<Var> {
    Var::from_tensor(&t.detach())
}

/// The mean of the weights of several checkpoints (Vaswani et al. 2017, section 6.1), summed in f64.
///
/// Each path is a checkpoint's folder or a safetensors file. All must hold the same names and shapes.
///
/// # Errors
/// No path; a file that cannot be read, or whose names or shapes differ from the first one's.
pub fn average_checkpoints<P: AsRef<Path>>(paths: &[P]) -> Result<HashMap<String, Tensor>> {
    let Some((first, rest)) = paths.split_first() else {
        return Err(Error::config("checkpoints", "expected at least one to average"));
    };
    let start = weights_at(first.as_ref())?;
    let dtypes: BTreeMap<String, DType> =
        start.iter().map(|(name, t)| (name.clone(), t.dtype())).collect();
    let wide = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let mut sums: HashMap<String, Tensor> = start
        .iter()
        .map(|(name, t)| Ok((name.clone(), wide(t)?)))
        .collect::<candle_core::Result<_>>()?;
    for path in rest {
        let path = path.as_ref();
        let next = weights_at(path)?;
        if let Some(extra) = next.keys().filter(|name| !sums.contains_key(*name)).min() {
            return Err(Error::checkpoint(path, format!("unexpected tensor {extra}")));
        }
        for (name, sum) in &mut sums {
            let reason = match next.get(name) {
                Some(t) if t.dims() == sum.dims() => {
                    *sum = (&*sum + wide(t)?)?;
                    continue;
                }
                Some(t) => format!("{name}: expected {:?}, got {:?}", sum.dims(), t.dims()),
                None => format!("tensor {name} is missing"),
            };
            return Err(Error::checkpoint(path, reason));
        }
    }
    let mean = |(name, sum): (String, Tensor)| {
        let mean = (sum * (1. / paths.len() as f64))?.to_dtype(dtypes[&name])?;
        Ok((name, mean))
    };
    sums.into_iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(x: f32) -> Var {
        Var::new(&[x, 2. * x], &Device::Cpu).unwrap()
    }

    #[test]
    fn ema_follows_its_formula_and_swaps_exactly() {
        let w = var(1.);
        let config = EmaConfig { decay: 0.9, warmup: true };
        let mut ema = Ema::new(config, vec![("w".into(), w.clone())]).unwrap();
        let mut expected = 1f32;
        for t in 1..=20 {
            w.set(&Tensor::new(&[t as f32, 2. * t as f32], &Device::Cpu).unwrap()).unwrap();
            ema.update().unwrap();
            let d = 0.9f64.min((1. + f64::from(t)) / (10. + f64::from(t)));
            expected += (1. - d) as f32 * (t as f32 - expected);
        }
        let before = w.to_vec1::<f32>().unwrap();
        ema.swap().unwrap();
        assert!((w.to_vec1::<f32>().unwrap()[0] - expected).abs() < 1e-5);
        ema.swap().unwrap();
        assert_eq!(w.to_vec1::<f32>().unwrap(), before);
        assert_eq!(ema.updates(), 20);
    }

    #[test]
    fn state_is_strict() {
        let mut ema =
            Ema::new(EmaConfig { decay: 0.5, warmup: false }, vec![("w".into(), var(3.))]).unwrap();
        let state = ema.state().unwrap();
        ema.load_state(&state, 7).unwrap();
        assert_eq!(ema.updates(), 7);
        let error = ema.load_state(&BTreeMap::new(), 1).unwrap_err().to_string();
        assert!(error.contains("average of w is missing"), "{error}");
        assert_eq!(ema.updates(), 7);
    }

    #[test]
    fn checkpoints_are_averaged() {
        let dir = tempfile::tempdir().unwrap();
        let save = |name: &str, tensors: &[(&str, &[f32])]| {
            let tensors: HashMap<_, _> = tensors
                .iter()
                .map(|(n, v)| ((*n).to_string(), Tensor::new(*v, &Device::Cpu).unwrap()))
                .collect();
            let path = dir.path().join(name);
            candle_core::safetensors::save(&tensors, &path).unwrap();
            path
        };
        let a = save("a.safetensors", &[("w", &[1., 2.]), ("b", &[0.])]);
        let b = save("b.safetensors", &[("w", &[3., 6.]), ("b", &[1.])]);
        let mean = average_checkpoints(&[&a, &b]).unwrap();
        assert_eq!(mean["w"].to_vec1::<f32>().unwrap(), [2., 4.]);
        assert_eq!(mean["b"].to_vec1::<f32>().unwrap(), [0.5]);
        let short = save("short.safetensors", &[("w", &[3., 6.])]);
        let error = average_checkpoints(&[&a, &short]).unwrap_err().to_string();
        assert!(error.contains("short.safetensors: tensor b is missing"), "{error}");
        let other = save("other.safetensors", &[("w", &[3.]), ("b", &[1.])]);
        let error = average_checkpoints(&[&a, &other]).unwrap_err().to_string();
        assert!(error.contains("w: expected [2], got [1]"), "{error}");
        assert!(average_checkpoints::<&Path>(&[]).is_err());
    }
}
