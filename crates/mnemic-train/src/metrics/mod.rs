//! Metrics on disk: `metrics.jsonl` and TensorBoard's event file.

mod log_file;
mod tensorboard;

use std::path::Path;

use serde_json::{Value, json};

use crate::error::Result;
use crate::{EpochRecord, StepInfo};
use log_file::LogFile;
use tensorboard::EventFile;

/// Where the files ended at a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lengths {
    pub(crate) jsonl: u64,
    pub(crate) tensorboard: u64,
}

/// The files of a run.
pub(crate) struct Metrics {
    jsonl: LogFile,
    tensorboard: Option<EventFile>,
}

impl Metrics {
    /// Opens the files and cuts them to where they were at the checkpoint, so that steps done again are not written
    /// twice. Says when a file is shorter than that.
    pub(crate) fn open(
        run_dir: &Path,
        tensorboard: bool,
        at: Lengths,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let jsonl = LogFile::open(&run_dir.join("metrics.jsonl"), at.jsonl, warnings)?;
        let tensorboard = if tensorboard {
            Some(EventFile::open(&run_dir.join("tensorboard"), at.tensorboard, warnings)?)
        } else {
            None
        };
        Ok(Self { jsonl, tensorboard })
    }

    pub(crate) fn step(&mut self, info: &StepInfo<'_>) -> Result<()> {
        self.line(&json!({
            "kind": "step",
            "step": info.step,
            "epoch": info.epoch,
            "loss": info.step_loss,
            "lr": info.lr,
            "grad_norm": info.grad_norm,
            "examples_per_second": info.examples_per_second,
        }))?;
        let values = [
            ("train/step_loss".to_string(), info.step_loss),
            ("train/lr".to_string(), info.lr),
            ("train/grad_norm".to_string(), info.grad_norm),
            ("train/examples_per_second".to_string(), info.examples_per_second),
        ];
        self.tensorboard.as_mut().map_or(Ok(()), |t| t.scalars(info.step, &values))
    }

    pub(crate) fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        let mut line = json!({"kind": "epoch"});
        if let (Value::Object(line), Ok(Value::Object(record))) =
            (&mut line, serde_json::to_value(record))
        {
            line.extend(record);
        }
        self.line(&line)?;
        let named = |group: &str, name: &str, value: f64| (format!("{group}/{name}"), value);
        let validation = &record.validation;
        let mut values = vec![named("train", "loss", record.train_loss)];
        values.extend(record.train_metrics.iter().map(|(k, v)| named("train", k, *v)));
        values.push(named("validation", "loss", validation.loss));
        values.extend(validation.metrics.iter().map(|(k, v)| named("validation", k, *v)));
        self.tensorboard.as_mut().map_or(Ok(()), |t| t.scalars(record.step, &values))
    }

    /// How long the files are. They are not synced: a power failure may cost the last lines, and a resumed run then
    /// says so.
    pub(crate) fn lengths(&self) -> Lengths {
        let tensorboard = self.tensorboard.as_ref().map_or(0, EventFile::length);
        Lengths { jsonl: self.jsonl.length(), tensorboard }
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        self.jsonl.append(format!("{value}\n").as_bytes())
    }
}
