//! The results of many runs: rows beside the recipes, and the tables made of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::paper::paper;
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
    /// Of patterns, the sizes of which no sequence is wrong, in percent.
    #[serde(default)]
    pub solved_percent: Option<f64>,
    /// Whether actions were rounded, where a model has such.
    #[serde(default)]
    pub rounding: Option<bool>,
    /// The loss of the validation by which the weights were kept, which chooses among seeds.
    #[serde(default)]
    pub validation_loss: Option<f64>,
    /// Training sequences seen; of patterns, streams of ten or more.
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
            solved_percent: test.solved_percent.map(|x| rounded(x, 2)),
            rounding: test.rounding,
            validation_loss: Some(rounded(result.validation.loss, 6)),
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
        let test = (self.sizes.len(), self.sizes.clone(), self.rounding);
        (self.task.clone(), self.recipe.clone(), self.seed, test)
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
         error; *bits*: cross-entropy of a sequence; *solved*: the sizes of which no sequence is wrong, and in brackets those of the seed with the lowest validation \
         loss. *Paper*: what its table says of the same, as it is remembered; many papers have curves only.\n",
    );
    for (task, models) in &tasks {
        let _ = write!(out, "\n## {task}\n\n");
        let solved = models.values().flatten().any(|row| row.solved_percent.is_some());
        let (title, rule) = if solved { (" solved % |", " ---: |") } else { ("", "") };
        let _ = write!(
            out,
            "| recipe | test |{title} wrong % | fine % | bits | paper | converged | sequences | CPU minutes |\n\
             | --- | --- |{rule} ---: | ---: | ---: | --- | ---: | ---: | ---: |\n",
        );
        for (model, rows) in models {
            lines((model, task), rows, solved, &mut out);
        }
    }
    out.push_str(&crate::pointer::pointer_section(folder)?);
    Ok(out)
}

/// The lines of a recipe, `folder/file`, on a task.
fn lines((model, task): (&str, &str), rows: &[AlgorithmRow], solved: bool, out: &mut String) {
    let mut tests: Vec<(&str, Option<bool>)> = vec![];
    for row in rows {
        if !tests.contains(&(&row.sizes, row.rounding)) {
            tests.push((&row.sizes, row.rounding));
        }
    }
    for (size, rounding) in tests {
        let fits = |row: &&AlgorithmRow| (row.sizes.as_str(), row.rounding) == (size, rounding);
        let runs: Vec<&AlgorithmRow> = rows.iter().filter(fits).collect();
        let middle = |of: fn(&AlgorithmRow) -> f64| median(runs.iter().map(|row| of(row)));
        let converged = runs.iter().filter(|row| row.converged).count();
        let paper = paper(model, task, size, rounding == Some(true));
        let size = if size.is_empty() { "as trained" } else { size };
        let how = if rounding == Some(true) { ", rounded" } else { "" };
        let solved = if solved { solved_cell(&runs) } else { String::new() };
        let _ = writeln!(
            out,
            "| {model} | {size}{how} |{solved} {:.1} | {:.1} | {:.3} | {paper} | {converged} of {} | {:.0} | {:.1} |",
            middle(|row| row.error_percent),
            middle(|row| row.fine_percent),
            middle(|row| row.bits),
            runs.len(),
            middle(|row| row.trained_sequences as f64),
            middle(|row| row.cpu_minutes.unwrap_or(f64::NAN)),
        );
    }
}

/// The median of the sizes solved and, in brackets, those of the seed with the lowest validation loss.
fn solved_cell(runs: &[&AlgorithmRow]) -> String {
    let of = |row: &&AlgorithmRow| row.solved_percent.unwrap_or(f64::NAN);
    let loss = |row: &&AlgorithmRow| row.validation_loss.unwrap_or(f64::INFINITY);
    let chosen = runs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).map_or(f64::NAN, of);
    format!(" {:.1} ({chosen:.1}) |", median(runs.iter().map(of)))
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
            solved_percent: None,
            rounding: None,
            validation_loss: None,
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
            page.contains("| ntm/copy | 20 | 2.0 | 98.0 | 0.250 | – | 2 of 3 | 3200 | 1.5 |"),
            "{page}"
        );
        assert!(
            page.contains("| ntm/copy | 100 | 50.0 | 50.0 | 0.250 | – | 1 of 1 | 3200 | 1.5 |"),
            "{page}"
        );
        assert!(page.find("| 20 |").unwrap() < page.find("| 100 |").unwrap());
        assert!(!page.contains("solved %"));
    }

    #[test]
    fn of_patterns_the_best_on_validation_stands_beside_the_median() {
        let run = |seed, solved, rounding, loss| AlgorithmRow {
            solved_percent: Some(solved),
            rounding: Some(rounding),
            validation_loss: Some(loss),
            ..row(seed, "2 × 60", 0.)
        };
        let rows = [
            run(1, 30., false, 0.5),
            run(2, 100., false, 0.1),
            run(3, 40., false, 0.2),
            run(1, 50., true, 0.5),
        ];
        let mut out = String::new();
        lines(("stack-rnn/stack", "copy"), &rows, true, &mut out);
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("| stack-rnn/stack | 2 × 60 | 40.0 (100.0) | 0.0 |"), "{out}");
        assert!(
            lines[1].starts_with("| stack-rnn/stack | 2 × 60, rounded | 50.0 (50.0) |"),
            "{out}"
        );
    }
}
