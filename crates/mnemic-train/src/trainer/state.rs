//! What a run must remember besides weights and optimiser.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::metrics::Lengths;
use crate::schedule::ScheduleState;
use crate::{EpochRecord, TrainConfig, Validation};

const FORMAT: u32 = 1;

/// `state.json` of a checkpoint. Numbers are written with the fewest digits that give the same bits again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunState {
    format: u32,
    config: Value,
    fingerprint: String,
    /// The problem's own state.
    pub(super) problem: Value,
    /// The epoch under way.
    pub(super) epoch: usize,
    /// Its batches done.
    pub(super) batch: usize,
    /// Optimiser steps done.
    pub(super) step: u64,
    /// Batches done in the whole run: what random numbers are keyed by.
    pub(super) batches: u64,
    /// Examples seen in the whole run.
    pub(super) examples: u64,
    /// Where the present phase began.
    pub(super) phase_epoch: usize,
    pub(super) phase_step: u64,
    pub(super) schedule: ScheduleState,
    pub(super) ema_updates: u64,
    /// Sums over the epoch under way.
    pub(super) sums: Sums,
    pub(super) best: Option<Best>,
    /// Epochs since the best one.
    pub(super) bad_epochs: usize,
    /// Epochs in a row in which `stop_when` held.
    pub(super) solved_epochs: usize,
    /// Parameters without gradient in the first step; `None` before it.
    pub(super) no_gradient: Option<Vec<String>>,
    pub(super) history: Vec<EpochRecord>,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) metrics: Lengths,
}

/// The best validation of the present phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Best {
    pub(super) epoch: usize,
    pub(super) validation: Validation,
    /// The name of its checkpoint's folder.
    pub(super) checkpoint: String,
}

/// Sums over an epoch, and over the batches of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sums {
    /// Losses times weights.
    pub(super) loss: f64,
    pub(super) weight: f64,
    pub(super) examples: usize,
    pub(super) metrics: BTreeMap<String, f64>,
    /// The last learning rate.
    pub(super) lr: f64,
}

impl Sums {
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss / self.weight
    }

    pub(super) fn mean_metrics(&self) -> BTreeMap<String, f64> {
        let n = self.examples.max(1) as f64;
        self.metrics.iter().map(|(name, sum)| (name.clone(), sum / n)).collect()
    }

    /// Adds the sums of one more step, done at learning rate `lr`.
    pub(super) fn add(&mut self, step: &Self, lr: f64) {
        self.lr = lr;
        self.loss += step.loss;
        self.weight += step.weight;
        self.examples += step.examples;
        for (name, sum) in &step.metrics {
            *self.metrics.entry(name.clone()).or_default() += sum;
        }
    }
}

impl RunState {
    pub(super) fn new(config: &TrainConfig, fingerprint: String) -> Self {
        Self {
            format: FORMAT,
            config: serde_json::to_value(config).unwrap_or_default(),
            fingerprint,
            problem: Value::Null,
            epoch: 0,
            batch: 0,
            step: 0,
            batches: 0,
            examples: 0,
            phase_epoch: 0,
            phase_step: 0,
            schedule: ScheduleState::default(),
            ema_updates: 0,
            sums: Sums::default(),
            best: None,
            bad_epochs: 0,
            solved_epochs: 0,
            no_gradient: None,
            history: vec![],
            seconds: 0.,
            cpu_seconds: None,
            metrics: Lengths::default(),
        }
    }

    /// Reads the state of a checkpoint and makes sure that it belongs to this run.
    pub(super) fn read(
        value: Value,
        path: &Path,
        config: &TrainConfig,
        fingerprint: &str,
    ) -> Result<Self> {
        let error = |reason: String| Error::checkpoint(path.join("state.json"), reason);
        let format = value.get("format").and_then(Value::as_u64);
        if format != Some(FORMAT.into()) {
            let found = format.map_or("none".into(), |f| f.to_string());
            return Err(error(format!("expected format {FORMAT}, got {found}")));
        }
        let mut state: Self = serde_json::from_value(value).map_err(|e| error(e.to_string()))?;
        let conflicts = config.conflicts(&state.config);
        if !conflicts.is_empty() {
            let list = conflicts.join(", ");
            let reason = format!("the run was started with other settings: {list}");
            return Err(error(reason));
        }
        if state.fingerprint != fingerprint {
            let found = &state.fingerprint;
            let reason = format!("expected the problem {fingerprint:?}, got one of {found:?}");
            return Err(error(reason));
        }
        state.config = serde_json::to_value(config).unwrap_or_default();
        Ok(state)
    }
}
