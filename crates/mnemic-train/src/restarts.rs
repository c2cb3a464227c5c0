//! Several runs from different seeds, of which the best one counts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::StopWhen;
use crate::error::{Error, Result};
use crate::{Reason, Report};

/// How often to start, and when to be content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartsConfig {
    /// The number of runs; their seeds are `seed`, `seed + 1`, ...
    pub count: usize,
    /// The first seed.
    #[serde(default)]
    pub seed: u64,
    /// No further run once the best validation of one is good enough (`epochs` has no meaning here).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when: Option<StopWhen>,
}

/// What the runs have come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restarts {
    /// The seed with the lowest validation loss, if any run got as far as a validation.
    pub best_seed: Option<u64>,
    /// The folder of that run.
    pub best_dir: Option<PathBuf>,
    /// Seed and report of every run, in order.
    pub reports: Vec<(u64, Report)>,
    /// Seed and error of every run that met a NaN or an infinity.
    pub failed: Vec<(u64, String)>,
    /// Whether a run was interrupted, so that later ones did not start.
    pub interrupted: bool,
}

/// Trains `config.count` times and chooses by validation loss, never by test results.
///
/// `run` gets a seed and the folder `run_dir/seed-<seed>` and calls [`crate::Trainer::fit`] there. Called again after an
/// interruption, runs that are done only give their reports, and the others go on. A run that diverges to NaN is left
/// out.
///
/// ```no_run
/// use mnemic_train::{RestartsConfig, Trainer, best_of};
/// # fn problem(_seed: u64) -> mnemic_train::Result<Never> { unimplemented!() }
/// # use mnemic_train::{LossOutput, Problem, Result, Validation};
/// # struct Never;
/// # impl Problem for Never {
/// #     type Batch = ();
/// #     fn store(&self) -> &mnemic_layers::ParamStore { unimplemented!() }
/// #     fn train_batches(&self, _: usize) -> Result<Vec<Vec<usize>>> { unimplemented!() }
/// #     fn load_batch(&self, _: &[usize]) -> Result<()> { unimplemented!() }
/// #     fn loss(&self, _: &(), _: &mnemic_layers::Context) -> Result<LossOutput> { unimplemented!() }
/// #     fn validate(&self) -> Result<Validation> { unimplemented!() }
/// # }
/// # fn example(trainer: Trainer) -> Result<()> {
/// let restarts = RestartsConfig { count: 10, seed: 0, stop_when: None };
/// let all = best_of(&restarts, "runs/mine", |seed, dir| {
///     trainer.fit(&mut problem(seed)?, dir, &mut ())
/// })?;
/// println!("seed {:?} is best", all.best_seed);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Any other error of a run; all runs diverged; `count` is 0.
pub fn best_of(
    config: &RestartsConfig,
    run_dir: impl AsRef<Path>,
    mut run: impl FnMut(u64, &Path) -> Result<Report>,
) -> Result<Restarts> {
    if config.count == 0 {
        return Err(Error::config("restarts.count", "expected at least 1, got 0"));
    }
    let mut all = Restarts {
        best_seed: None,
        best_dir: None,
        reports: vec![],
        failed: vec![],
        interrupted: false,
    };
    let mut lowest = f64::INFINITY;
    let mut error = None;
    for seed in (0..config.count as u64).map(|i| config.seed.wrapping_add(i)) {
        let dir = run_dir.as_ref().join(format!("seed-{seed}"));
        let report = match run(seed, &dir) {
            Err(e @ Error::NotFinite(_)) => {
                tracing::warn!(seed, error = %e, "a restart diverged");
                all.failed.push((seed, e.to_string()));
                error = Some(e);
                continue;
            }
            other => other?,
        };
        all.interrupted = report.stopped == Reason::Interrupted;
        let validation = report.best_validation.clone();
        all.reports.push((seed, report));
        let Some(validation) = validation else {
            if all.interrupted {
                break;
            }
            continue;
        };
        if validation.loss < lowest {
            lowest = validation.loss;
            (all.best_seed, all.best_dir) = (Some(seed), Some(dir));
        }
        let metric = |stop: &StopWhen| validation.get(&stop.metric).map(|x| x <= stop.below);
        let content = config.stop_when.as_ref().and_then(metric) == Some(true);
        if all.interrupted || content {
            break;
        }
    }
    match error {
        Some(error) if all.reports.is_empty() => Err(error),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NotFinite, Validation};

    fn report(loss: f64, stopped: Reason) -> Report {
        Report {
            stopped,
            best_epoch: Some(0),
            best_validation: Some(Validation::new(loss).with("error", loss / 10.)),
            history: vec![],
            epochs: 1,
            steps: 1,
            seconds: 1.,
            cpu_seconds: None,
            examples_per_second: 1.,
            no_gradient: vec![],
            resumed_from: None,
        }
    }

    fn diverged() -> Error {
        Error::NotFinite(Box::new(NotFinite {
            tensor: "loss".into(),
            value: f64::NAN,
            index: None,
            step: 1,
            epoch: 0,
            batch: 0,
            description: "examples [0]".into(),
        }))
    }

    fn seeds(all: &Restarts) -> Vec<u64> {
        all.reports.iter().map(|(seed, _)| *seed).collect()
    }

    #[test]
    fn the_lowest_validation_loss_wins() {
        let config = RestartsConfig { count: 4, seed: 5, stop_when: None };
        let losses = [3., 1., f64::NAN, 2.];
        let run = |seed: u64, dir: &Path| {
            assert!(dir.ends_with(format!("seed-{seed}")));
            let loss = losses[seed as usize - 5];
            if loss.is_nan() { Err(diverged()) } else { Ok(report(loss, Reason::Epochs)) }
        };
        let all = best_of(&config, "runs", run).unwrap();
        assert_eq!((all.best_seed, seeds(&all)), (Some(6), vec![5, 6, 8]));
        assert_eq!(all.best_dir, Some(PathBuf::from("runs/seed-6")));
        assert_eq!(all.failed[0].0, 7);
        let stop_when = Some(StopWhen { metric: "error".into(), below: 0.1, epochs: 1 });
        let all = best_of(&RestartsConfig { stop_when, ..config }, "runs", run).unwrap();
        assert_eq!((all.best_seed, seeds(&all)), (Some(6), vec![5, 6]));
    }

    #[test]
    fn interruption_and_errors() {
        let config = RestartsConfig { count: 3, seed: 0, stop_when: None };
        let run = |seed, _: &Path| {
            Ok(report(1., if seed == 1 { Reason::Interrupted } else { Reason::Epochs }))
        };
        let all = best_of(&config, "runs", run).unwrap();
        assert!(all.interrupted);
        assert_eq!((seeds(&all), all.best_seed), (vec![0, 1], Some(0)));
        let none = best_of(&config, "runs", |_, _: &Path| Err(diverged())).unwrap_err();
        assert!(none.to_string().contains("loss is NaN in step 1"), "{none}");
        let other = best_of(&config, "runs", |_, _: &Path| Err(Error::problem("no data")));
        assert_eq!(other.unwrap_err().to_string(), "no data");
    }
}
