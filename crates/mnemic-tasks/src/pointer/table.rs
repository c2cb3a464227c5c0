//! The results of many runs: rows beside the recipes, and the tables made of them beside the paper's figures.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use mnemic_data::planar::PlanarTask;
use serde::{Deserialize, Serialize};

use super::paper::figure;
use super::recipe::{PointerRecipe, is_pointer};
use super::run::{PointerResult, PointerTest};
use crate::Result;
use crate::babi::{Row, read_csv};
use crate::files::recipes_below;

/// A row of `results.csv`: one test of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointerRow {
    /// The recipe's file name.
    pub recipe: String,
    /// The task.
    pub task: PlanarTask,
    /// The least points that it was trained on.
    pub trained_from: usize,
    /// The most points that it was trained on.
    pub trained_to: usize,
    /// The seed.
    pub seed: u64,
    /// Points of the test.
    pub points: usize,
    /// `generated`, or the published file.
    pub source: String,
    /// How answers were searched for.
    pub search: String,
    /// Instances tested.
    pub instances: usize,
    /// Right answers in percent.
    pub accuracy_percent: f64,
    /// Covered area or triangles found, in percent.
    pub coverage_percent: Option<f64>,
    /// Valid answers in percent.
    pub valid_percent: f64,
    /// Mean length of the valid tours.
    pub length: Option<f64>,
    /// Mean length of the reference tours.
    pub reference_length: Option<f64>,
    /// Whether the reference tours are known to be the shortest.
    pub exact: Option<bool>,
    /// Training instances seen.
    pub trained_examples: u64,
    /// CPU minutes of the run.
    pub cpu_minutes: Option<f64>,
    /// The commit, with `+` where files were changed.
    pub commit: String,
    /// The day.
    pub date: String,
    /// Processor, threads and, where another device computed, that one.
    pub machine: String,
}

impl PointerRow {
    /// The rows of a run, one a test.
    pub fn of(recipe: &PointerRecipe, path: &Path, result: &PointerResult) -> Vec<Self> {
        let p = &result.provenance;
        let row = |test: &PointerTest| Self {
            recipe: path.file_name().unwrap_or_default().to_string_lossy().into(),
            task: recipe.data.task,
            trained_from: recipe.data.points.0,
            trained_to: recipe.data.points.1,
            seed: result.seed,
            points: test.points,
            source: test.source.clone(),
            search: test.search.clone(),
            instances: test.instances,
            accuracy_percent: rounded(test.accuracy_percent, 2),
            coverage_percent: test.coverage_percent.map(|x| rounded(x, 2)),
            valid_percent: rounded(test.valid_percent, 2),
            length: test.length.map(|x| rounded(x, 4)),
            reference_length: test.reference_length.map(|x| rounded(x, 4)),
            exact: test.exact,
            trained_examples: result.examples,
            cpu_minutes: result.cpu_seconds.map(|s| rounded(s / 60., 1)),
            commit: p.commit.clone(),
            date: p.date.clone(),
            machine: p.hardware(),
        };
        result.tests.iter().map(row).collect()
    }

    fn trained(&self) -> (usize, usize) {
        (self.trained_from, self.trained_to)
    }
}

impl Row for PointerRow {
    fn key(&self) -> impl Ord {
        // The greedy search before the beams, generated instances before files of as many points.
        let beam = (self.search != "greedy", self.search.clone());
        let source = (self.source != "generated", self.source.clone());
        (self.recipe.clone(), self.seed, self.points, source, beam)
    }
}

fn rounded(x: f64, digits: i32) -> f64 {
    let ten = 10f64.powi(digits);
    (x * ten).round() / ten
}

/// A file with a recipe for a pointer network.
#[derive(Debug, Clone)]
pub struct PointerFile {
    /// The file.
    pub path: PathBuf,
    /// Its recipe.
    pub recipe: PointerRecipe,
}

impl PointerFile {
    /// All such files below a folder, by path; other kinds of recipes are left out.
    ///
    /// # Errors
    /// When a folder or file cannot be read or a recipe is wrong.
    pub fn below(folder: &Path) -> Result<Vec<Self>> {
        let mut files = vec![];
        for path in recipes_below(folder)? {
            if is_pointer(&path)? {
                files.push(Self { recipe: PointerRecipe::read(&path, &[])?, path });
            }
        }
        Ok(files)
    }
}

