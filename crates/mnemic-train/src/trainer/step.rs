//! One optimiser step.

use std::time::Duration;

use candle_core::DType;
use mnemic_kernels::optimizer::first_non_finite;
use mnemic_layers::Context;

use super::session::Session;
use super::state::Sums;
use crate::error::{Error, NotFinite, Result};
use crate::{Accumulator, Ema, Gradients, LossOutput, Problem, StepInfo};

impl<P: Problem> Session<'_, P> {
    /// Trains on the batches `step_batches`.
    pub(super) fn step(&mut self) -> Result<()> {
        let (mut gradients, sums) = self.gradients()?;
        if self.state.no_gradient.is_none() {
            let missing = gradients.missing();
            if !missing.is_empty() {
                let text = format!("no gradient reaches {}", missing.join(", "));
                self.warn(&text);
            }
            self.state.no_gradient = Some(missing);
        }
        let grad_norm = self.config.clip.apply(&mut gradients)?;
        if !grad_norm.is_finite() {
            return Err(self.bad_gradient(&gradients, grad_norm)?);
        }
        let (step, epoch) = (self.state.step, self.state.epoch);
        let in_phase = (step - self.state.phase_step, epoch - self.state.phase_epoch);
        let lr = self.schedule.lr(in_phase.0, in_phase.1) * self.problem.lr_scale();
        self.optimizer.step(&gradients, lr)?;
        self.problem.after_step()?;
        self.ema.as_mut().map_or(Ok(()), Ema::update)?;

        let state = &mut self.state;
        state.sums.add(&sums, lr);
        state.step += 1;
        state.batch = self.step_batches.end;
        state.batches += self.step_batches.len() as u64;
        state.examples += sums.examples as u64;
        self.clock.epoch_examples += sums.examples;
        self.clock.epoch_steps += 1;
        self.tell(&sums, lr, grad_norm)
    }

    /// The mean gradients over the step's batches, and their sums.
    fn gradients(&mut self) -> Result<(Gradients, Sums)> {
        let mut sums = Sums::default();
        let mut gathered = Accumulator::new();
        for (i, batch) in self.step_batches.clone().enumerate() {
            let data = self.problem.load_batch(&self.batches[batch])?;
            let ctx = Context::train(self.config.seed, self.state.batches + i as u64);
            let output = self.problem.loss(&data, &ctx)?;
            self.count(&output, &mut sums)?;
            let gradients = Gradients::new(&self.vars, &mnemic_kernels::backward(&output.loss)?)?;
            gathered.add(gradients, output.weight)?;
        }
        let gradients = gathered.take();
        gradients.map(|g| (g, sums)).ok_or_else(|| Error::config("accumulate", "no batch"))
    }

    /// Checks a batch's loss and adds it to the step's sums.
    fn count(&self, output: &LossOutput, sums: &mut Sums) -> Result<()> {
        if output.loss.rank() != 0 {
            let text = format!("expected a scalar loss, got shape {:?}", output.loss.dims());
            return Err(Error::problem(text));
        }
        if !(output.weight.is_finite() && output.weight > 0.) {
            let text = format!("expected a batch weight above 0, got {}", output.weight);
            return Err(Error::problem(text));
        }
        let loss = output.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if !loss.is_finite() {
            // A parameter that went bad in the step before is the cause rather than the loss.
            return Err(match self.bad_parameter()? {
                Some((name, i, x)) => self.bad(&format!("parameter {name}"), x, Some(i)),
                None => self.bad("loss", loss, None),
            });
        }
        sums.loss += loss * output.weight;
        sums.weight += output.weight;
        sums.examples += output.examples;
        for (name, sum) in &output.sums {
            if !sum.is_finite() {
                return Err(self.bad(&format!("metric {name}"), *sum, None));
            }
            *sums.metrics.entry((*name).to_string()).or_default() += sum;
        }
        Ok(())
    }

    /// Tells the observer and the metric files.
    fn tell(&mut self, step: &Sums, lr: f64, grad_norm: f64) -> Result<()> {
        let (state, clock, config) = (&self.state, &self.clock, self.config);
        let steps_per_epoch = self.batches.len().div_ceil(config.accumulate);
        let step_in_epoch = state.batch.div_ceil(config.accumulate);
        let metrics = state.sums.mean_metrics();
        let elapsed = clock.epoch_start.elapsed().as_secs_f64();
        let left = config.epochs.saturating_sub(state.epoch) * steps_per_epoch;
        let left = left.saturating_sub(step_in_epoch);
        let mut eta = elapsed / clock.epoch_steps as f64 * left as f64;
        if let Some(limit) = config.max_seconds {
            eta = eta.min((limit - clock.seconds()).max(0.));
        }
        let info = StepInfo {
            epoch: state.epoch,
            epochs: config.epochs,
            step: state.step,
            step_in_epoch,
            steps_per_epoch,
            loss: state.sums.mean_loss(),
            step_loss: step.mean_loss(),
            error: metrics.get("error").copied(),
            metrics: &metrics,
            lr,
            grad_norm,
            examples_per_second: clock.epoch_examples as f64 / elapsed.max(1e-9),
            eta: Duration::try_from_secs_f64(eta).unwrap_or(Duration::MAX),
        };
        if config.log_every > 0 && state.step.is_multiple_of(config.log_every) {
            self.metrics.step(&info)?;
        }
        self.observer.on_step(&info);
        Ok(())
    }

    /// The first parameter with a NaN or infinity: name, flat index, value.
    pub(super) fn bad_parameter(&self) -> Result<Option<(String, usize, f64)>> {
        for (name, var) in &self.vars {
            if let Some((index, value)) = first_non_finite(var.as_tensor())? {
                return Ok(Some((name.clone(), index, value)));
            }
        }
        Ok(None)
    }

    fn bad_gradient(&self, gradients: &Gradients, norm: f64) -> Result<Error> {
        Ok(match gradients.first_non_finite()? {
            Some((name, index, value)) => {
                self.bad(&format!("gradient of {name}"), value, Some(index))
            }
            None => self.bad("gradient norm", norm, None),
        })
    }

    /// The report of a NaN or infinity in the present step.
    pub(super) fn bad(&self, tensor: &str, value: f64, index: Option<usize>) -> Error {
        let batches = self.batches.get(self.step_batches.clone()).unwrap_or_default();
        let words: Vec<_> = batches.iter().map(|b| self.problem.describe_batch(b)).collect();
        // Before the step is counted its number is one more than the steps done.
        let under_way = self.state.batch <= self.step_batches.start;
        Error::NotFinite(Box::new(NotFinite {
            tensor: tensor.into(),
            value,
            index,
            step: self.state.step + u64::from(under_way),
            epoch: self.state.epoch,
            batch: self.step_batches.start,
            description: words.join("; "),
        }))
    }
}
