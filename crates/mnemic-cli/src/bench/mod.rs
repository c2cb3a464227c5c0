//! `mnemic bench`: many recipes carried out, their results kept as tables.

mod algorithms;
mod generalise;
mod jobs;

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::babi::{RecipeFile, ResultRow, RunResult, table, update_csv};
use mnemic_tasks::data::babi::Edition;
use mnemic_tasks::{Place, Recipe};

use crate::args::{BabiBenchArgs, BenchCommand, Size};
use crate::output;
use jobs::{Job, Runner};

pub(crate) fn bench(command: &BenchCommand) -> Result<ExitCode> {
    match command {
        BenchCommand::Algorithms(args) => algorithms::algorithms(args),
        BenchCommand::Babi(args) => babi(args),
        BenchCommand::Generalise(args) => generalise::generalise(args),
    }
}

/// Trains every recipe that fits and writes the results.
fn babi(args: &BabiBenchArgs) -> Result<ExitCode> {
    if args.tables {
        write_tables(&args.recipes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = jobs(args)?;
    if jobs.is_empty() {
        bail!("{}: no recipe fits", args.recipes.display());
    }
    if args.list {
        return list(&jobs);
    }
    carry_out(jobs, args.jobs, args.device, || write_tables(&args.recipes))
}

fn list(jobs: &[Job]) -> Result<ExitCode> {
    let lines: Vec<String> = jobs.iter().map(Job::line).collect();
    output::print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the runs, then the tables, and says how it went.
fn carry_out(
    jobs: Vec<Job>,
    at_once: Option<NonZeroUsize>,
    device: Place,
    tables: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    let runner = Runner::new(jobs.len(), at_once, device)?;
    let failed = runner.run(jobs);
    tables()?;
    if runner.interrupt.is_requested() {
        eprintln!("stopped; the same command goes on from here");
        return Ok(ExitCode::from(130));
    }
    for failure in &failed {
        eprintln!("failed: {failure}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the tables of all results and writes them into `babi.md` and, where it has places for them, the README above.
fn write_tables(folder: &Path) -> Result<()> {
    let tables = table::tables(folder)?;
    let page = table::page(&tables);
    mnemic_tasks::write_text(&folder.join("babi.md"), &page)?;
    let readme = folder.join("../README.md");
    if let Ok(old) = std::fs::read_to_string(&readme) {
        let new = table::insert(&old, &tables);
        if new != old {
            mnemic_tasks::write_text(&readme, &new)?;
        }
    }
    output::print(&page)
}

/// What is to be run.
fn jobs(args: &BabiBenchArgs) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for file in RecipeFile::below(&args.recipes)? {
        for recipe in file.recipes {
            if fits(args, &file.path, &recipe) {
                jobs.push(job(args, &file.path, recipe));
            }
        }
    }
    Ok(jobs)
}

fn job(args: &BabiBenchArgs, path: &Path, recipe: Recipe) -> Job {
    let mut arguments = vec![path.display().to_string()];
    if let [task] = recipe.data.tasks.as_slice() {
        arguments.extend(["--task".to_string(), task.number().to_string()]);
    }
    if let Some(data) = &args.data {
        arguments.extend(["--data".to_string(), data.display().to_string()]);
    }
    let (name, description) = (recipe.name.clone(), recipe.description.clone());
    let run = args.runs.join(&recipe.name);
    let path = path.to_path_buf();
    let collect = Box::new(move |run: &Path| collect(&path, &recipe, run));
    Job { name, description, arguments, run, collect }
}

/// Adds the rows of a run to the results beside its recipe.
fn collect(path: &Path, recipe: &Recipe, run: &Path) -> Result<String> {
    let result: RunResult = jobs::result(run)?;
    let rows = ResultRow::of(recipe, path, &result)?;
    update_csv(&path.parent().unwrap_or(Path::new(".")).join("results.csv"), &rows)?;
    let paper: Vec<f64> = result.tests.iter().filter_map(|t| t.paper_percent).collect();
    let paper = match paper.len() == result.tests.len() {
        true => format!(" (paper {:.1} %)", paper.iter().sum::<f64>() / paper.len() as f64),
        false => String::new(),
    };
    let (error, seed) = (result.mean_error(), result.seed);
    let (of, seconds) = (result.epochs.len(), result.seconds);
    Ok(format!("error {error:.1} %{paper}, seed {seed} of {of}, {seconds:.0} s"))
}

fn fits(args: &BabiBenchArgs, path: &Path, recipe: &Recipe) -> bool {
    let text = format!("{} {}", path.display(), recipe.name);
    let architecture = recipe.model.get("architecture").and_then(|a| a.as_str());
    let named = |name: &String| Some(name.as_str()) == architecture;
    let size = match recipe.data.edition {
        Some(Edition::En | Edition::EnValid) => Size::Thousand,
        _ => Size::TenThousand,
    };
    (args.models.is_empty() || args.models.iter().any(named))
        && (args.tasks.is_empty() || recipe.data.tasks.iter().any(|t| args.tasks.contains(t)))
        && args.size.is_none_or(|s| s == size)
        && (args.filter.is_empty() || args.filter.iter().any(|f| text.contains(f.as_str())))
}
