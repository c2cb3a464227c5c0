//! Tables of results in Markdown: a row for each task, a column for each recipe.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use mnemic_data::babi::Task;

use super::{ResultRow, read_csv};
use crate::Result;
use crate::files::recipes_below;
use crate::recipe::file::dataset;
use crate::recipe::{Recipe, ResultTable, Source};

/// A task with more wrong answers than this, in percent, counts as failed (Weston et al. 2015).
pub const FAILED_ABOVE: f64 = 5.;

/// A file of recipes, with its path.
#[derive(Debug, Clone)]
pub struct RecipeFile {
    /// Where it lies.
    pub path: PathBuf,
    /// One recipe, or one for each task.
    pub recipes: Vec<Recipe>,
}

impl RecipeFile {
    /// All files of bAbI recipes below a folder, by path. Copies of recipes beside trained weights (`recipe.toml`) are left out.
    ///
    /// # Errors
    /// When a folder or file cannot be read or holds something else.
    pub fn below(folder: &Path) -> Result<Vec<Self>> {
        let mut files = Vec::new();
        for path in recipes_below(folder)? {
            // Another kind of recipe is none of ours; one without a data set is read, to say what it lacks.
            if dataset(&path)?.is_none_or(|name| name == "babi") {
                files.push(Self { recipes: Recipe::read_all(&path, &[])?, path });
            }
        }
        Ok(files)
    }

    /// The column of the file in the tables of results, from `results.csv` beside it.
    ///
    /// # Errors
    /// When the results cannot be read.
    pub fn column(&self) -> Result<Column> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let rows = read_csv::<ResultRow>(&folder.join("results.csv"))?.into_iter();
        let mut column = Column {
            title: self.recipes.first().map_or_else(String::new, |r| r.heading().to_string()),
            rows: rows.filter(|r| r.recipe == name).map(|r| (r.task, r)).collect(),
            paper: BTreeMap::new(),
            generated: Vec::new(),
            joint: self.recipes.iter().any(|r| r.data.tasks.len() > 1),
        };
        for recipe in &self.recipes {
            for task in recipe.data.tasks.iter().map(|t| t.number()) {
                column.paper.extend(recipe.paper.get(&task.to_string()).map(|p| (task, *p)));
                let table = recipe.table != Some(ResultTable::Generated);
                if table && recipe.data.source == Source::Generated {
                    column.generated.push(task);
                }
            }
        }
        Ok(column)
    }
}

/// The tables of results of the recipes below a folder, in Markdown, those that have a row.
///
/// # Errors
/// When recipes or results cannot be read.
pub fn tables(folder: &Path) -> Result<BTreeMap<ResultTable, String>> {
    let mut columns = BTreeMap::<ResultTable, Vec<Column>>::new();
    for file in RecipeFile::below(folder)? {
        let table = file.recipes.first().and_then(|r| r.table);
        let column = file.column()?;
        if let Some(table) = table.filter(|_| !column.rows.is_empty()) {
            columns.entry(table).or_default().push(column);
        }
    }
    Ok(columns.into_iter().map(|(table, columns)| (table, markdown(&columns))).collect())
}

/// The tables as a page.
pub fn page(tables: &BTreeMap<ResultTable, String>) -> String {
    let mut out = String::from(
        "# bAbI\n\nWrong answers in percent on the official test files (1,000 questions a task); in brackets what the \
         paper reports. The\nseed with the lowest validation loss is kept, and the test made once. A star: trained on \
         generated stories, since the official\ntraining file is not at hand. Seed, commit and machine of each number: \
         `results.csv` beside the recipes.\nWritten by `mnemic bench babi`; not to be edited.\n",
    );
    for (table, text) in tables {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n## {}\n\n{text}", table.heading());
    }
    out
}

/// Text with the tables in their places, which are between `<!-- bAbI HEADING -->` and `<!-- end -->`.
pub fn insert(text: &str, tables: &BTreeMap<ResultTable, String>) -> String {
    let mut out = text.to_string();
    for (table, new) in tables {
        let start = format!("<!-- bAbI {} -->\n", table.heading());
        if let Some(from) = out.find(&start).map(|at| at + start.len())
            && let Some(length) = out[from..].find("<!-- end -->")
        {
            out.replace_range(from..from + length, new);
        }
    }
    out
}

/// A column of a table: what one recipe, or the recipes of one file, came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The heading.
    pub title: String,
    /// Results by task number.
    pub rows: BTreeMap<u8, ResultRow>,
    /// The paper's figures by task number.
    pub paper: BTreeMap<u8, f64>,
    /// Tasks that were trained on generated stories because the official file is not there.
    pub generated: Vec<u8>,
    /// Whether one run learnt all tasks, so that its CPU minutes count once.
    pub joint: bool,
}

impl Column {
    /// Mean error over the twenty tasks, once all are there.
    pub fn mean(&self) -> Option<f64> {
        (self.rows.len() == Task::all().len())
            .then(|| mean(self.rows.values().map(|r| r.error_percent)))
    }

