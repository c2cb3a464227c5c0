//! The results of many runs: rows beside the recipes, and the tables made of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::recipe::{AlgorithmRecipe, is_algorithm};
use super::run::AlgorithmResult;
use crate::Result;
use crate::babi::{Row, read_csv};
use crate::files::recipes_below;

/// A row of `results.csv`: the test of one run at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmRow {
    /// The recipe's file name.
    pub recipe: String,
    /// The task.
    pub task: String,
    /// The seed.
    pub seed: u64,
    /// The sizes of the test, such as `20` or `65 × 128`; empty for those of training.
    pub sizes: String,
    /// Cross-entropy in bits for each sequence.
    pub bits: f64,
    /// Wrong bits or symbols for each sequence.
    pub wrong: f64,
    /// Sequences in which anything is wrong, in percent.
    pub error_percent: f64,
    /// The mean share of a sequence before its first error, in percent.
    pub fine_percent: f64,
    /// Whether `train.stop_when` was reached.
    pub converged: bool,
    /// Training sequences seen.
    pub trained_sequences: u64,
    /// CPU minutes of the run.
    pub cpu_minutes: Option<f64>,
    /// The commit, with `+` where files were changed.
    pub commit: String,
    /// The day.
    pub date: String,
    /// Processor, threads and, where another device computed, that one.
    pub machine: String,
}

impl AlgorithmRow {
    /// The rows of a run, one a size.
    pub fn of(recipe: &AlgorithmRecipe, path: &Path, result: &AlgorithmResult) -> Vec<Self> {
        let p = &result.provenance;
        let row = |test: &super::AlgorithmTest| Self {
            recipe: path.file_name().unwrap_or_default().to_string_lossy().into(),
            task: recipe.data.task.clone(),
            seed: result.seed,
            sizes: shown(&test.sizes),
            bits: rounded(test.bits, 4),
            wrong: rounded(test.wrong_bits, 4),
            error_percent: rounded(test.error_percent, 2),
            fine_percent: rounded(test.fine_percent, 2),
            converged: result.converged,
            trained_sequences: result.sequences,
            cpu_minutes: result.cpu_seconds.map(|s| rounded(s / 60., 1)),
            commit: p.commit.clone(),
            date: p.date.clone(),
            machine: p.hardware(),
        };
        result.tests.iter().map(row).collect()
    }
}

impl Row for AlgorithmRow {
    fn key(&self) -> impl Ord {
        // Sizes in the order of their numbers: one digit more is a longer test.
        (self.task.clone(), self.recipe.clone(), self.seed, self.sizes.len(), self.sizes.clone())
    }
}

/// Sizes as they stand in tables: `65 × 128`.
pub fn shown(sizes: &[usize]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ")
}

fn rounded(x: f64, digits: i32) -> f64 {
    let ten = 10f64.powi(digits);
    (x * ten).round() / ten
}

/// A file of algorithmic recipes: one, or one for each of its tasks.
#[derive(Debug, Clone)]
pub struct AlgorithmFile {
    /// The file.
    pub path: PathBuf,
    /// Its recipes.
    pub recipes: Vec<AlgorithmRecipe>,
}

impl AlgorithmFile {
    /// All such files below a folder, by path; other kinds of recipes are left out.
    ///
    /// # Errors
    /// When a folder or file cannot be read or a recipe is wrong.
    pub fn below(folder: &Path) -> Result<Vec<Self>> {
        let mut files = vec![];
        for path in recipes_below(folder)? {
            if is_algorithm(&path)? {
                files.push(Self { recipes: AlgorithmRecipe::read_all(&path, &[])?, path });
            }
        }
        Ok(files)
    }
}

/// Runs of one recipe on one task, at all seeds.
type Runs = Vec<AlgorithmRow>;

