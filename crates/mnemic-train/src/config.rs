//! The settings of a run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check};
use crate::optim::OptimizerConfig;
use crate::{Clip, EmaConfig, ScheduleConfig, Validation};

/// The settings of a run: the `train` table of a recipe.
///
/// A run may be resumed with other `epochs`, `patience`, `stop_when`, `max_seconds`, `checkpoint_every_steps`,
/// `log_every` and `tensorboard`; the rest must be as it was.
///
/// ```
/// use mnemic_train::TrainConfig;
/// let config: TrainConfig = serde_json::from_str(r#"{
///     "epochs": 100,
///     "optimizer": {"name": "adam", "lr": 0.001},
///     "clip": {"global_norm": 40.0},
///     "stop_when": {"metric": "error", "below": 0.0, "epochs": 3}
/// }"#)?;
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What dropout and noise are drawn from.
    #[serde(default)]
    pub seed: u64,
    /// The most passes over the training data.
    pub epochs: usize,
    /// The optimiser and its learning rate.
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Clipping of gradients.
    #[serde(default)]
    pub clip: Clip,
    /// Batches per optimiser step. The last step of an epoch may have fewer.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The validation metric that the best weights and `patience` go by; the loss where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_by: Option<BestBy>,
    /// Stops after this many epochs without a better validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Keeps a moving average of the weights and validates that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// Stops when a validation metric is good enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when: Option<StopWhen>,
    /// Stops after this much time, validation and earlier sessions of the run included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<f64>,
    /// Saves within epochs too, after each so many optimiser steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_steps: Option<u64>,
    /// Optimiser steps between two lines of `metrics.jsonl`; 0 for epochs only.
    #[serde(default = "fifty")]
    pub log_every: u64,
    /// Writes TensorBoard's event files.
    #[serde(default = "yes")]
    pub tensorboard: bool,
}

/// A validation metric whose highest or lowest value is the best.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestBy {
    /// Its name, such as `f1`.
    pub metric: String,
    /// Whether the highest value is the best, as of an accuracy, or the lowest, as of an error.
    pub highest: bool,
}

impl BestBy {
    /// Whether `a` is better than the `best` so far; `None` where `a` lacks the metric.
    pub(crate) fn better(&self, a: &Validation, best: Option<&Validation>) -> Option<bool> {
        let a = a.get(&self.metric)?;
        let best = best.and_then(|best| best.get(&self.metric));
        Some(best.is_none_or(|best| if self.highest { a > best } else { a < best }))
    }
}

/// A validation metric that is good enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopWhen {
    /// Its name; `loss` for the validation loss.
    pub metric: String,
    /// The highest value that is good enough.
    pub below: f64,
    /// For how many epochs in a row.
    #[serde(default = "one")]
    pub epochs: usize,
}

fn one() -> usize {
    1
}
fn fifty() -> u64 {
    50
}
fn yes() -> bool {
    true
}

/// What may differ when a run is resumed.
const FREE: [&str; 7] = [
    "epochs",
    "patience",
    "stop_when",
    "max_seconds",
    "checkpoint_every_steps",
    "log_every",
    "tensorboard",
];

