//! How a run went: its learning curve and its wrong answers.

use std::collections::BTreeMap;
use std::path::Path;

use mnemic_models::{Context, StoryModel};
use mnemic_pictures::{Curve, Series};
use serde::Deserialize;

use super::problem::to_tensors;
use super::{BabiData, BabiModel, RunResult};
use crate::{Error, Result};

/// A line of `metrics.jsonl` about an epoch.
#[derive(Deserialize)]
struct Epoch {
    epoch: f64,
    #[serde(default)]
    train_metrics: BTreeMap<String, f64>,
    validation: Validation,
}

#[derive(Deserialize)]
struct Validation {
    metrics: BTreeMap<String, f64>,
}

/// Wrong answers on training and validation data over the epochs of the chosen seed of a run, counted from 1, in percent.
///
/// # Errors
/// When the run has no result or its metrics are damaged, naming the file and line.
pub fn learning_curve(run: &Path) -> Result<Curve> {
    let path = run.join("result.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let result: RunResult = serde_json::from_str(&text).map_err(Error::json(&path))?;
    let path = run.join(format!("seed-{}", result.seed)).join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut series =
        ["training", "validation"].map(|name| Series { name: name.into(), points: Vec::new() });
    for (i, line) in text.lines().enumerate() {
        let bad = |e: serde_json::Error| {
            Error::request(format!("{}, line {}: {e}", path.display(), i + 1))
        };
        let value: serde_json::Value = serde_json::from_str(line).map_err(bad)?;
        if value.get("kind").and_then(|k| k.as_str()) != Some("epoch") {
            continue;
        }
        let epoch: Epoch = serde_json::from_value(value).map_err(bad)?;
        let errors = [&epoch.train_metrics, &epoch.validation.metrics].map(|m| m.get("error"));
        for (series, error) in series.iter_mut().zip(errors) {
            series.points.extend(error.map(|e| (epoch.epoch + 1., 100. * e)));
        }
    }
    Ok(Curve {
        title: format!("{}, seed {}", result.name, result.seed),
        x_label: "epoch".into(),
        y_label: "wrong answers (%)".into(),
        log_y: false,
        series: series.into(),
    })
}

/// Wrong answers of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// The task.
    pub task: u8,
    /// The right answer.
    pub expected: String,
    /// What the model said.
    pub said: String,
    /// How often.
    pub count: usize,
    /// The first test example of the kind, counted from 0.
    pub first: usize,
}

/// What a model gets wrong in its test, the most frequent first.
///
/// # Errors
/// When the examples do not fit the model.
pub fn confusions(model: &BabiModel, data: &BabiData) -> Result<Vec<Confusion>> {
    let word = |id: u32| model.vocabulary.word(id).unwrap_or_default().to_string();
    let tasks: Vec<u8> = data.test.tasks().collect();
    let mut counts = BTreeMap::new();
    let all: Vec<usize> = (0..tasks.len()).collect();
    for chunk in all.chunks(500) {
        let (batch, answers) = to_tensors(&data.test.batch(chunk)?, &model.device)?;
        let said = model.model.forward(&batch, &Context::eval())?.logits.argmax(1)?;
        for ((&i, answer), said) in chunk.iter().zip(answers).zip(said.to_vec1::<u32>()?) {
            if said != answer {
                counts.entry((tasks[i], word(answer), word(said))).or_insert((0, i)).0 += 1;
            }
        }
    }
    let mut all: Vec<Confusion> = counts
        .into_iter()
        .map(|((task, expected, said), (count, first))| Confusion {
            task,
            expected,
            said,
            count,
            first,
        })
        .collect();
    all.sort_by_key(|c| (c.task, std::cmp::Reverse(c.count)));
    Ok(all)
}
