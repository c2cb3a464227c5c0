//! Optimisers whose state can be saved and loaded without losing a bit.

mod config;
mod loops;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};

pub use config::{Adagrad, Adam, Decay, OptimizerConfig, RmsProp, RmsPropGraves, Sgd};

use crate::values::{Real, Values, ValuesMut, change};
use crate::{Error, Gradients, Result};

/// Changes parameters along their gradients.
///
/// ```
/// use candle_core::{Device, Var};
/// use mnemic_train::optim::{Optimizer, OptimizerConfig, Sgd};
/// use mnemic_train::Gradients;
/// let w = Var::new(&[2f64], &Device::Cpu)?;
/// let vars = vec![("w".to_string(), w.clone())];
/// let mut optimizer = Optimizer::new(OptimizerConfig::Sgd(Sgd::new(0.25)), vars.clone())?;
/// let store = w.sqr()?.sum_all()?.backward()?;
/// optimizer.step(&Gradients::new(&vars, &store)?, 0.25)?;
/// assert_eq!(w.to_vec1::<f64>()?, [1.]);
/// # Ok::<(), mnemic_train::Error>(())
/// ```
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    params: Vec<Param>,
}

#[derive(Debug)]
struct Param {
    name: String,
    var: Var,
    decay: f64,
    /// Steps in which this parameter had a gradient.
    step: u64,
    /// One for each name in `OptimizerConfig::slots`.
    slots: Vec<Values>,
}

const STEP: &str = "step";

impl OptimizerConfig {
    /// The names of the tensors kept for each parameter (PyTorch's names), with their first value.
    fn slots(&self) -> Vec<(&'static str, f64)> {
        let when = |on: bool, name| on.then_some((name, 0.));
        match self {
            Self::Sgd(c) => when(c.momentum != 0., "momentum_buffer").into_iter().collect(),
            Self::Adam(c) | Self::AdamW(c) => [("exp_avg", 0.), ("exp_avg_sq", 0.)]
                .into_iter()
                .chain(when(c.amsgrad, "max_exp_avg_sq"))
                .collect(),
            Self::Adagrad(c) => vec![("sum", c.initial_accumulator)],
            Self::RmsProp(c) => std::iter::once(("square_avg", 0.))
                .chain(when(c.centered, "grad_avg"))
                .chain(when(c.momentum != 0., "momentum_buffer"))
                .collect(),
            Self::RmsPropGraves(_) => {
                vec![("square_avg", 0.), ("grad_avg", 0.), ("momentum_buffer", 0.)]
            }
        }
    }
}

impl Optimizer {
    /// An optimiser of `vars`, in the order given.
    ///
    /// # Errors
    /// A setting out of range; a parameter that is neither f32 nor f64.
    pub fn new(config: OptimizerConfig, vars: Vec<(String, Var)>) -> Result<Self> {
        config.validate()?;
        let (weight_decay, decay) = config.decay();
        let slots = config.slots();
        let param = |(name, var): (String, Var)| {
            let decays = decay.applies(&name, var.rank());
            let slots = slots
                .iter()
                .map(|(_, first)| Values::full(var.elem_count(), *first, var.dtype()))
                .collect::<candle_core::Result<_>>()?;
            Values::full(0, 0., var.dtype())?; // refuses other types also where there are no slots
            Ok(Param { name, decay: if decays { weight_decay } else { 0. }, step: 0, slots, var })
        };
        let params = vars.into_iter().map(param).collect::<Result<_>>()?;
        Ok(Self { config, params })
    }

    /// The settings.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// One step at learning rate `lr`. A parameter without gradient stays, and so does its state.
    ///
    /// # Errors
    /// Gradients of other parameters than those of [`Optimizer::new`], or in another order, type or size.
    pub fn step(&mut self, gradients: &Gradients, lr: f64) -> Result<()> {
        let (ours, theirs) = (self.params.len(), gradients.entries.len());
        if ours != theirs {
            let text = format!("expected gradients of {ours} parameters, got {theirs}");
            return Err(Error::OptimizerState(text));
        }
        for (param, (name, gradient)) in self.params.iter_mut().zip(&gradients.entries) {
            if param.name != *name {
                let text = format!("expected the gradient of {}, got that of {name}", param.name);
                return Err(Error::OptimizerState(text));
            }
            if let Some(gradient) = gradient {
                param.update(&self.config, gradient, lr)?;
            }
        }
        Ok(())
    }

