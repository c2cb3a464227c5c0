//! Rows of results, kept as CSV beside the recipes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::run::RunResult;
use crate::recipe::{Recipe, Source};
use crate::{Error, Result};

/// A row of `results.csv`: one task of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultRow {
    /// The architecture.
    pub model: String,
    /// The training data: an official edition, or `generated-` and the number of questions.
    pub size: String,
    /// The task that was tested.
    pub task: u8,
    /// The seed that had the lowest validation loss.
    pub seed: u64,
    /// Wrong answers in percent.
    pub error_percent: f64,
    /// The figure of the paper.
    pub paper_percent: Option<f64>,
    /// CPU minutes of the run, all restarts together; a joint run's stand in each of its rows.
    pub cpu_minutes: Option<f64>,
    /// The commit, with `+` where files were changed.
    pub commit: String,
    /// The recipe's file name, which a newer row of the same recipe and task replaces.
    pub recipe: String,
    /// The day.
    pub date: String,
    /// Processor, threads and, where another device computed, that one.
    pub machine: String,
    /// Wrong answers of the chosen model on the validation data, in percent.
    pub validation_error_percent: Option<f64>,
    /// Runs from different seeds.
    pub restarts: usize,
    /// Training examples a second of the chosen run.
    pub examples_per_second: f64,
}

impl ResultRow {
    /// The rows of a run, one a task.
    ///
    /// # Errors
    /// When the recipe's model section has no architecture.
    pub fn of(recipe: &Recipe, recipe_path: &Path, result: &RunResult) -> Result<Vec<Self>> {
        let model = recipe.model.get("architecture").and_then(toml::Value::as_str);
        let model = model.ok_or_else(|| Error::recipe("model", "architecture is missing"))?;
        let size = match (recipe.data.source, recipe.data.edition) {
            (Source::Official, Some(edition)) => edition.name().to_string(),
            _ => format!("generated-{}", recipe.data.train_questions),
        };
        let p = &result.provenance;
        let row = |t: &super::TestResult| Self {
            model: model.into(),
            size: size.clone(),
            task: t.task,
            seed: result.seed,
            error_percent: rounded(t.error_percent, 1),
            paper_percent: t.paper_percent,
            cpu_minutes: result.cpu_seconds.map(|s| rounded(s / 60., 1)),
            commit: p.commit.clone(),
            recipe: recipe_path.file_name().unwrap_or_default().to_string_lossy().into(),
            date: p.date.clone(),
            machine: p.hardware(),
            validation_error_percent: result.validation.get("error").map(|e| rounded(100. * e, 2)),
            restarts: result.epochs.len(),
            examples_per_second: rounded(result.examples_per_second, 0),
        };
        Ok(result.tests.iter().map(row).collect())
    }
}

fn rounded(x: f64, digits: i32) -> f64 {
    let ten = 10f64.powi(digits);
    (x * ten).round() / ten
}

/// A row of a table that is kept as CSV.
pub trait Row: Clone + Serialize + serde::de::DeserializeOwned {
    /// Rows are sorted by it, and a newer row replaces the older one of the same key.
    fn key(&self) -> impl Ord;
}

impl Row for ResultRow {
    fn key(&self) -> impl Ord {
        (self.recipe.clone(), self.task)
    }
}

/// The rows of a CSV file; none where there is no file.
///
/// # Errors
/// When the file cannot be read or a line does not fit, naming it.
pub fn read_csv<R: Row>(path: &Path) -> Result<Vec<R>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let bad = |e: csv::Error| Error::request(format!("{}: {e}", path.display()));
    csv::Reader::from_reader(file).deserialize().map(|row| row.map_err(bad)).collect()
}

/// Adds rows to a CSV file, in place of older rows of the same key; sorted.
///
/// # Errors
/// When the file holds something else or cannot be written.
pub fn update_csv<R: Row>(path: &Path, rows: &[R]) -> Result<()> {
    let mut all: Vec<R> = read_csv(path)?;
    all.retain(|old| rows.iter().all(|new| new.key() != old.key()));
    all.extend_from_slice(rows);
    all.sort_by(|a, b| a.key().cmp(&b.key()));
    let bad = |e: String| Error::request(format!("{}: {e}", path.display()));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in all {
        writer.serialize(row).map_err(|e| bad(e.to_string()))?;
    }
    let text = writer.into_inner().map_err(|e| bad(e.to_string()))?;
    crate::write_text(path, &String::from_utf8_lossy(&text))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn row(recipe: &str, task: u8, error: f64) -> ResultRow {
        ResultRow {
            model: "dmn-plus".into(),
            size: "en-10k".into(),
            task,
            seed: 1,
            error_percent: error,
            paper_percent: Some(0.),
            cpu_minutes: Some(2.),
            commit: "abc".into(),
            recipe: recipe.into(),
            date: "2026-01-01".into(),
            machine: "x, 2 threads".into(),
            validation_error_percent: None,
            restarts: 1,
            examples_per_second: 100.,
        }
    }

    #[test]
    fn newer_rows_replace_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        update_csv(&path, &[row("a.toml", 10, 0.5), row("a.toml", 2, 3.)]).unwrap();
        update_csv(&path, &[row("a.toml", 10, 0.1)]).unwrap();
        assert_eq!(
            read_csv::<ResultRow>(&path).unwrap(),
            [row("a.toml", 2, 3.), row("a.toml", 10, 0.1)]
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("model,size,task,seed,error_percent,paper_percent,cpu_minutes,"));
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let error = update_csv(&path, &[row("a.toml", 1, 0.)]).unwrap_err().to_string();
        assert!(error.contains("results.csv") && error.contains("line: 2"), "{error}");
    }
}
