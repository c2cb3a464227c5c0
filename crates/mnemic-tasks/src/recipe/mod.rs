//! Recipes: what is trained on what and how, as a TOML file.
//!
//! ```toml
//! name = "dmn-plus-task1"
//! restarts = 2
//!
//! [model]
//! architecture = "dmn-plus"
//! preset = "dmn_plus"          # a row of the paper's table; any key of the model's config overrides it
//!
//! [data]
//! dataset = "babi"
//! tasks = [1]
//! source = "official"
//! edition = "en-10k"
//!
//! [train]
//! seed = 1
//! epochs = 256
//! optimizer = { name = "adam", lr = 0.001 }
//! ```
//!
//! Unknown keys are errors, also in the model's own section. `--set train.epochs=3` overrides a key.
//!
//! A file may hold one recipe for each of its tasks, as the papers' tables have one model for each:
//!
//! ```toml
//! name = "dmn-plus-10k"          # the recipes are dmn-plus-10k-task1, …
//! each_task = true
//! # model, data, batches, train as above, with all the tasks in data.tasks
//!
//! [task.3]                        # what is different for one of them
//! restarts = 10
//! data = { max_sentences = 130 }
//! ```

pub(crate) mod file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use mnemic_data::Sampling;
use mnemic_data::babi::{Edition, Task};
use mnemic_train::TrainConfig;
use serde::{Deserialize, Serialize};

use crate::run_folder::RunRecipe;
use crate::{Error, Result};

/// A recipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of the run; its folder is called so.
    pub name: String,
    /// The column of the tables of results; the name where it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The table of results that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<ResultTable>,
    /// What the recipe reproduces, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Runs with the seeds `seed`, `seed + 1`, …; the one with the lowest validation loss is kept.
    #[serde(default = "one")]
    pub restarts: usize,
    /// No further run once the best one's validation error, in percent, is at most this. Without it, once `train.stop_when` is
    /// reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_above: Option<f64>,
    /// The architecture, a preset of it, and any keys of its config that differ.
    pub model: toml::Table,
    /// The data.
    pub data: DataConfig,
    /// Batches.
    #[serde(default)]
    pub batches: BatchConfig,
    /// The engine's settings: seed, epochs, optimiser, schedule, clipping, early stopping.
    pub train: TrainConfig,
    /// The error of the paper's table in percent, by task number.
    #[serde(default)]
    pub paper: std::collections::BTreeMap<String, f64>,
}

fn one() -> usize {
    1
}

/// A table of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultTable {
    /// The papers' models after 10,000 training questions a task.
    #[serde(rename = "10k")]
    TenThousand,
    /// The papers' models after 1,000 training questions a task.
    #[serde(rename = "1k")]
    Thousand,
    /// Parts of DMN+ left out (Xiong et al. 2016, table 1).
    Ablation,
    /// Trained on generated stories.
    Generated,
}

impl ResultTable {
    /// The heading of the table.
    pub fn heading(self) -> &'static str {
        match self {
            Self::TenThousand => "10,000 training questions a task",
            Self::Thousand => "1,000 training questions a task",
            Self::Ablation => "Parts of DMN+, 10,000 training questions a task",
            Self::Generated => "Trained on 10,000 generated questions a task",
        }
    }
}

/// Which data set is read, and how much of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The data set: `babi`.
    pub dataset: Dataset,
    /// The tasks, learnt jointly where there are several.
    pub tasks: Vec<Task>,
    /// Official files or our generator.
    pub source: Source,
    /// The official edition that is trained on (`official`) and tested on.
    #[serde(default)]
    pub edition: Option<Edition>,
    /// Generated questions a task for training and validation (`generated`).
    #[serde(default = "ten_thousand")]
    pub train_questions: usize,
    /// Generated questions a task for the test.
    #[serde(default = "thousand")]
    pub test_questions: usize,
    /// The generator's seed.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Test on the official test files even where training data is generated.
    #[serde(default)]
    pub official_test: bool,
    /// The most recent statements that a model is given; older ones are dropped.
    #[serde(default)]
    pub max_sentences: Option<usize>,
}

fn ten_thousand() -> usize {
    10_000
}
fn thousand() -> usize {
    1_000
}
fn seed() -> u64 {
    1
}

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    /// The bAbI question answering tasks.
    Babi,
}

/// Where examples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The official files.
    Official,
    /// Our generator.
    Generated,
}

/// How batches are made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Examples a training batch.
    pub size: usize,
    /// How the examples of an epoch are grouped.
    pub sampling: Sampling,
    /// Of the first so many epochs, run with the memory softmax removed (linear start; MemN2N only).
    pub linear_start_epochs: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { size: 100, sampling: Sampling::Bucketed { window: 20 }, linear_start_epochs: 0 }
    }
}

impl Recipe {
    /// The heading of the recipe's column in tables.
    pub fn heading(&self) -> &str {
        if self.title.is_empty() { &self.name } else { &self.title }
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::recipe(&self.name, e.to_string()))
    }

    fn validate(&self) -> std::result::Result<(), String> {
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return Err(format!("name = {:?}: expected a plain folder name", self.name));
        }
        if self.restarts == 0 {
            return Err("restarts = 0: expected at least 1".into());
        }
        if self.batches.size == 0 {
            return Err("batches.size = 0: expected at least 1".into());
        }
        if self.data.tasks.is_empty() {
            return Err("data.tasks is empty: expected task numbers from 1 to 20".into());
        }
        let needs_edition = self.data.source == Source::Official || self.data.official_test;
        if needs_edition && self.data.edition.is_none() {
            return Err(
                "data.edition is missing: expected en, en-10k, en-valid or en-valid-10k".into()
            );
        }
        if self.data.max_sentences == Some(0) {
            return Err("data.max_sentences = 0: expected at least 1".into());
        }
        Ok(())
    }
}

impl RunRecipe for Recipe {
    fn name(&self) -> &str {
        &self.name
    }

    fn to_toml(&self) -> Result<String> {
        self.to_toml()
    }

    fn parse(text: &str, place: &str) -> Result<Self> {
        Self::parse(text, place, &[])
    }

    fn continues(&self, other: &Self) -> bool {
        (&self.name, &self.model, self.data.tasks.as_slice())
            == (&other.name, &other.model, other.data.tasks.as_slice())
    }
}

/// Where official data is looked for: the given path, else `MNEMIC_DATA/data/<dataset>`.
pub fn data_path(given: Option<&Path>, dataset: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_path_buf());
    }
    match std::env::var_os("MNEMIC_DATA") {
        Some(root) => Ok(PathBuf::from(root).join("data").join(dataset)),
        None => Err(Error::request(format!(
            "official {dataset} files are needed: give --data FOLDER_OR_TAR_GZ, or set MNEMIC_DATA to a folder that \
             holds data/{dataset}"
        ))),
    }
}