impl TrainConfig {
    /// `epochs` passes with this optimiser, and nothing else.
    pub fn new(epochs: usize, optimizer: OptimizerConfig) -> Self {
        Self {
            seed: 0,
            epochs,
            optimizer,
            schedule: ScheduleConfig::default(),
            clip: Clip::default(),
            accumulate: 1,
            best_by: None,
            patience: None,
            ema: None,
            stop_when: None,
            max_seconds: None,
            checkpoint_every_steps: None,
            log_every: fifty(),
            tensorboard: true,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Names the field, the value and what was expected.
    pub fn validate(&self) -> Result<()> {
        self.optimizer.validate()?;
        self.schedule.validate()?;
        self.clip.validate()?;
        let counts = [
            ("accumulate", Some(self.accumulate)),
            ("patience", self.patience),
            ("stop_when.epochs", self.stop_when.as_ref().map(|s| s.epochs)),
            ("checkpoint_every_steps", self.checkpoint_every_steps.map(|n| n as usize)),
        ];
        for (field, n) in counts {
            if n == Some(0) {
                return Err(Error::config(field, "expected at least 1, got 0"));
            }
        }
        if let Some(ema) = &self.ema {
            ema.validate()?;
        }
        if let Some(stop) = &self.stop_when {
            check("stop_when.below", stop.below, true, "a number")?;
        }
        if let Some(seconds) = self.max_seconds {
            check("max_seconds", seconds, seconds > 0., "a number above 0")?;
        }
        Ok(())
    }

    /// The dotted names of settings that differ from `other` and may not when a run is resumed.
    pub(crate) fn conflicts(&self, other: &serde_json::Value) -> Vec<String> {
        let ours = serde_json::to_value(self).unwrap_or_default();
        let mut found = vec![];
        differences("", &ours, other, &mut found);
        found
    }
}

fn differences(at: &str, a: &serde_json::Value, b: &serde_json::Value, found: &mut Vec<String>) {
    use serde_json::Value::{Null, Object};
    let (Object(x), Object(y)) = (a, b) else {
        if a != b {
            found.push(format!("{at} (was {b}, is {a})"));
        }
        return;
    };
    let mut keys: Vec<_> = x.keys().chain(y.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        if at.is_empty() && FREE.contains(&key.as_str()) {
            continue;
        }
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let (a, b) = (x.get(key).unwrap_or(&Null), y.get(key).unwrap_or(&Null));
        differences(&path, a, b, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Adam, Sgd};

    #[test]
    fn unknown_and_bad_settings_are_named() {
        let base = r#""epochs": 1, "optimizer": {"name": "sgd", "lr": 1}"#;
        let parse = |more: &str| serde_json::from_str::<TrainConfig>(&format!("{{{base}{more}}}"));
        let config = parse("").unwrap();
        assert_eq!(config, TrainConfig::new(1, OptimizerConfig::Sgd(Sgd::new(1.))));
        assert!(
            parse(r#", "epoch": 2"#).unwrap_err().to_string().contains("unknown field `epoch`")
        );
        let nested = parse(r#", "clip": {"norm": 2}"#).unwrap_err().to_string();
        assert!(nested.contains("unknown field `norm`"), "{nested}");
        let error = |more: &str| parse(more).unwrap().validate().unwrap_err().to_string();
        assert_eq!(error(r#", "accumulate": 0"#), "accumulate: expected at least 1, got 0");
        assert!(error(r#", "ema": {"decay": 1.0}"#).starts_with("ema.decay: expected"));
        assert!(error(r#", "max_seconds": 0"#).contains("above 0"));
    }

    #[test]
    fn recipes_are_toml() {
        let text = r#"
            seed = 7
            epochs = 100
            accumulate = 2
            patience = 20
            optimizer = { name = "adamw", lr = 1, betas = [0.5, 0.9], decay = "all" }
            schedule = { name = "step", every = 25, factor = 0.5, unit = "steps" }
            clip = { tensor_norm = 40 }
            ema = { decay = 0.999, warmup = true }
            stop_when = { metric = "error", below = 0 }
        "#;
        let config: TrainConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        assert_eq!((config.optimizer.lr(), config.clip.tensor_norm), (1., Some(40.)));
        let again: TrainConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let typo = toml::from_str::<TrainConfig>(&text.replace("every", "evry")).unwrap_err();
        assert!(typo.to_string().contains("unknown field `evry`"), "{typo}");
    }

    #[test]
    fn only_some_settings_may_change() {
        let old = TrainConfig::new(1, OptimizerConfig::Adam(Adam::new(0.1)));
        let value = serde_json::to_value(&old).unwrap();
        let longer = TrainConfig { epochs: 9, patience: Some(2), log_every: 1, ..old.clone() };
        assert!(longer.conflicts(&value).is_empty());
        let mut other = longer;
        other.optimizer = OptimizerConfig::Adam(Adam { eps: 0.5, ..Adam::new(0.1) });
        other.ema = Some(EmaConfig { decay: 0.5, warmup: false });
        let found = other.conflicts(&value).join("; ");
        assert!(found.contains("optimizer.eps (was 1e-8, is 0.5)"), "{found}");
        assert!(found.starts_with("ema (was null, is {"), "{found}");
    }
}
