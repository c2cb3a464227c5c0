//! One sitting of a run: from its start or a checkpoint to a reason to stop.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use candle_core::Var;

use super::state::{Best, RunState};
use crate::checkpoint::{Checkpoint, Checkpoints, Contents, Found};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::observer::StartInfo;
use crate::optim::Optimizer;
use crate::report::cpu_seconds;
use crate::schedule::ScheduleState;
use crate::{
    Ema, EpochRecord, Interrupt, Observer, Phase, Problem, Reason, Report, Schedule, TrainConfig,
    Validation,
};

pub(super) struct Session<'a, P: Problem> {
    pub(super) config: &'a TrainConfig,
    pub(super) interrupt: &'a Interrupt,
    pub(super) problem: &'a mut P,
    pub(super) observer: &'a mut (dyn Observer + Send),
    pub(super) vars: Vec<(String, Var)>,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) ema: Option<Ema>,
    pub(super) state: RunState,
    pub(super) checkpoints: Checkpoints,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// The batches of the epoch under way, and those of its last step.
    pub(super) batches: Vec<Vec<usize>>,
    pub(super) step_batches: Range<usize>,
    resumed_from: Option<u64>,
}

/// Times of this session, and those of earlier ones.
pub(super) struct Clock {
    start: Instant,
    cpu_start: Option<f64>,
    earlier: f64,
    earlier_cpu: Option<f64>,
    /// Since when this epoch's batches are trained in this session, and how many examples and steps that were.
    pub(super) epoch_start: Instant,
    pub(super) epoch_examples: usize,
    pub(super) epoch_steps: usize,
    /// Sums over the session's earlier epochs.
    examples: usize,
    train_seconds: f64,
}

impl Clock {
    fn new(state: &RunState) -> Self {
        Self {
            start: Instant::now(),
            cpu_start: cpu_seconds(),
            earlier: state.seconds,
            earlier_cpu: state.cpu_seconds,
            epoch_start: Instant::now(),
            epoch_examples: 0,
            epoch_steps: 0,
            examples: 0,
            train_seconds: 0.,
        }
    }

    /// Seconds of the run.
    pub(super) fn seconds(&self) -> f64 {
        self.earlier + self.start.elapsed().as_secs_f64()
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some(self.earlier_cpu.unwrap_or(0.) + cpu_seconds()? - self.cpu_start?)
    }

    fn begin_epoch(&mut self) {
        (self.epoch_start, self.epoch_examples, self.epoch_steps) = (Instant::now(), 0, 0);
    }

    fn end_epoch(&mut self) {
        self.train_seconds += self.epoch_start.elapsed().as_secs_f64();
        self.examples += self.epoch_examples;
    }

    fn examples_per_second(&self) -> f64 {
        if self.train_seconds > 0. { self.examples as f64 / self.train_seconds } else { 0. }
    }
}

impl<'a, P: Problem> Session<'a, P> {
    pub(super) fn start(
        config: &'a TrainConfig,
        interrupt: &'a Interrupt,
        problem: &'a mut P,
        run_dir: &Path,
        observer: &'a mut (dyn Observer + Send),
    ) -> Result<Self> {
        let vars = problem.store().vars();
        if vars.is_empty() {
            return Err(Error::config("problem", "expected parameters in its store, got none"));
        }
        let mut optimizer = Optimizer::new(config.optimizer.clone(), vars.clone())?;
        let mut schedule = Schedule::new(config.schedule.clone(), config.optimizer.lr())?;
        let mut checkpoints = Checkpoints::of_run(run_dir);
        let (found, mut warnings) = checkpoints.newest_good()?;
        let mut state = RunState::new(config, problem.fingerprint());
        let mut averages = None;
        let mut resumed_from = None;
        if let Some(Found { checkpoint, contents }) = found {
            let (path, fingerprint) = (checkpoint.path(), problem.fingerprint());
            state = RunState::read(contents.state, path, config, &fingerprint)?;
            load_weights(problem, &checkpoint, contents.weights)?;
            optimizer.load_state(&contents.optimizer).map_err(|e| {
                Error::checkpoint(path.join("optimizer.safetensors"), e.to_string())
            })?;
            schedule.load_state(state.schedule.clone());
            problem.load_state(&state.problem)?;
            averages = contents.average;
            let best = state.best.as_ref().map(|b| b.checkpoint.as_str());
            checkpoints.resume_at(&checkpoint.name(), best)?;
            resumed_from = Some(state.step);
        }
        let mut ema = config.ema.clone().map(|c| Ema::new(c, vars.clone())).transpose()?;
        if let (Some(ema), Some(averages)) = (&mut ema, averages) {
            ema.load_state(&averages, state.ema_updates)?;
        }
        let at = state.metrics;
        let metrics = Metrics::open(run_dir, config.tensorboard, at, &mut warnings)?;
        let clock = Clock::new(&state);
        let mut session = Self {
            config,
            interrupt,
            problem,
            observer,
            vars,
            optimizer,
            schedule,
            ema,
            state,
            checkpoints,
            metrics,
            clock,
            batches: vec![],
            step_batches: 0..0,
            resumed_from,
        };
        warnings.iter().for_each(|w| session.warn(w));
        Ok(session)
    }

