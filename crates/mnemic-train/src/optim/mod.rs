//! Optimisers whose state can be saved and loaded without losing a bit.

mod config;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var, bail};
use mnemic_kernels::optimizer as kernels;
use mnemic_kernels::optimizer::Gradient;

pub use config::{Adagrad, Adam, Decay, OptimizerConfig, RmsProp, RmsPropGraves, Sgd};

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
    slots: Vec<Tensor>,
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
            if !matches!(var.dtype(), DType::F32 | DType::F64) {
                bail!("{name}: only f32 and f64 parameters can be trained, got {:?}", var.dtype());
            }
            let decays = decay.applies(&name, var.rank());
            let slots = slots
                .iter()
                .map(|(_, first)| full(&var, *first))
                .collect::<candle_core::Result<_>>()?;
            Ok(Param { name, decay: if decays { weight_decay } else { 0. }, step: 0, slots, var })
        };
        let params = vars.into_iter().map(param).collect::<candle_core::Result<_>>()?;
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
        for (param, (name, _)) in self.params.iter().zip(&gradients.entries) {
            if param.name != *name {
                let text = format!("expected the gradient of {}, got that of {name}", param.name);
                return Err(Error::OptimizerState(text));
            }
        }
        let Self { config, params } = self;
        // On a CUDA device all parameters change in few launches.
        kernels::together(|| {
            for (param, (_, gradient)) in params.iter_mut().zip(&gradients.entries) {
                if let Some(gradient) = gradient
                    && let Err(e) = param.update(config, gradient.view(), lr)
                {
                    return Ok(Err(e));
                }
            }
            Ok(Ok(()))
        })?
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
                state.insert(key, values.force_contiguous()?.to_device(&Device::Cpu)?);
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
                .map(|(slot, _)| {
                    let tensor = find(state, slot, &param.name, of)?;
                    Ok(tensor.to_device(param.var.device())?.detach().force_contiguous()?)
                })
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

/// A tensor like `var`, filled with `x`.
fn full(var: &Var, x: f64) -> candle_core::Result<Tensor> {
    let zeros = Tensor::zeros(var.shape(), var.dtype(), var.device())?;
    if x == 0. { Ok(zeros) } else { zeros + x }
}

impl Param {
    fn update(&mut self, config: &OptimizerConfig, gradient: Gradient<'_>, lr: f64) -> Result<()> {
        let (var, g) = (&self.var, gradient.tensor);
        if g.dims() != var.dims() || g.dtype() != var.dtype() {
            let (shape, dtype) = (var.dims(), var.dtype());
            let (name, got, of) = (&self.name, g.dims(), g.dtype());
            let text =
                format!("gradient of {name}: expected {shape:?} {dtype:?}, got {got:?} {of:?}");
            return Err(Error::OptimizerState(text));
        }
        let scalars = (lr, self.decay, self.step + 1);
        update(config, scalars, var, gradient, &self.slots)?;
        self.step += 1;
        Ok(())
    }
}

/// Steps by the kernel. `slots` has the order of `OptimizerConfig::slots`.
fn update(
    config: &OptimizerConfig,
    (lr, weight_decay, t): (f64, f64, u64),
    p: &Tensor,
    g: Gradient<'_>,
    slots: &[Tensor],
) -> candle_core::Result<()> {
    match (config, slots) {
        (OptimizerConfig::Sgd(c), [] | [_]) => {
            let Sgd { momentum, dampening, nesterov, .. } = *c;
            let sgd = kernels::Sgd { lr, momentum, dampening, nesterov, weight_decay };
            sgd.step(t, p, g, slots.first())
        }
        (OptimizerConfig::Adam(c) | OptimizerConfig::AdamW(c), [m, v, top @ ..]) => {
            let decoupled = matches!(config, OptimizerConfig::AdamW(_));
            let Adam { betas, eps, .. } = *c;
            let state =
                kernels::AdamState { exp_avg: m, exp_avg_sq: v, max_exp_avg_sq: top.first() };
            kernels::Adam { lr, betas, eps, weight_decay, decoupled }.step(t, p, g, state)
        }
        (OptimizerConfig::Adagrad(c), [sum]) => {
            let Adagrad { lr_decay, eps, .. } = *c;
            kernels::Adagrad { lr, lr_decay, eps, weight_decay }.step(t, p, g, sum)
        }
        (OptimizerConfig::RmsProp(c), [square_avg, rest @ ..]) => {
            let RmsProp { alpha, eps, momentum, centered, .. } = *c;
            let (grad_avg, rest) = rest.split_at(usize::from(centered).min(rest.len()));
            let state = kernels::RmsPropState {
                square_avg,
                grad_avg: grad_avg.first(),
                momentum_buffer: rest.first(),
            };
            kernels::RmsProp { lr, alpha, eps, momentum, weight_decay }.step(p, g, state)
        }
        (OptimizerConfig::RmsPropGraves(c), [square_avg, grad_avg, momentum_buffer]) => {
            let RmsPropGraves { alpha, momentum, eps, .. } = *c;
            let state = kernels::RmsPropGravesState { square_avg, grad_avg, momentum_buffer };
            kernels::RmsPropGraves { lr, alpha, momentum, eps, weight_decay }.step(p, g, state)
        }
        (config, slots) => bail!("{} state tensors do not fit {config:?}", slots.len()),
    }
}

#[cfg(test)]
mod tests;