    /// Everything the next step depends on besides the parameters: `SLOT/PARAMETER` with PyTorch's slot names, and
    /// `step/PARAMETER`, the number of steps taken.
    ///
    /// # Errors
    /// None in practice; candle's allocations may fail.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for param in &self.params {
            let step = Tensor::new(param.step as i64, &Device::Cpu)?;
            state.insert(format!("{STEP}/{}", param.name), step);
            for ((slot, _), values) in self.config.slots().iter().zip(&param.slots) {
                let key = format!("{slot}/{}", param.name);
                state.insert(key, values.to_tensor(param.var.shape())?);
            }
        }
        Ok(state)
    }

    /// Takes back what [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// A missing, unknown or misshapen tensor, by name; then nothing is changed.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let slots = self.config.slots();
        let mut expected = 0;
        let mut loaded = Vec::with_capacity(self.params.len());
        for param in &self.params {
            let step = find(state, STEP, &param.name, (&[], DType::I64))?.to_scalar::<i64>()?;
            let step = u64::try_from(step).map_err(|_| {
                let text = format!("{STEP}/{}: expected at least 0, got {step}", param.name);
                Error::OptimizerState(text)
            })?;
            let of = (param.var.dims(), param.var.dtype());
            let values = slots
                .iter()
                .map(|(slot, _)| Ok(Values::read(find(state, slot, &param.name, of)?)?))
                .collect::<Result<Vec<_>>>()?;
            expected += 1 + values.len();
            loaded.push((step, values));
        }
        if state.len() != expected {
            let known = self.state()?;
            let unknown: Vec<_> = state.keys().filter(|k| !known.contains_key(*k)).collect();
            return Err(Error::OptimizerState(format!("unknown tensors {unknown:?}")));
        }
        for (param, (step, values)) in self.params.iter_mut().zip(loaded) {
            (param.step, param.slots) = (step, values);
        }
        Ok(())
    }
}

fn find<'a>(
    state: &'a BTreeMap<String, Tensor>,
    slot: &str,
    name: &str,
    (dims, dtype): (&[usize], DType),
) -> Result<&'a Tensor> {
    let key = format!("{slot}/{name}");
    let Some(tensor) = state.get(&key) else {
        return Err(Error::OptimizerState(format!("tensor {key} is missing")));
    };
    if tensor.dims() != dims || tensor.dtype() != dtype {
        let (d, t) = (tensor.dims(), tensor.dtype());
        let text = format!("tensor {key}: expected {dims:?} {dtype:?}, got {d:?} {t:?}");
        return Err(Error::OptimizerState(text));
    }
    Ok(tensor)
}

impl Param {
    fn update(&mut self, config: &OptimizerConfig, gradient: &Values, lr: f64) -> Result<()> {
        let expected = self.var.elem_count();
        if gradient.len() != expected {
            let (name, n) = (&self.name, gradient.len());
            let text = format!("gradient of {name}: expected {expected} numbers, got {n}");
            return Err(Error::OptimizerState(text));
        }
        self.step += 1;
        let (decay, step, slots) = (self.decay, self.step, &mut self.slots);
        let scalars = (lr, decay, step);
        change(&self.var, &mut |p| match p {
            ValuesMut::F32(p) => update(config, scalars, p, gradient, slots),
            ValuesMut::F64(p) => update(config, scalars, p, gradient, slots),
        })?;
        Ok(())
    }
}

/// Picks the loop. `slots` has the order of `OptimizerConfig::slots`.
fn update<T: Real>(
    config: &OptimizerConfig,
    (lr, decay, t): (f64, f64, u64),
    p: &mut [T],
    gradient: &Values,
    slots: &mut [Values],
) -> candle_core::Result<()> {
    let g = T::slice(gradient);
    let mut slots = slots.iter_mut().map(T::slice_mut).collect::<Option<Vec<_>>>();
    let (Some(g), Some(slots)) = (g, slots.as_deref_mut()) else {
        candle_core::bail!("a gradient must have the type of its parameter");
    };
    match (config, slots) {
        (OptimizerConfig::Sgd(c), []) => loops::sgd(c, (lr, decay, t), p, g, None),
        (OptimizerConfig::Sgd(c), [b]) => loops::sgd(c, (lr, decay, t), p, g, Some(b)),
        (OptimizerConfig::Adam(c), [m, v]) => {
            loops::adam(c, false, (lr, decay, t), p, g, (m, v, None));
        }
        (OptimizerConfig::Adam(c), [m, v, top]) => {
            loops::adam(c, false, (lr, decay, t), p, g, (m, v, Some(top)));
        }
        (OptimizerConfig::AdamW(c), [m, v]) => {
            loops::adam(c, true, (lr, decay, t), p, g, (m, v, None));
        }
        (OptimizerConfig::AdamW(c), [m, v, top]) => {
            loops::adam(c, true, (lr, decay, t), p, g, (m, v, Some(top)));
        }
        (OptimizerConfig::Adagrad(c), [s]) => loops::adagrad(c, (lr, decay, t), p, g, s),
        (OptimizerConfig::RmsProp(c), [s, rest @ ..]) => {
            let (mean, buffer) = match rest {
                [mean, buffer] => (Some(&mut **mean), Some(&mut **buffer)),
                [one] if c.centered => (Some(&mut **one), None),
                [one] => (None, Some(&mut **one)),
                _ => (None, None),
            };
            loops::rmsprop(c, (lr, decay), p, g, s, mean, buffer);
        }
        (OptimizerConfig::RmsPropGraves(c), [n, m, d]) => {
            loops::rmsprop_graves(c, (lr, decay), p, g, (n, m, d));
        }
        (config, slots) => {
            candle_core::bail!("{} state tensors do not fit {config:?}", slots.len())
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
