//! What learns which algorithm and how, as a TOML file.

use std::path::Path;

use mnemic_train::TrainConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::learner::{AlgorithmConfig, AlgorithmTask};
use crate::recipe::file::{apply_override, dataset, tables_of_tasks, text};
use crate::run_folder::RunRecipe;
use crate::{Error, Result};

/// A recipe. Unknown keys are errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmRecipe {
    /// The name of the run; its folder is called so.
    pub name: String,
    /// What is trained, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The architecture, and any keys of its config that differ from the paper's.
    pub model: Table,
    /// The task.
    pub data: AlgorithmData,
    /// Batches.
    #[serde(default)]
    pub batches: SequenceBatches,
    /// The engine's settings: seed, epochs, optimiser, schedule, clipping, early stopping.
    pub train: TrainConfig,
}

/// The task and the sizes that are tested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmData {
    /// `algorithms`.
    pub dataset: String,
    /// The task's name: see [`AlgorithmTask::named`].
    pub task: String,
    /// Sizes of tests, see [`AlgorithmTask::at`]; the sizes of training where there are none.
    #[serde(default)]
    pub test: Vec<Vec<usize>>,
    /// How sizes grow in training; all from the first batch on where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<super::Curriculum>,
}

/// How many sequences there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceBatches {
    /// Sequences a batch.
    pub size: usize,
    /// Training batches an epoch.
    pub per_epoch: usize,
    /// Batches of a validation, and of a test.
    pub evaluation: usize,
}

impl SequenceBatches {
    pub(crate) fn validate(&self) -> std::result::Result<(), String> {
        let Self { size, per_epoch, evaluation } = *self;
        for (key, value) in [("size", size), ("per_epoch", per_epoch), ("evaluation", evaluation)] {
            if value == 0 {
                return Err(format!("batches.{key} = 0: expected at least 1"));
            }
        }
        Ok(())
    }
}

impl Default for SequenceBatches {
    fn default() -> Self {
        Self { size: 32, per_epoch: 100, evaluation: 10 }
    }
}

impl AlgorithmRecipe {
    /// Reads the recipe of a file, or of one of its tasks, and applies overrides of the form `a.b=value` (a TOML value, or a bare string).
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value makes no sense, or the file holds several recipes and `task` names none of
    /// them; the message names the file and the key.
    pub fn read(path: &Path, task: Option<&str>, overrides: &[String]) -> Result<Self> {
        let mut all = Self::read_all(path, overrides)?;
        let tasks: Vec<String> = all.iter().map(|recipe| recipe.data.task.clone()).collect();
        if let Some(task) = task {
            all.retain(|recipe| recipe.data.task == task);
        }
        match (all.pop(), all.is_empty()) {
            (Some(recipe), true) => Ok(recipe),
            _ => {
                let reason = format!("expected one of its tasks: {}", tasks.join(", "));
                Err(Error::recipe(path.display().to_string(), reason))
            }
        }
    }

    /// All recipes of a file: one, or with `each_task = true` one for each of `data.tasks`, with the changes of `[task.NAME]`.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value makes no sense; the message names the file and the key.
    pub fn read_all(path: &Path, overrides: &[String]) -> Result<Vec<Self>> {
        let place = path.display().to_string();
        let text = text(path)?;
        let bad = |e: toml::de::Error| Error::recipe(&place, e.to_string());
        let table: Table = toml::from_str(&text).map_err(bad)?;
        if overrides.is_empty() && !table.contains_key("each_task") {
            // Straight from the text, so that errors show line and column.
            return Ok(vec![Self::parse(&text, &place)?]);
        }
        let tables = match table.contains_key("each_task") {
            true => tables_of_tasks(table, &place, choose)?,
            false => vec![(String::new(), table)],
        };
        let finish = |(_, mut table): (String, Table)| {
            overrides.iter().try_for_each(|o| apply_override(&mut table, o))?;
            let recipe: Self = Value::Table(table).try_into().map_err(bad)?;
            recipe.validate().map_err(|reason| Error::recipe(&place, reason))?;
            Ok(recipe)
        };
        tables.into_iter().map(finish).collect()
    }

    /// The task with the sizes of training.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn task(&self) -> Result<AlgorithmTask> {
        AlgorithmTask::named(&self.data.task)
    }

    /// The model's config.
    ///
    /// # Errors
    /// When the architecture or a key is unknown, naming it.
    pub fn config(&self) -> Result<AlgorithmConfig> {
        let mut keys = self.model.clone();
        let architecture = match keys.remove("architecture") {
            Some(Value::String(name)) => name,
            Some(other) => {
                let reason = format!("expected a string, got {other}");
                return Err(Error::recipe("model.architecture", reason));
            }
            None => return Err(Error::recipe("model", "architecture is missing")),
        };
        let changes = serde_json::to_value(keys).map_err(Error::json(Path::new("model")))?;
        let changes = changes.as_object().cloned().unwrap_or_default();
        AlgorithmConfig::new(&architecture, &self.task()?, changes)
    }

    fn validate(&self) -> std::result::Result<(), String> {
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return Err(format!("name = {:?}: expected a plain folder name", self.name));
        }
        if self.data.dataset != "algorithms" {
            return Err(format!("data.dataset = {:?}: expected \"algorithms\"", self.data.dataset));
        }
        self.batches.validate()?;
        self.data.curriculum.map_or(Ok(()), super::Curriculum::validate)?;
        let task = self.task().map_err(|e| e.to_string())?;
        for sizes in &self.data.test {
            task.at(sizes).map_err(|e| format!("data.test: {e}"))?;
        }
        Ok(())
    }
}

impl RunRecipe for AlgorithmRecipe {
    fn name(&self) -> &str {
        &self.name
    }

    fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::recipe(&self.name, e.to_string()))
    }

    fn parse(text: &str, place: &str) -> Result<Self> {
        let recipe: Self = toml::from_str(text).map_err(|e| Error::recipe(place, e.to_string()))?;
        recipe.validate().map_err(|reason| Error::recipe(place, reason))?;
        Ok(recipe)
    }

    fn continues(&self, other: &Self) -> bool {
        (&self.name, &self.model, &self.data.task, &self.data.curriculum, &self.batches)
            == (&other.name, &other.model, &other.data.task, &other.data.curriculum, &other.batches)
    }
}

/// Makes the recipe of all tasks that of one.
fn choose(table: &mut Table, task: &Value) {
    let name = table.get("name").and_then(Value::as_str).unwrap_or_default();
    let task_name = task.as_str().unwrap_or_default();
    table.insert("name".into(), format!("{name}-{task_name}").into());
    if let Some(data) = table.get_mut("data").and_then(Value::as_table_mut) {
        data.remove("tasks");
        data.insert("task".into(), task.clone());
    }
}

/// Whether the recipe of this file is one of algorithmic tasks, as its `data.dataset` says.
///
/// # Errors
/// When the file cannot be read or is no TOML.
pub fn is_algorithm(path: &Path) -> Result<bool> {
    Ok(dataset(path)?.as_deref() == Some("algorithms"))
}
