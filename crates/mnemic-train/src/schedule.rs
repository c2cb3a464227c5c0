//! Learning rates over the course of training.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check};

/// What a schedule counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Passes over the training data.
    #[default]
    Epochs,
    /// Optimiser steps.
    Steps,
}

/// How the learning rate changes; in a recipe `name = "step"` and the fields of that variant.
///
/// A warm-up of `w` steps multiplies the rate of step `s` (from 1) by `s / w` while `s < w`. Steps and epochs are those of
/// the current [phase](crate::Phase).
///
/// ```
/// use mnemic_train::{Schedule, ScheduleConfig};
/// let config: ScheduleConfig = serde_json::from_str(r#"{"name": "halving", "every": 25}"#)?;
/// let schedule = Schedule::new(config, 0.01)?;
/// assert_eq!(schedule.lr(0, 24), 0.01);
/// assert_eq!(schedule.lr(0, 25), 0.005);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// The base rate throughout.
    Constant {
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup: u64,
    },
    /// Multiplied by `factor` after each `every` units.
    Step {
        /// The length of a stair.
        every: u64,
        /// The height of a stair.
        factor: f64,
        /// What `every` counts.
        #[serde(default)]
        unit: Unit,
    },
    /// Halved after each `every` units.
    Halving {
        /// The length of a stair.
        every: u64,
        /// What `every` counts.
        #[serde(default)]
        unit: Unit,
    },
    /// A straight line from the base rate to `min` at step `total`, after the warm-up, then `min` (Devlin et al. 2019, appendix A.2:
    /// linear decay after a linear warm-up).
    Linear {
        /// The steps until `min`, warm-up included.
        total: u64,
        /// The last learning rate.
        #[serde(default)]
        min: f64,
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup: u64,
    },
    /// Half a cosine from the base rate to `min` (Loshchilov and Hutter 2017, one cycle), then `min`.
    Cosine {
        /// The steps until `min`, warm-up included.
        total: u64,
        /// The last learning rate.
        #[serde(default)]
        min: f64,
        /// Steps of linear warm-up.
        #[serde(default)]
        warmup: u64,
    },
    /// The rate of step `s` is the base rate times `min(s / w, sqrt(w / s))` (Vaswani et al. 2017, eq. 3, whose
    /// `d_model^-0.5 * w^-0.5` is the base rate here).
    InverseSqrt {
        /// w, the step of the highest rate.
        warmup: u64,
    },
    /// Multiplied by `factor` when the validation loss has not improved for more than `patience` epochs (PyTorch's
    /// `ReduceLROnPlateau` with a relative threshold).
    Plateau {
        /// The factor.
        #[serde(default = "plateau_factor")]
        factor: f64,
        /// Epochs without improvement that are let pass.
        #[serde(default = "plateau_patience")]
        patience: usize,
        /// An improvement is a loss below `best * (1 - threshold)`.
        #[serde(default = "plateau_threshold")]
        threshold: f64,
        /// The lowest rate.
        #[serde(default)]
        min_lr: f64,
    },
}

fn plateau_factor() -> f64 {
    0.1
}
fn plateau_patience() -> usize {
    10
}
fn plateau_threshold() -> f64 {
    1e-4
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::Constant { warmup: 0 }
    }
}

impl ScheduleConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the field, the value and what was expected.
    pub fn validate(&self) -> Result<()> {
        let count = |field: &str, n: u64| {
            let field = format!("schedule.{field}");
            if n > 0 { Ok(()) } else { Err(Error::config(field, "expected at least 1, got 0")) }
        };
        let positive =
            |field: &str, x: f64| check(&format!("schedule.{field}"), x, x >= 0., "at least 0");
        match *self {
            Self::Constant { .. } => Ok(()),
            Self::Halving { every, .. } => count("every", every),
            Self::Step { every, factor, .. } => {
                count("every", every)?;
                check("schedule.factor", factor, factor > 0., "a number above 0")
            }
            Self::Linear { total, min, warmup } | Self::Cosine { total, min, warmup } => {
                count("total", total)?;
                positive("min", min)?;
                let reason = || format!("expected less than total ({total}), got {warmup}");
                if warmup < total {
                    Ok(())
                } else {
                    Err(Error::config("schedule.warmup", reason()))
                }
            }
            Self::InverseSqrt { warmup } => count("warmup", warmup),
            Self::Plateau { factor, threshold, min_lr, .. } => {
                let ok = factor > 0. && factor < 1.;
                check("schedule.factor", factor, ok, "a number between 0 and 1")?;
                positive("threshold", threshold)?;
                positive("min_lr", min_lr)
            }
        }
    }
}

