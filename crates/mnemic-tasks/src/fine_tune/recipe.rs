//! What is fine-tuned on what and how, as a TOML file.

use std::collections::BTreeMap;
use std::path::Path;

use mnemic_data::Sampling;
use mnemic_train::{BestBy, TrainConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::data::TextDataset;
use crate::recipe::file::{apply_override, dataset, text};
use crate::run_folder::RunRecipe;
use crate::{Error, Result};

/// A recipe for fine-tuning. Unknown keys are errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuneRecipe {
    /// The name of the run; its folder is called so.
    pub name: String,
    /// What is trained, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The checkpoint to start from, and the head that it gets.
    pub model: Start,
    /// The data.
    pub data: TextDataConfig,
    /// Batches.
    #[serde(default)]
    pub batches: TextBatches,
    /// The engine's settings: seed, epochs, optimiser, schedule, clipping, early stopping. The seed draws the head as well. `best_by` is the head's
    /// [main metric](Head::main_metric) where nothing is said.
    pub train: TrainConfig,
    /// Published figures in percent, by metric (`accuracy`, `f1`, `precision`, `recall`): printed beside the test.
    #[serde(default)]
    pub reference: BTreeMap<String, f64>,
}

/// What fine-tuning starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// A folder with `config.json`, weights and tokenizer, or (feature `hub`) an id of the hub.
    pub from: String,
    /// The head.
    pub head: Head,
}

/// What a model with a head gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// A class of the whole text.
    SequenceClassification,
    /// A class of each word, which is that of its first piece.
    TokenClassification,
}

impl Head {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::SequenceClassification => "sequence-classification",
            Self::TokenClassification => "token-classification",
        }
    }

    /// The metrics that a test gives, in percent: those that [`FineTuneRecipe::reference`] may name.
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::SequenceClassification => &["accuracy"],
            Self::TokenClassification => &["precision", "recall", "f1"],
        }
    }

    /// The metric that counts.
    pub fn main_metric(self) -> &'static str {
        match self {
            Self::SequenceClassification => "accuracy",
            Self::TokenClassification => "f1",
        }
    }
}

/// Which data set is read, and how much of each text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextDataConfig {
    /// The data set: `trec`, `sst2` or `wnut17`.
    pub dataset: TextDataset,
    /// The most tokens of a text, special ones included; longer ones are cut.
    pub max_length: usize,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextBatches {
    /// Texts a training batch.
    pub size: usize,
    /// How the texts of an epoch are grouped: by length, if nothing is said.
    pub sampling: Sampling,
}

impl Default for TextBatches {
    fn default() -> Self {
        Self { size: 32, sampling: Sampling::Bucketed { window: 20 } }
    }
}

impl FineTuneRecipe {
    /// Reads a recipe and applies overrides of the form `a.b=value` (a TOML value, or a bare string).
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value makes no sense; the message names the file and the key.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse(&text(path)?, &path.display().to_string(), overrides)
    }

    /// [`Self::read`] on text; `place` names it in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, place: &str, overrides: &[String]) -> Result<Self> {
        let bad = |e: toml::de::Error| Error::recipe(place, e.to_string());
        let mut recipe: Self = if overrides.is_empty() {
            // Straight from the text, so that errors show line and column.
            toml::from_str(text).map_err(bad)?
        } else {
            let mut table: Table = toml::from_str(text).map_err(bad)?;
            overrides.iter().try_for_each(|o| apply_override(&mut table, o))?;
            Value::Table(table).try_into().map_err(bad)?
        };
        recipe.validate().map_err(|reason| Error::recipe(place, reason))?;
        let metric = recipe.model.head.main_metric();
        recipe.train.best_by.get_or_insert_with(|| BestBy { metric: metric.into(), highest: true });
        Ok(recipe)
    }

    /// The recipe as TOML.
    ///
    /// # Errors
    /// When a number is too large for TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::recipe(&self.name, e.to_string()))
    }

    fn validate(&self) -> std::result::Result<(), String> {
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return Err(format!("name = {:?}: expected a plain folder name", self.name));
        }
        if self.model.from.is_empty() {
            return Err("model.from is empty: expected a folder or an id of the hub".into());
        }
        let (set, head) = (self.data.dataset, self.model.head);
        if set.head() != head {
            return Err(format!(
                "model.head = {:?}: data.dataset = {:?} has labels for {:?}",
                head.name(),
                set.name(),
                set.head().name()
            ));
        }
        if self.batches.size == 0 {
            return Err("batches.size = 0: expected at least 1".into());
        }
        match self.reference.keys().find(|key| !head.metrics().contains(&key.as_str())) {
            Some(key) => {
                Err(format!("reference.{key}: expected one of {}", head.metrics().join(", ")))
            }
            None => Ok(()),
        }
    }
}

impl RunRecipe for FineTuneRecipe {
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
        (&self.name, &self.model, &self.data) == (&other.name, &other.model, &other.data)
    }
}

/// Whether the recipe of this file is one for fine-tuning, as its `data.dataset` says.
///
/// # Errors
/// When the file cannot be read or is no TOML, or the data set is one that no kind of recipe knows.
pub fn is_fine_tune(path: &Path) -> Result<bool> {
    match dataset(path)?.as_deref() {
        None | Some("babi" | "algorithms" | "planar") => Ok(false),
        Some(name) if TextDataset::ALL.iter().any(|set| set.name() == name) => Ok(true),
        Some(name) => {
            let known: Vec<_> = TextDataset::ALL.iter().map(|set| set.name()).collect();
            let reason = format!(
                "data.dataset = {name:?}: expected babi, algorithms, planar or one of {}",
                known.join(", ")
            );
            Err(Error::recipe(path.display().to_string(), reason))
        }
    }
}
