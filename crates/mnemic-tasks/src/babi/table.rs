//! Tables of results: one row for a model and task, kept as CSV beside the recipes.

use std::path::Path;

use super::run::RunResult;
use crate::recipe::{Recipe, Source};
use crate::{Error, Result};

/// The columns of `results.csv`.
const COLUMNS: &str = "model,size,task,seed,error_percent,paper_percent,cpu_minutes,commit,recipe,date,machine,validation_error_percent,restarts";

/// A row of `results.csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// The recipe's file name, which a newer row of the same recipe and task replaces.
    pub recipe: String,
    /// The task.
    pub task: u8,
    /// The row as CSV.
    pub line: String,
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
        let name = recipe_path.file_name().unwrap_or_default().to_string_lossy().to_string();
        let p = &result.provenance;
        let minutes = result.cpu_seconds.map_or_else(String::new, |s| format!("{:.1}", s / 60.));
        let valid =
            result.validation.get("error").map_or_else(String::new, |e| format!("{:.2}", 100. * e));
        let row = |t: &super::TestResult| {
            let paper = t.paper_percent.map_or_else(String::new, |p| p.to_string());
            let line = format!(
                "{model},{size},{},{},{:.1},{paper},{minutes},{},{name},{},\"{}\",{valid},{}",
                t.task,
                result.seed,
                t.error_percent,
                p.commit,
                p.date,
                p.machine,
                result.epochs.len()
            );
            Self { recipe: name.clone(), task: t.task, line }
        };
        Ok(result.tests.iter().map(row).collect())
    }

    fn key(line: &str) -> (String, String) {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |i: usize| fields.get(i).unwrap_or(&"").to_string();
        (field(8), field(2))
    }
}

/// Adds rows to a CSV file, in place of older rows of the same recipe and task.
///
/// # Errors
/// When the file holds other columns or cannot be written.
pub fn update_csv(path: &Path, rows: &[ResultRow]) -> Result<()> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    match lines.first() {
        None => lines.push(COLUMNS.to_string()),
        Some(head) if head == COLUMNS => {}
        Some(head) => {
            let message = format!("{}, line 1: expected {COLUMNS}, got {head}", path.display());
            return Err(Error::request(message));
        }
    }
    for row in rows {
        let key = (row.recipe.clone(), row.task.to_string());
        match lines.iter().skip(1).position(|l| ResultRow::key(l) == key) {
            Some(i) => lines[i + 1] = row.line.clone(),
            None => lines.push(row.line.clone()),
        }
    }
    crate::write_text(path, &(lines.join("\n") + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(task: u8, error: &str) -> ResultRow {
        let line = format!(
            "dmn-plus,en-10k,{task},1,{error},0,2.0,abc,a.toml,2026-01-01,\"x, 2 threads\",0.1,1"
        );
        ResultRow { recipe: "a.toml".into(), task, line }
    }

    #[test]
    fn newer_rows_replace_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        update_csv(&path, &[row(1, "0.5"), row(2, "3.0")]).unwrap();
        update_csv(&path, &[row(1, "0.1")]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], COLUMNS);
        assert!(lines[1].contains(",1,1,0.1,") && lines[2].contains(",2,1,3.0,"));
        std::fs::write(&path, "a,b\n").unwrap();
        let error = update_csv(&path, &[row(1, "0")]).unwrap_err().to_string();
        assert!(error.contains("line 1: expected model,size"), "{error}");
    }
}