/// A schedule at work.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    base: f64,
    state: ScheduleState,
}

/// What a schedule remembers of the validation losses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleState {
    /// How often the rate was cut.
    pub cuts: u32,
    /// The best validation loss.
    pub best: Option<f64>,
    /// Epochs since the best one or the last cut.
    pub bad_epochs: usize,
}

impl Schedule {
    /// A schedule around the base rate `lr`.
    ///
    /// # Errors
    /// A value out of range, by name.
    pub fn new(config: ScheduleConfig, lr: f64) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, base: lr, state: ScheduleState::default() })
    }

    /// The rate of optimiser step `step` in epoch `epoch`, both counting from 0.
    pub fn lr(&self, step: u64, epoch: usize) -> f64 {
        let base = self.base;
        let stairs = |every: u64, factor: f64, unit: Unit| {
            let done = if unit == Unit::Steps { step } else { epoch as u64 };
            base * factor.powf((done / every) as f64)
        };
        let ramp = |warmup: u64| ((step + 1) as f64 / warmup.max(1) as f64).min(1.);
        match self.config {
            ScheduleConfig::Constant { warmup } => base * ramp(warmup),
            ScheduleConfig::Step { every, factor, unit } => stairs(every, factor, unit),
            ScheduleConfig::Halving { every, unit } => stairs(every, 0.5, unit),
            ScheduleConfig::Linear { warmup, .. } | ScheduleConfig::Cosine { warmup, .. }
                if step < warmup =>
            {
                base * ramp(warmup)
            }
            ScheduleConfig::Linear { total, min, warmup } => {
                let done = (step - warmup) as f64 / (total - warmup) as f64;
                min + (base - min) * (1. - done.min(1.))
            }
            ScheduleConfig::Cosine { total, min, warmup } => {
                let done = (step - warmup) as f64 / (total - warmup) as f64;
                let wave = (std::f64::consts::PI * done.min(1.)).cos();
                min + (base - min) * 0.5 * (1. + wave)
            }
            ScheduleConfig::InverseSqrt { warmup } => {
                let (s, w) = ((step + 1) as f64, warmup as f64);
                base * (s / w).min((w / s).sqrt())
            }
            ScheduleConfig::Plateau { factor, min_lr, .. } => {
                // A base rate below min_lr is left alone.
                (base * factor.powf(f64::from(self.state.cuts))).max(min_lr.min(base))
            }
        }
    }

    /// Tells the schedule the validation loss of the epoch that ended. Says whether the rate was cut.
    pub fn end_epoch(&mut self, validation_loss: f64) -> bool {
        let ScheduleConfig::Plateau { patience, threshold, .. } = self.config else {
            return false;
        };
        let state = &mut self.state;
        // |best| keeps the threshold on the right side of a negative loss.
        if state.best.is_none_or(|best| validation_loss < best - threshold * best.abs()) {
            state.best = Some(validation_loss);
            state.bad_epochs = 0;
            return false;
        }
        state.bad_epochs += 1;
        if state.bad_epochs <= patience {
            return false;
        }
        state.bad_epochs = 0;
        let before = self.lr(0, 0);
        self.state.cuts += 1;
        self.lr(0, 0) < before
    }

    /// What has to be saved.
    pub fn state(&self) -> &ScheduleState {
        &self.state
    }

    /// Takes back what [`Schedule::state`] gave; the default state starts afresh.
    pub fn load_state(&mut self, state: ScheduleState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<ScheduleConfig, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    fn schedule(text: &str, lr: f64) -> Schedule {
        Schedule::new(parse(text).unwrap(), lr).unwrap()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs()
    }

    #[test]
    fn stairs() {
        let s = schedule(r#"{"name": "step", "every": 10, "factor": 0.1, "unit": "steps"}"#, 2.);
        assert_eq!((s.lr(9, 99), s.lr(0, 99)), (2., 2.));
        assert!(close(s.lr(10, 0), 0.2) && close(s.lr(39, 0), 2e-3));
        let s = schedule(r#"{"name": "halving", "every": 25}"#, 0.01);
        let rates: Vec<_> = [0, 24, 25, 50, 99].map(|e| s.lr(7, e)).into();
        assert_eq!(rates, [0.01, 0.01, 0.005, 0.0025, 0.00125]);
    }

    #[test]
    fn curves() {
        let s = schedule(r#"{"name": "constant", "warmup": 4}"#, 1.);
        assert_eq!([0, 1, 3, 4, 100].map(|i| s.lr(i, 0)), [0.25, 0.5, 1., 1., 1.]);
        let s = schedule(r#"{"name": "linear", "total": 12, "warmup": 2, "min": 0.2}"#, 1.);
        assert_eq!((s.lr(0, 0), s.lr(1, 0), s.lr(2, 0)), (0.5, 1., 1.));
        assert!(close(s.lr(7, 0), 0.6) && close(s.lr(12, 0), 0.2) && close(s.lr(999, 0), 0.2));
        assert!(close(s.lr(3, 0), 0.92) && close(s.lr(11, 0), 0.28));
        let s = schedule(r#"{"name": "cosine", "total": 12, "warmup": 2, "min": 0.2}"#, 1.);
        assert_eq!((s.lr(0, 0), s.lr(1, 0), s.lr(2, 0)), (0.5, 1., 1.));
        assert!(close(s.lr(7, 0), 0.6) && close(s.lr(12, 0), 0.2) && close(s.lr(999, 0), 0.2));
        // Vaswani et al.: d_model 512, 4000 warm-up steps.
        let (d, w) = (512f64, 4000f64);
        let s = schedule(r#"{"name": "inverse-sqrt", "warmup": 4000}"#, (d * w).powf(-0.5));
        for step in [1u64, 10, 4000, 4001, 100_000] {
            let n = step as f64;
            let paper = d.powf(-0.5) * n.powf(-0.5).min(n * w.powf(-1.5));
            assert!(close(s.lr(step - 1, 0), paper), "{step}");
        }
    }

    /// `torch.optim.lr_scheduler.ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.1, min_lr=0.2)` by hand.
    #[test]
    fn plateau() {
        let text =
            r#"{"name": "plateau", "factor": 0.5, "patience": 1, "threshold": 0.1, "min_lr": 0.2}"#;
        let mut s = schedule(text, 1.);
        let losses = [1., 0.95, 0.8, 0.79, 0.78, 0.77, 0.76, 0.75, 0.74, 0.5];
        let mut rates = vec![];
        for loss in losses {
            s.end_epoch(loss);
            rates.push(s.lr(0, 0));
        }
        assert_eq!(rates, [1., 1., 1., 1., 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]);
        let mut resumed = schedule(text, 1.);
        let state = serde_json::to_string(s.state()).unwrap();
        resumed.load_state(serde_json::from_str(&state).unwrap());
        assert_eq!((resumed.lr(0, 0), resumed.state()), (0.2, s.state()));
    }

    #[test]
    fn bad_values_are_named() {
        let unknown = parse(r#"{"name": "step", "every": 1, "factor": 1, "gamma": 2}"#);
        assert!(unknown.unwrap_err().contains("unknown field `gamma`"));
        assert!(parse(r#"{"name": "constant", "x": 1}"#).unwrap_err().contains("unknown field"));
        let error = |t: &str| parse(t).unwrap().validate().unwrap_err().to_string();
        let zero = error(r#"{"name": "halving", "every": 0}"#);
        assert_eq!(zero, "schedule.every: expected at least 1, got 0");
        let warmup = error(r#"{"name": "cosine", "total": 5, "warmup": 5}"#);
        assert!(warmup.contains("less than total (5), got 5"), "{warmup}");
        let warmup = error(r#"{"name": "linear", "total": 5, "warmup": 6}"#);
        assert!(warmup.contains("less than total (5), got 6"), "{warmup}");
        assert!(error(r#"{"name": "plateau", "factor": 1.5}"#).contains("between 0 and 1"));
    }
}
