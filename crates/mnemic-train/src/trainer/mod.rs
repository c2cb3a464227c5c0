//! The training loop.

mod session;
mod state;
mod step;

use std::path::Path;

use crate::error::Result;
use crate::{Interrupt, Observer, Problem, Report, TrainConfig, on_big_stack};
use session::Session;

/// Trains a [`Problem`].
#[derive(Debug, Clone)]
pub struct Trainer {
    config: TrainConfig,
    interrupt: Interrupt,
}

impl Trainer {
    /// A trainer with these settings.
    ///
    /// # Errors
    /// A setting out of range, by name.
    pub fn new(config: TrainConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, interrupt: Interrupt::new() })
    }

    /// The same, saving and stopping when `interrupt` says so.
    pub fn with_interrupt(self, interrupt: Interrupt) -> Self {
        Self { interrupt, ..self }
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Trains until a reason to stop, on a thread with a large stack.
    ///
    /// `run_dir` gets `checkpoint/` (see [`crate::Checkpoints`]), `metrics.jsonl` and `tensorboard/`. If it holds a
    /// checkpoint already, training goes on from there and comes to the same bits as if it had never stopped; a run
    /// that is done only gives its report again.
    ///
    /// Afterwards the parameters are those of the best validation (averaged, with `ema`), unless the run was
    /// interrupted.
    ///
    /// # Errors
    /// A NaN or infinity in loss, gradients or parameters; a checkpoint of other settings or of another problem, or
    /// none that can be read; whatever the problem or the file system may raise. The last checkpoint is kept.
    pub fn fit<P: Problem + Send>(
        &self,
        problem: &mut P,
        run_dir: impl AsRef<Path>,
        observer: &mut (dyn Observer + Send),
    ) -> Result<Report> {
        let run_dir = run_dir.as_ref();
        // A device does its own waking.
        let on_cpu = problem.store().vars().iter().all(|(_, var)| var.device().is_cpu());
        let mut train = || {
            let session = Session::start(&self.config, &self.interrupt, problem, run_dir, observer);
            let report = session.and_then(Session::run);
            if let Err(error) = &report {
                tracing::error!(%error, "training stopped");
            }
            report
        };
        on_big_stack(|| if on_cpu { mnemic_kernels::awake(train) } else { train() })?
    }
}