    fn paper_mean(&self) -> Option<f64> {
        (self.paper.len() == Task::all().len()).then(|| mean(self.paper.values().copied()))
    }

    /// Tasks with more than 5 % wrong answers.
    pub fn failed(&self) -> usize {
        self.rows.values().filter(|r| r.error_percent > FAILED_ABOVE).count()
    }

    fn cpu_minutes(&self) -> f64 {
        let minutes = self.rows.values().filter_map(|r| r.cpu_minutes);
        if self.joint { minutes.fold(0., f64::max) } else { minutes.sum() }
    }

    fn cell(&self, task: u8) -> String {
        let ours = match self.rows.get(&task) {
            Some(row) if self.generated.contains(&task) => format!("{:.1}*", row.error_percent),
            Some(row) => format!("{:.1}", row.error_percent),
            None => "–".into(),
        };
        beside(ours, self.paper.get(&task).copied())
    }
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count().max(1) as f64
}

fn beside(ours: String, paper: Option<f64>) -> String {
    paper.map_or_else(|| ours.clone(), |p| format!("{ours} ({p:.1})"))
}

/// The table in Markdown: error in percent, the paper's in brackets; then mean error, failed tasks and what the training took.
pub fn markdown(columns: &[Column]) -> String {
    let mut out = String::from("| task |");
    let heads: String = columns.iter().map(|c| format!(" {} |", c.title)).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{heads}\n| --- |{}", " ---: |".repeat(columns.len()));
    let mut line = |name: &str, cell: &dyn Fn(&Column) -> String| {
        let cells: String = columns.iter().map(|c| format!(" {} |", cell(c))).collect();
        let _ = writeln!(out, "| {name} |{cells}");
    };
    for task in Task::all() {
        let number = task.number();
        if columns.iter().any(|c| c.rows.contains_key(&number) || c.paper.contains_key(&number)) {
            let name = format!("{number} {}", task.title().to_lowercase());
            line(&name, &|c| c.cell(number));
        }
    }
    line("**mean error**", &|c| {
        let ours = c.mean().map_or_else(|| "–".into(), |m| format!("**{m:.1}**"));
        beside(ours, c.paper_mean())
    });
    line("**failed tasks** (> 5 %)", &|c| {
        let paper = c.paper.values().filter(|p| **p > FAILED_ABOVE).count();
        let paper = if c.paper.is_empty() { String::new() } else { format!(" ({paper})") };
        let of = if c.rows.len() == Task::all().len() {
            String::new()
        } else {
            format!(" of {}", c.rows.len())
        };
        format!("**{}**{of}{paper}", c.failed())
    });
    line("restarts", &|c| {
        let counts = || c.rows.values().map(|r| r.restarts);
        match (counts().min(), counts().max()) {
            (Some(a), Some(b)) if a == b => a.to_string(),
            (Some(a), Some(b)) => format!("{a}–{b}"),
            _ => "–".into(),
        }
    });
    line("CPU minutes, all restarts", &|c| format!("{:.0}", c.cpu_minutes()));
    line("training examples a second", &|c| {
        if c.rows.is_empty() {
            "–".into()
        } else {
            format!("{:.0}", mean(c.rows.values().map(|r| r.examples_per_second)))
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::*;

    fn column(joint: bool) -> Column {
        let rows = (1..=20).map(|t| (t, row("a.toml", t, if t == 16 { 50. } else { 0.5 })));
        Column {
            title: "DMN+".into(),
            rows: rows.collect(),
            paper: (1..=20).map(|t| (t, f64::from(t))).collect(),
            generated: vec![3],
            joint,
        }
    }

    #[test]
    fn a_table_has_every_task_and_the_sums() {
        let text = markdown(&[column(false), Column { rows: BTreeMap::new(), ..column(true) }]);
        assert!(text.starts_with("| task | DMN+ | DMN+ |\n| --- | ---: | ---: |\n"));
        assert!(text.contains("| 3 three supporting facts | 0.5* (3.0) | – (3.0) |"), "{text}");
        assert!(text.contains("| **mean error** | **3.0** (10.5) | – (10.5) |"), "{text}");
        assert!(text.contains("| **failed tasks** (> 5 %) | **1** (15) | **0** of 0 (15) |"));
        assert!(text.contains("| CPU minutes, all restarts | 40 | 0 |"), "{text}");
        let tables = BTreeMap::from([(ResultTable::Ablation, "new\n".to_string())]);
        let place =
            format!("a\n<!-- bAbI {} -->\nold\n<!-- end -->\nb", ResultTable::Ablation.heading());
        assert_eq!(insert(&place, &tables), place.replace("old", "new"));
        assert!(page(&tables).ends_with("\n\nnew\n"));
        assert_eq!(column(true).cpu_minutes(), 2.);
        assert_eq!(column(false).mean().map(|m| (m * 1000.).round()), Some(2975.));
    }
}