    pub(super) fn run(mut self) -> Result<Report> {
        let parameters = self.problem.store().num_parameters();
        let (epoch, epochs, resumed_from) =
            (self.state.epoch, self.config.epochs, self.resumed_from);
        tracing::info!(epoch, epochs, parameters, resumed_from, "training starts");
        self.observer.on_start(&StartInfo { epochs, epoch, parameters, resumed_from });
        let reason = loop {
            if let Some(reason) = self.finished() {
                break reason;
            }
            if self.interrupt.is_requested() {
                break Reason::Interrupted;
            }
            if let Some(reason) = self.run_epoch()? {
                break reason;
            }
        };
        self.finish(reason)
    }

    /// The reason to stop between two epochs: a function of the state, so that a finished run stays finished.
    fn finished(&self) -> Option<Reason> {
        let (state, config) = (&self.state, self.config);
        if state.batch > 0 {
            // Within an epoch (or before its validation) only time can be over already.
            return self.time_is_over().then_some(Reason::Time);
        }
        if config.stop_when.as_ref().is_some_and(|stop| state.solved_epochs >= stop.epochs) {
            return Some(Reason::Solved);
        }
        if config.patience.is_some_and(|patience| state.bad_epochs >= patience) {
            return Some(Reason::Patience);
        }
        if state.epoch >= config.epochs {
            return Some(Reason::Epochs);
        }
        self.time_is_over().then_some(Reason::Time)
    }

    pub(super) fn time_is_over(&self) -> bool {
        self.config.max_seconds.is_some_and(|limit| self.clock.seconds() >= limit)
    }

    /// Trains to the end of the epoch and validates, or gives the reason to stop before that.
    fn run_epoch(&mut self) -> Result<Option<Reason>> {
        let epoch = self.state.epoch;
        self.problem.begin_epoch(epoch)?;
        self.batches = self.problem.train_batches(epoch)?;
        let total = self.batches.len();
        if total == 0 || self.state.batch > total {
            let done = self.state.batch;
            let reason = format!("epoch {epoch} has {total} batches, of which {done} are done");
            return Err(Error::config("problem", reason));
        }
        self.clock.begin_epoch();
        while self.state.batch < total {
            let end = total.min(self.state.batch + self.config.accumulate);
            self.step_batches = self.state.batch..end;
            self.step()?;
            let stop = if self.interrupt.is_requested() {
                Some(Reason::Interrupted)
            } else if end < total && self.time_is_over() {
                Some(Reason::Time)
            } else {
                None
            };
            let every = self.config.checkpoint_every_steps;
            let due = end < total && every.is_some_and(|n| self.state.step.is_multiple_of(n));
            if due || stop.is_some() {
                self.save(false)?;
            }
            if stop.is_some() {
                self.clock.end_epoch();
                return Ok(stop);
            }
        }
        self.clock.end_epoch();
        self.end_epoch()?;
        Ok(None)
    }

    fn end_epoch(&mut self) -> Result<()> {
        let epoch = self.state.epoch;
        let validation = self.validate()?;
        let phase = self.problem.end_epoch(epoch, &validation)?;
        let best = self.is_best(&validation)?;
        if best {
            let checkpoint = String::new(); // named when it is saved
            self.state.best = Some(Best { epoch, validation: validation.clone(), checkpoint });
            self.state.bad_epochs = 0;
        } else {
            self.state.bad_epochs += 1;
        }
        if self.schedule.end_epoch(validation.loss) {
            let lr = self.schedule.lr(0, 0);
            tracing::info!(epoch, lr, "learning rate cut: the validation loss is on a plateau");
        }
        self.count_solved(&validation);
        let sums = std::mem::take(&mut self.state.sums);
        let record = EpochRecord {
            epoch,
            step: self.state.step,
            train_loss: sums.mean_loss(),
            train_metrics: sums.mean_metrics(),
            validation,
            lr: sums.lr,
            best,
            seconds: self.clock.seconds(),
        };
        self.metrics.epoch(&record)?;
        self.state.history.push(record.clone());
        (self.state.epoch, self.state.batch) = (epoch + 1, 0);
        if phase == Phase::New {
            self.new_phase();
        }
        self.save(best && phase == Phase::Same)?;
        tracing::info!(
            epoch,
            step = record.step,
            train_loss = record.train_loss,
            validation_loss = record.validation.loss,
            best,
            "epoch done"
        );
        self.observer.on_epoch(&record);
        Ok(())
    }

    /// Whether a validation is the best so far.
    fn is_best(&self, validation: &Validation) -> Result<bool> {
        let best = self.state.best.as_ref().map(|best| &best.validation);
        let Some(by) = &self.config.best_by else {
            return Ok(best.is_none_or(|best| validation.loss < best.loss));
        };
        by.better(validation, best).ok_or_else(|| {
            let known: Vec<_> = validation.metrics.keys().map(String::as_str).collect();
            let known = known.join(", ");
            let reason = format!("validation gives no {}; it gives loss, {known}", by.metric);
            Error::config("best_by.metric", reason)
        })
    }

