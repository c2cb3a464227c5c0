//! What a run has come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Validation;

/// Why training stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// All epochs were done.
    Epochs,
    /// The validation did not improve for `patience` epochs.
    Patience,
    /// The metric of `stop_when` was good enough.
    Solved,
    /// `max_seconds` were over. A checkpoint was saved.
    Time,
    /// A signal or [`crate::Interrupt::request`]. A checkpoint was saved.
    Interrupted,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Its number, counting from 0.
    pub epoch: usize,
    /// Optimiser steps of the whole run so far.
    pub step: u64,
    /// Mean training loss of the epoch, while its weights were changing.
    pub train_loss: f64,
    /// Mean training metrics of the epoch.
    pub train_metrics: BTreeMap<String, f64>,
    /// The validation after the epoch.
    pub validation: Validation,
    /// The learning rate of its last step.
    pub lr: f64,
    /// Whether this validation is the best so far.
    pub best: bool,
    /// Seconds of the run until the end of the epoch.
    pub seconds: f64,
}

/// What [`crate::Trainer::fit`] gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Why training stopped.
    pub stopped: Reason,
    /// The epoch with the best validation (of the last [phase](crate::Phase)), counting from 0.
    pub best_epoch: Option<usize>,
    /// The validation after it.
    pub best_validation: Option<Validation>,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
    /// Epochs done.
    pub epochs: usize,
    /// Optimiser steps done.
    pub steps: u64,
    /// Training and validation time over all sessions of the run.
    pub seconds: f64,
    /// Time on all cores, over all sessions (Linux only).
    pub cpu_seconds: Option<f64>,
    /// Training examples per second of this session, validation left out.
    pub examples_per_second: f64,
    /// Parameters that got no gradient in the first step.
    pub no_gradient: Vec<String>,
    /// The step that this session went on from, if it did.
    pub resumed_from: Option<u64>,
}

/// The time that this process has spent on all cores, where the system tells (Linux).
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    // Linux reports to user space in hundredths of a second.
    Some(ticks / 100.)
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn cpu_time_grows_with_work() {
        let start = super::cpu_seconds().unwrap();
        let clock = std::time::Instant::now();
        let mut x = 1u64;
        while super::cpu_seconds().unwrap() < start + 0.05 {
            x = std::hint::black_box(x.wrapping_mul(3));
            assert!(clock.elapsed().as_secs() < 60, "no CPU time counted");
        }
    }
}