/// The tables of all results below a folder, one a task, in Markdown; empty where there are none.
///
/// # Errors
/// When a file cannot be read or holds something else.
pub fn pointer_section(folder: &Path) -> Result<String> {
    let mut rows: Vec<PointerRow> = vec![];
    let mut seen = vec![];
    for file in PointerFile::below(folder)? {
        let table = file.path.parent().unwrap_or(folder).join("results.csv");
        if !seen.contains(&table) {
            rows.extend(read_csv::<PointerRow>(&table)?);
            seen.push(table);
        }
    }
    if rows.is_empty() {
        return Ok(String::new());
    }
    let mut out = String::from(
        "\n# Pointer networks\n\nPaper: Vinyals et al. 2015, the rows `Ptr-Net`, beam search; its figures are recalled from memory, single digits may be off. Where it has \
         no model trained on the same numbers of points, the figure is that of the model in brackets.\n",
    );
    for task in PlanarTask::ALL {
        let rows: Vec<&PointerRow> = rows.iter().filter(|row| row.task == task).collect();
        if !rows.is_empty() {
            out.push_str(&table(task, &rows));
        }
    }
    Ok(out)
}

fn table(task: PlanarTask, rows: &[&PointerRow]) -> String {
    let (title, explained, columns) = match task {
        PlanarTask::ConvexHull => (
            "Convex hull",
            "*Accuracy*: the same polygon. *Area*: share of the true hull's area, over answers that are simple polygons; FAIL where more than 1 % are not.",
            "accuracy % | paper | area % | paper | simple % |",
        ),
        PlanarTask::Delaunay => (
            "Delaunay triangulation",
            "*Accuracy*: all triangles and no other. *Triangles*: share of the true triangles that were found.",
            "accuracy % | paper | triangles % | paper | well-formed % |",
        ),
        PlanarTask::Tsp => (
            "Travelling salesman",
            "*Length*: mean over valid tours; *reference*: the shortest tours of the same instances, or those of local searches (~) above twelve points.",
            "length | paper | reference | shortest % | valid % |",
        ),
    };
    let mut out = format!(
        "\n## {title}\n\n{explained}\n\n| recipe | trained on | points | search | {columns} instances | CPU minutes |\n\
         | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for row in rows {
        let figures = match task {
            PlanarTask::Tsp => tour_figures(row),
            _ => polygon_figures(row),
        };
        let minutes = row.cpu_minutes.map_or("–".into(), |m| format!("{m:.1}"));
        let points = match row.source.as_str() {
            "generated" => row.points.to_string(),
            file => format!("{} (`{file}`)", row.points),
        };
        let _ = writeln!(
            out,
            "| {} (seed {}) | {} | {points} | {} | {figures} {} | {minutes} |",
            row.recipe.trim_end_matches(".toml"),
            row.seed,
            range(row.trained()),
            row.search,
            row.instances,
        );
    }
    out
}

/// Numbers of points as they stand in tables: `5` or `5–50`.
fn range((least, most): (usize, usize)) -> String {
    if least == most { least.to_string() } else { format!("{least}–{most}") }
}

/// A figure of the paper, with the points that its model was trained on where these are others.
fn recalled(
    row: &PointerRow,
    digits: usize,
    value: fn(&super::paper::Figure) -> Option<f64>,
) -> String {
    let figure = figure(row.task, row.trained(), row.points);
    match figure.and_then(|f| value(&f).map(|x| (x, f.trained))) {
        Some((x, trained)) if trained == row.trained() => format!("{x:.digits$}"),
        Some((x, trained)) => format!("{x:.digits$} ({})", range(trained)),
        None => "–".into(),
    }
}

fn polygon_figures(row: &PointerRow) -> String {
    let coverage = row.coverage_percent.map_or("–".into(), |c| format!("{c:.1}"));
    let fail = row.task == PlanarTask::ConvexHull && row.valid_percent < 99.;
    let coverage = if fail { format!("FAIL ({coverage})") } else { coverage };
    format!(
        "{:.1} | {} | {coverage} | {} | {:.1} |",
        row.accuracy_percent,
        recalled(row, 1, |f| f.accuracy),
        recalled(row, 1, |f| f.coverage),
        row.valid_percent,
    )
}

fn tour_figures(row: &PointerRow) -> String {
    let about = if row.exact == Some(true) { "" } else { "~" };
    let reference = row.reference_length.map_or("–".into(), |x| format!("{about}{x:.3}"));
    format!(
        "{} | {} | {reference} | {:.1} | {:.1} |",
        row.length.map_or("–".into(), |x| format!("{x:.3}")),
        recalled(row, 2, |f| f.length),
        row.accuracy_percent,
        row.valid_percent,
    )
}