/// The tables of all results below a folder, one a task, in Markdown; those of [pointer networks](crate::pointer) at the end.
///
/// # Errors
/// When a file cannot be read or holds something else.
pub fn algorithm_page(folder: &Path) -> Result<String> {
    let mut tasks: BTreeMap<String, BTreeMap<String, Runs>> = BTreeMap::new();
    let mut seen = vec![];
    for file in AlgorithmFile::below(folder)? {
        let table = file.path.parent().unwrap_or(folder).join("results.csv");
        if seen.contains(&table) {
            continue;
        }
        let model = table.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        for row in read_csv::<AlgorithmRow>(&table)? {
            let name = format!("{model}/{}", row.recipe.trim_end_matches(".toml"));
            tasks.entry(row.task.clone()).or_default().entry(name).or_default().push(row);
        }
        seen.push(table);
    }
    let mut out = String::from(
        "# Algorithmic tasks\n\nWritten by `cargo xtask bench algorithms`; every run is a row of `results.csv` beside its recipe. Figures are medians over the \
         seeds. *Converged*: the goal of the recipe was reached. *Wrong*: sequences in which anything is wrong; *fine*: the share of a sequence before its first \
         error; *bits*: cross-entropy of a sequence.\n",
    );
    for (task, models) in &tasks {
        let _ = write!(out, "\n## {task}\n\n");
        out.push_str(
            "| recipe | test | wrong % | fine % | bits | converged | sequences | CPU minutes |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for (model, rows) in models {
            lines(model, rows, &mut out);
        }
    }
    out.push_str(&crate::pointer::pointer_section(folder)?);
    Ok(out)
}

fn lines(model: &str, rows: &[AlgorithmRow], out: &mut String) {
    let mut sizes: Vec<&str> = vec![];
    for row in rows {
        if !sizes.contains(&row.sizes.as_str()) {
            sizes.push(&row.sizes);
        }
    }
    for size in sizes {
        let runs: Vec<&AlgorithmRow> = rows.iter().filter(|row| row.sizes == size).collect();
        let middle = |of: fn(&AlgorithmRow) -> f64| median(runs.iter().map(|row| of(row)));
        let converged = runs.iter().filter(|row| row.converged).count();
        let size = if size.is_empty() { "as trained" } else { size };
        let _ = writeln!(
            out,
            "| {model} | {size} | {:.1} | {:.1} | {:.3} | {converged} of {} | {:.0} | {:.1} |",
            middle(|row| row.error_percent),
            middle(|row| row.fine_percent),
            middle(|row| row.bits),
            runs.len(),
            middle(|row| row.trained_sequences as f64),
            middle(|row| row.cpu_minutes.unwrap_or(f64::NAN)),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::babi::update_csv;

    fn row(seed: u64, sizes: &str, error: f64) -> AlgorithmRow {
        AlgorithmRow {
            recipe: "copy.toml".into(),
            task: "copy".into(),
            seed,
            sizes: sizes.into(),
            bits: 0.25,
            wrong: 0.,
            error_percent: error,
            fine_percent: 100. - error,
            converged: seed != 2,
            trained_sequences: 3200,
            cpu_minutes: Some(1.5),
            commit: "abc".into(),
            date: "2026-11-27".into(),
            machine: "x".into(),
        }
    }

    #[test]
    fn tables_have_medians_over_seeds_and_lines_for_sizes() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join("ntm");
        std::fs::create_dir(&folder).unwrap();
        let recipe = "name = \"x\"\n[model]\narchitecture = \"ntm\"\n[data]\ndataset = \"algorithms\"\ntask = \"copy\"\n\
                      [train]\nseed = 1\nepochs = 1\noptimizer = { name = \"adam\", lr = 0.01 }\n";
        std::fs::write(folder.join("copy.toml"), recipe).unwrap();
        let rows = [row(1, "100", 40.), row(1, "20", 0.), row(2, "20", 10.), row(3, "20", 2.)];
        update_csv(&folder.join("results.csv"), &rows).unwrap();
        update_csv(&folder.join("results.csv"), &[row(1, "100", 50.)]).unwrap();
        let page = algorithm_page(dir.path()).unwrap();
        assert!(
            page.contains("| ntm/copy | 20 | 2.0 | 98.0 | 0.250 | 2 of 3 | 3200 | 1.5 |"),
            "{page}"
        );
        assert!(
            page.contains("| ntm/copy | 100 | 50.0 | 50.0 | 0.250 | 1 of 1 | 3200 | 1.5 |"),
            "{page}"
        );
        assert!(page.find("| 20 |").unwrap() < page.find("| 100 |").unwrap());
    }
}
