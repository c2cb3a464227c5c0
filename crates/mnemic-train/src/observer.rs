//! Watching a run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{EpochRecord, Report};

/// The start of a session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StartInfo {
    /// The most epochs.
    pub epochs: usize,
    /// The epoch that comes first, counting from 0.
    pub epoch: usize,
    /// Scalar parameters of the model.
    pub parameters: usize,
    /// The step that the run goes on from, if it is resumed.
    pub resumed_from: Option<u64>,
}

/// An optimiser step that was just done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepInfo<'a> {
    /// The epoch, counting from 0.
    pub epoch: usize,
    /// The most epochs.
    pub epochs: usize,
    /// Optimiser steps of the whole run, this one included.
    pub step: u64,
    /// Optimiser steps of this epoch, this one included.
    pub step_in_epoch: usize,
    /// Optimiser steps in this epoch.
    pub steps_per_epoch: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Loss of this step.
    pub step_loss: f64,
    /// Mean of the metric `error` over the epoch so far, if the problem has one.
    pub error: Option<f64>,
    /// Means of all metrics over the epoch so far.
    pub metrics: &'a BTreeMap<String, f64>,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Training examples per second in this session's part of the epoch.
    pub examples_per_second: f64,
    /// The time left at this speed, if training does not stop before its last epoch.
    pub eta: Duration,
}

/// Something that watches a run. Every method may be left out.
pub trait Observer {
    /// A session starts.
    fn on_start(&mut self, _info: &StartInfo) {}
    /// An optimiser step was done.
    fn on_step(&mut self, _info: &StepInfo<'_>) {}
    /// An epoch and its validation were done.
    fn on_epoch(&mut self, _record: &EpochRecord) {}
    /// Something that a person should know.
    fn on_warning(&mut self, _message: &str) {}
    /// The session ends; not called after an error.
    fn on_end(&mut self, _report: &Report) {}
}

/// Watches nothing.
impl Observer for () {}
