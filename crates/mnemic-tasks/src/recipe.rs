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

use std::path::{Path, PathBuf};

use mnemic_data::Sampling;
use mnemic_data::babi::{Edition, Task};
use mnemic_train::TrainConfig;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A recipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of the run; its folder is called so.
    pub name: String,
    /// What the recipe reproduces, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Runs with the seeds `seed`, `seed + 1`, …; the one with the lowest validation loss is kept.
    #[serde(default = "one")]
    pub restarts: usize,
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
    /// Reads a recipe and applies overrides of the form `a.b=value` (a TOML value, or a bare string).
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value has the wrong type; the message names the file, the line
    /// and the key.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// [`Recipe::read`] on text; `place` names it in errors.
    pub fn parse(text: &str, place: &str, overrides: &[String]) -> Result<Self> {
        let bad = |e: toml::de::Error| Error::recipe(place, e.to_string());
        let recipe: Self = if overrides.is_empty() {
            // Straight from the text, so that errors show line and column.
            toml::from_str(text).map_err(bad)?
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(bad)?;
            for o in overrides {
                apply_override(&mut table, o)?;
            }
            toml::Value::Table(table).try_into().map_err(bad)?
        };
        recipe.validate().map_err(|reason| Error::recipe(place, reason))?;
        Ok(recipe)
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

/// Sets `a.b=value` in a table, creating tables on the way.
fn apply_override(table: &mut toml::Table, text: &str) -> Result<()> {
    let bad = |reason: &str| Error::recipe(format!("--set {text}"), reason);
    let (path, value) = text.split_once('=').ok_or_else(|| bad("expected KEY.KEY=VALUE"))?;
    // A value that is no TOML is taken as a string: `--set data.edition=en` needs no quotes.
    let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or_else(|| bad("the key is empty"))?;
    let mut place = table;
    for key in keys {
        let entry =
            place.entry(key.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = entry.as_table_mut().ok_or_else(|| bad(&format!("{key} is not a table")))?;
    }
    place.insert(last.to_string(), value);
    Ok(())
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
