//! Which planar problem is learnt and how, as a TOML file.

use std::path::Path;

use mnemic_data::planar::PlanarTask;
use mnemic_models::memory::pointer_network::Config;
use mnemic_train::TrainConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::algorithms::SequenceBatches;
use crate::recipe::file::{apply_override, dataset, text};
use crate::run_folder::RunRecipe;
use crate::{Error, Result};

/// The architecture's name in recipes.
const ARCHITECTURE: &str = "pointer-network";
/// The data set's name in recipes.
pub(super) const DATASET: &str = "planar";

/// A recipe. Unknown keys are errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointerRecipe {
    /// The name of the run; its folder is called so.
    pub name: String,
    /// What is trained, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The architecture, and any keys of its config that differ from the paper's.
    pub model: Table,
    /// The problem.
    pub data: PlanarData,
    /// Batches.
    #[serde(default)]
    pub batches: SequenceBatches,
    /// The engine's settings: seed, epochs, optimiser, schedule, clipping, early stopping.
    pub train: TrainConfig,
}

/// The problem, and what is tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanarData {
    /// `planar`.
    pub dataset: String,
    /// What is asked about the points.
    pub task: PlanarTask,
    /// The least and the most points of a training instance.
    pub points: (usize, usize),
    /// How many training instances there are; always new ones where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<usize>,
    /// Numbers of points that are tested; the least and the most of training where there are none.
    #[serde(default)]
    pub test: Vec<usize>,
    /// Published files that are tested, if `--data` or `MNEMIC_DATA` says where they are.
    #[serde(default)]
    pub files: Vec<String>,
    /// Width of the beam in tests; 1 for none.
    #[serde(default = "one")]
    pub beam: usize,
}

fn one() -> usize {
    1
}

impl PlanarData {
    /// The numbers of points that are tested.
    pub fn tested(&self) -> Vec<usize> {
        let (least, most) = self.points;
        match self.test.as_slice() {
            [] if least == most => vec![least],
            [] => vec![least, most],
            sizes => sizes.to_vec(),
        }
    }

    fn validate(&self) -> std::result::Result<(), String> {
        let (fewest, name) = (self.task.fewest(), self.task.name());
        if self.dataset != DATASET {
            return Err(format!("data.dataset = {:?}: expected \"{DATASET}\"", self.dataset));
        }
        let (least, most) = self.points;
        if least < fewest || most < least {
            let points = [least, most];
            return Err(format!(
                "data.points = {points:?}: expected the least and the most, at least {fewest} for {name}"
            ));
        }
        if let Some(bad) = self.test.iter().find(|&&n| n < fewest) {
            return Err(format!("data.test: {bad}, expected at least {fewest} for {name}"));
        }
        if self.examples == Some(0) || self.beam == 0 {
            return Err("data.examples and data.beam: expected at least 1, got 0".into());
        }
        match self.files.iter().find(|file| file.is_empty() || file.contains(['/', '\\'])) {
            Some(bad) => Err(format!("data.files: {bad:?}, expected the name of a file")),
            None => Ok(()),
        }
    }
}

impl PointerRecipe {
    /// Reads a recipe and applies overrides of the form `a.b=value` (a TOML value, or a bare string).
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value makes no sense; the message names the file and the key.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let (text, place) = (text(path)?, path.display().to_string());
        if overrides.is_empty() {
            // Straight from the text, so that errors show line and column.
            return Self::parse(&text, &place);
        }
        let bad = |e: toml::de::Error| Error::recipe(&place, e.to_string());
        let mut table: Table = toml::from_str(&text).map_err(bad)?;
        overrides.iter().try_for_each(|o| apply_override(&mut table, o))?;
        let recipe: Self = Value::Table(table).try_into().map_err(bad)?;
        recipe.validate().map_err(|reason| Error::recipe(&place, reason))?;
        Ok(recipe)
    }

    /// The model's config.
    ///
    /// # Errors
    /// When a key is unknown or a value makes no sense, naming it.
    pub fn config(&self) -> Result<Config> {
        let mut keys = self.model.clone();
        keys.remove("architecture");
        let changes = serde_json::to_value(keys).map_err(Error::json(Path::new("model")))?;
        Ok(Config::with(changes.as_object().cloned().unwrap_or_default())?)
    }

    fn validate(&self) -> std::result::Result<(), String> {
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return Err(format!("name = {:?}: expected a plain folder name", self.name));
        }
        let architecture = self.model.get("architecture");
        if architecture.and_then(Value::as_str) != Some(ARCHITECTURE) {
            let got = architecture.map_or("nothing".into(), Value::to_string);
            return Err(format!("model.architecture: expected \"{ARCHITECTURE}\", got {got}"));
        }
        self.batches.validate()?;
        let config = self.config().map_err(|e| e.to_string())?;
        if config.input_size != 2 {
            return Err(format!(
                "model.input_size = {}: points of the plane have 2",
                config.input_size
            ));
        }
        self.data.validate()
    }
}

impl RunRecipe for PointerRecipe {
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
        let trained = |recipe: &Self| {
            let data = &recipe.data;
            (data.task, data.points, data.examples)
        };
        (&self.name, &self.model, &self.batches) == (&other.name, &other.model, &other.batches)
            && trained(self) == trained(other)
    }
}

/// Whether the recipe of this file is one of pointer networks, as its `data.dataset` says.
///
/// # Errors
/// When the file cannot be read or is no TOML.
pub fn is_pointer(path: &Path) -> Result<bool> {
    Ok(dataset(path)?.as_deref() == Some(DATASET))
}
