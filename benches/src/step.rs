//! One step of a workload on our side.

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use candle_nn::Optimizer as _;
pub(crate) use mnemic_benches::peer::Checked;
use mnemic_layers::ParamStore;
use mnemic_train::Gradients;
use mnemic_train::optim::{Adam, Optimizer, OptimizerConfig, Sgd};

/// Something that is done many times.
pub(crate) trait Step: Send {
    /// Computes what is compared with the peer; called once, before the first [`Step::run`].
    fn check(&mut self) -> Result<Checked>;
    /// One step, as it is timed.
    fn run(&mut self) -> Result<()>;
}

/// Where the backward pass begins.
pub(crate) enum Objective {
    /// The output is the loss.
    Loss,
    /// The gradient of the output is given, as in PyTorch's `output.backward(gradient)`: no loss is computed, so that a
    /// fast operation is not hidden behind it.
    Given(Tensor),
}

/// The rule by which parameters change.
pub(crate) enum Update {
    /// No parameters.
    None,
    /// Our optimiser, with its learning rate.
    Ours(Optimizer, f64),
    /// candle's gradient descent.
    CandleSgd(candle_nn::SGD),
    /// candle's AdamW; without decay it is Adam.
    CandleAdam(candle_nn::AdamW),
}

/// Learning rates of all workloads, on both sides.
pub(crate) const SGD_RATE: f64 = 1e-3;
pub(crate) const ADAM_RATE: f64 = 1e-3;

impl Update {
    /// Our gradient descent over the store's parameters.
    pub(crate) fn sgd(store: &ParamStore) -> Result<Self> {
        let config = OptimizerConfig::Sgd(Sgd::new(SGD_RATE));
        Ok(Self::Ours(Optimizer::new(config, store.vars())?, SGD_RATE))
    }

    /// Our Adam over the store's parameters.
    pub(crate) fn adam(store: &ParamStore) -> Result<Self> {
        let config = OptimizerConfig::Adam(Adam::new(ADAM_RATE));
        Ok(Self::Ours(Optimizer::new(config, store.vars())?, ADAM_RATE))
    }

    /// candle's gradient descent over the store's parameters.
    pub(crate) fn candle_sgd(store: &ParamStore) -> Result<Self> {
        let vars = store.vars().into_iter().map(|(_, var)| var).collect();
        Ok(Self::CandleSgd(candle_nn::SGD::new(vars, SGD_RATE)?))
    }

    /// candle's Adam over the store's parameters.
    pub(crate) fn candle_adam(store: &ParamStore) -> Result<Self> {
        let vars = store.vars().into_iter().map(|(_, var)| var).collect();
        let settings =
            candle_nn::ParamsAdamW { lr: ADAM_RATE, weight_decay: 0., ..Default::default() };
        Ok(Self::CandleAdam(candle_nn::AdamW::new(vars, settings)?))
    }

    /// Changes the parameters along their gradients.
    pub(crate) fn apply(&mut self, vars: &[(String, Var)], grads: &GradStore) -> Result<()> {
        match self {
            Self::None => {}
            Self::Ours(optimizer, rate) => optimizer.step(&Gradients::new(vars, grads)?, *rate)?,
            Self::CandleSgd(optimizer) => optimizer.step(grads)?,
            Self::CandleAdam(optimizer) => optimizer.step(grads)?,
        }
        Ok(())
    }
}

/// Forward, backward, update.
pub(crate) struct Training {
    /// The parameters.
    pub(crate) vars: Vec<(String, Var)>,
    /// Inputs that get a gradient and do not change.
    pub(crate) inputs: Vec<Var>,
    pub(crate) objective: Objective,
    pub(crate) update: Update,
    pub(crate) forward: Box<dyn Fn() -> Result<Tensor> + Send>,
}

impl Training {
    /// A training step of a whole model with its own loss.
    pub(crate) fn of(
        store: &ParamStore,
        update: Update,
        loss: impl Fn() -> Result<Tensor> + Send + 'static,
    ) -> Self {
        Self {
            vars: store.vars(),
            inputs: Vec::new(),
            objective: Objective::Loss,
            update,
            forward: Box::new(loss),
        }
    }

    fn backward(&self) -> Result<(Tensor, GradStore)> {
        let output = (self.forward)()?;
        let grads = match &self.objective {
            Objective::Loss => mnemic_kernels::backward(&output)?,
            Objective::Given(gradient) => mnemic_kernels::backward_from(&output, gradient)?,
        };
        Ok((output, grads))
    }
}

impl Step for Training {
    fn check(&mut self) -> Result<Checked> {
        let (output, grads) = self.backward()?;
        let value = match &self.objective {
            Objective::Loss => output,
            Objective::Given(gradient) => {
                (output.to_dtype(DType::F32)? * gradient.to_dtype(DType::F32)?)?.sum_all()?
            }
        };
        let all = self.vars.iter().map(|(_, var)| var).chain(&self.inputs);
        let all = all.filter_map(|var| grads.get(var));
        let squares = all.map(sum_of_squares).sum::<Result<f64>>()?;
        let value = f64::from(value.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        Ok(Checked { value, gradient: squares.sqrt() })
    }

    fn run(&mut self) -> Result<()> {
        let (_output, grads) = self.backward()?;
        self.update.apply(&self.vars, &grads)
    }
}

/// In 64 bits, so that the two sides do not differ by the order of a sum.
pub(crate) fn sum_of_squares(t: &Tensor) -> Result<f64> {
    if !t.device().is_cpu() {
        return Ok(t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?);
    }
    let values = t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn training(objective: Objective) -> Training {
        let x = Var::new(&[1f32, 2.], &Device::Cpu).unwrap();
        let input = x.clone();
        Training {
            vars: vec![],
            inputs: vec![x],
            objective,
            update: Update::None,
            forward: Box::new(move || Ok((input.as_tensor() * 3.)?)),
        }
    }

    #[test]
    fn a_given_gradient_enters_the_backward_pass() {
        let gradient = Tensor::new(&[3f32, 4.], &Device::Cpu).unwrap();
        let checked = training(Objective::Given(gradient)).check().unwrap();
        // y = (3, 6); dL/dx = 3 (3, 4).
        assert_eq!(checked, Checked { value: 33., gradient: 15. });
    }

    #[test]
    fn both_optimisers_move_the_parameters_alike() {
        let run = |ours: bool| {
            let store = ParamStore::new(0);
            let vb = store.builder(candle_core::DType::F32, &Device::Cpu);
            let w = vb.get_with_hints(2, "w", candle_nn::Init::Const(1.)).unwrap();
            let update = match ours {
                true => Update::adam(&store).unwrap(),
                false => Update::candle_adam(&store).unwrap(),
            };
            let mut step = Training::of(&store, update, move || Ok(w.sqr()?.sum_all()?));
            (0..5).for_each(|_| step.run().unwrap());
            store.vars()[0].1.to_vec1::<f32>().unwrap()
        };
        let (ours, candle) = (run(true), run(false));
        assert!((ours[0] - 0.995).abs() < 1e-4 && (ours[0] - candle[0]).abs() < 1e-6);
    }
}