    fn new_phase(&mut self) {
        let state = &mut self.state;
        tracing::info!(epoch = state.epoch, "a new phase of training begins");
        (state.phase_epoch, state.phase_step) = (state.epoch, state.step);
        (state.best, state.bad_epochs, state.solved_epochs) = (None, 0, 0);
        self.schedule.load_state(ScheduleState::default());
    }

    fn count_solved(&mut self, validation: &Validation) {
        let Some(stop) = &self.config.stop_when else { return };
        match validation.get(&stop.metric) {
            Some(value) if value <= stop.below => self.state.solved_epochs += 1,
            Some(_) => self.state.solved_epochs = 0,
            None => {
                let known: Vec<_> = validation.metrics.keys().map(String::as_str).collect();
                let (metric, known) = (&stop.metric, known.join(", "));
                let text = format!(
                    "stop_when.metric: validation gives no {metric}; it gives loss, {known}"
                );
                self.warn(&text);
            }
        }
    }

    /// Validates the weights, or their average.
    fn validate(&mut self) -> Result<Validation> {
        self.ema.as_mut().map_or(Ok(()), Ema::swap)?;
        let validation = self.problem.validate();
        self.ema.as_mut().map_or(Ok(()), Ema::swap)?;
        let mut validation = validation?;
        if !validation.loss.is_finite() {
            return Err(self.bad("validation loss", validation.loss, None));
        }
        let bad = |(name, value): (&String, &f64)| (!value.is_finite()).then(|| name.clone());
        let bad: Vec<_> = validation.metrics.iter().filter_map(bad).collect();
        for name in bad {
            if let Some(value) = validation.metrics.remove(&name) {
                self.warn(&format!("validation metric {name} is {value} and is left out"));
            }
        }
        Ok(validation)
    }

    /// Saves a checkpoint; refuses to save a NaN.
    pub(super) fn save(&mut self, best: bool) -> Result<()> {
        if let Some((name, index, value)) = self.bad_parameter()? {
            return Err(self.bad(&format!("parameter {name}"), value, Some(index)));
        }
        let name = self.checkpoints.next_name(self.state.step)?;
        if let (true, Some(best)) = (best, &mut self.state.best) {
            best.checkpoint.clone_from(&name);
        }
        let state = &mut self.state;
        state.problem = self.problem.state();
        state.schedule = self.schedule.state().clone();
        state.ema_updates = self.ema.as_ref().map_or(0, Ema::updates);
        state.metrics = self.metrics.lengths();
        (state.seconds, state.cpu_seconds) = (self.clock.seconds(), self.clock.cpu_seconds());
        let weights = self.vars.iter().map(|(n, v)| (n.clone(), v.as_detached_tensor())).collect();
        let contents = Contents {
            weights,
            average: self.ema.as_ref().map(Ema::state).transpose()?,
            optimizer: self.optimizer.state()?,
            state: serde_json::to_value(&*state).map_err(Error::problem)?,
        };
        let best = self.state.best.as_ref().map(|b| b.checkpoint.as_str());
        self.checkpoints.save(&name, best, &contents)?;
        tracing::debug!(step = self.state.step, name, "checkpoint saved");
        Ok(())
    }

    pub(super) fn warn(&mut self, message: &str) {
        tracing::warn!("{message}");
        self.observer.on_warning(message);
    }

    /// Leaves the best weights in the model, and reports.
    fn finish(mut self, stopped: Reason) -> Result<Report> {
        if stopped != Reason::Interrupted {
            match &self.state.best {
                Some(best) => {
                    let checkpoint = self.checkpoints.named(&best.checkpoint);
                    let weights = checkpoint.weights()?;
                    load_weights(self.problem, &checkpoint, weights)?;
                }
                None => self.ema.as_mut().map_or(Ok(()), Ema::swap)?,
            }
        }
        let (best_epoch, best_validation) =
            self.state.best.map(|b| (b.epoch, b.validation)).unzip();
        let report = Report {
            stopped,
            best_epoch,
            best_validation,
            epochs: self.state.epoch,
            steps: self.state.step,
            seconds: self.clock.seconds(),
            cpu_seconds: self.clock.cpu_seconds(),
            examples_per_second: self.clock.examples_per_second(),
            no_gradient: self.state.no_gradient.unwrap_or_default(),
            history: self.state.history,
            resumed_from: self.resumed_from,
        };
        tracing::info!(?stopped, steps = report.steps, seconds = report.seconds, "training stops");
        self.observer.on_end(&report);
        Ok(report)
    }
}

fn load_weights<P: Problem>(
    problem: &P,
    checkpoint: &Checkpoint,
    weights: impl IntoIterator<Item = (String, candle_core::Tensor)>,
) -> Result<()> {
    problem.store().load(&weights.into_iter().collect())?.map_err(|m| {
        let reason = format!(
            "its tensors are not those of the model; missing {:?}, unknown {:?}, of another shape \
             (name, expected, found) {:?}",
            m.missing, m.unused, m.misshapen
        );
        Error::checkpoint(checkpoint.path(), reason)
    })
}
