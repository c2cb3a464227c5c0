//! The row of a run in `results.csv` beside its recipe.

use serde::{Deserialize, Serialize};

use super::recipe::FineTuneRecipe;
use super::run::FineTuneResult;
use crate::babi::Row;

/// A row of `results.csv`: one run. Figures are in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuneRow {
    /// The recipe's name; a newer row of it and of the seed replaces an older one.
    pub name: String,
    /// The data set.
    pub dataset: String,
    /// The head.
    pub head: String,
    /// The seed.
    pub seed: u64,
    /// The base learning rate.
    pub lr: f64,
    /// Epochs done.
    pub epochs: usize,
    /// The epoch whose weights were kept, that of the best validation, counting from 1.
    pub best_epoch: Option<usize>,
    /// Right classes of the test texts.
    pub accuracy: Option<f64>,
    /// Precision of the test's entities.
    pub precision: Option<f64>,
    /// Their recall.
    pub recall: Option<f64>,
    /// Their F1.
    pub f1: Option<f64>,
    /// Accuracy or F1 of the validation texts.
    pub validation: Option<f64>,
    /// The published figure of accuracy or F1 that the recipe names.
    pub reference: Option<f64>,
    /// CPU minutes.
    pub cpu_minutes: Option<f64>,
    /// Training texts a second.
    pub examples_per_second: f64,
    /// The commit, with `+` where files were changed.
    pub commit: String,
    /// The day.
    pub date: String,
    /// Processor, threads and, where another device computed, that one.
    pub machine: String,
    /// The command.
    pub command: String,
}

impl FineTuneRow {
    /// The row of a run.
    pub fn of(recipe: &FineTuneRecipe, result: &FineTuneResult) -> Self {
        let test = |name: &str| {
            let value = result.test.as_ref().and_then(|test| test.percent.get(name));
            value.map(|percent| rounded(*percent, 2))
        };
        let main = recipe.model.head.main_metric();
        let p = &result.provenance;
        Self {
            name: recipe.name.clone(),
            dataset: recipe.data.dataset.name().into(),
            head: recipe.model.head.name().into(),
            seed: result.seed,
            lr: recipe.train.optimizer.lr(),
            epochs: result.epochs,
            best_epoch: result.best_epoch,
            accuracy: test("accuracy"),
            precision: test("precision"),
            recall: test("recall"),
            f1: test("f1"),
            validation: result.validation.get(main).map(|value| rounded(100. * value, 2)),
            reference: recipe.reference.get(main).copied(),
            cpu_minutes: result.cpu_seconds.map(|seconds| rounded(seconds / 60., 1)),
            examples_per_second: rounded(result.examples_per_second, 0),
            commit: p.commit.clone(),
            date: p.date.clone(),
            machine: p.hardware(),
            command: p.command.clone(),
        }
    }
}

impl Row for FineTuneRow {
    fn key(&self) -> impl Ord {
        (self.name.clone(), self.seed)
    }
}

fn rounded(x: f64, digits: i32) -> f64 {
    let ten = 10f64.powi(digits);
    (x * ten).round() / ten
}
