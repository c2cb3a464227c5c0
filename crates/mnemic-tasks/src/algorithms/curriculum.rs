//! Sizes that grow in training.

use serde::{Deserialize, Serialize};

/// A curriculum on sizes: training batches go no higher than `first` in the first epoch and `step` higher after each one, up to what the task has; with `below`
/// only after epochs in which the model got that far. Validation and tests have all sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Curriculum {
    /// The largest size of the first epoch.
    pub first: usize,
    /// How much larger it gets.
    pub step: usize,
    /// The share of wrong validation sequences, of the sizes trained so far, at which sizes grow; after every epoch where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

impl Default for Curriculum {
    /// That of Joulin and Mikolov (2015, section 4): up to 3, then one more in each epoch.
    fn default() -> Self {
        Self { first: 3, step: 1, below: None }
    }
}

impl Curriculum {
    /// The largest size after it grew so many times.
    pub fn most(self, grown: usize) -> usize {
        self.first.saturating_add(self.step.saturating_mul(grown))
    }

    pub(super) fn validate(self) -> Result<(), String> {
        match self.below {
            Some(below) if !(0. ..=1.).contains(&below) => {
                Err(format!("data.curriculum.below = {below}: expected a share from 0 to 1"))
            }
            _ => Ok(()),
        }
    }
}
