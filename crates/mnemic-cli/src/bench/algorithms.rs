//! `mnemic bench algorithms`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::algorithms::{
    AlgorithmFile, AlgorithmRecipe, AlgorithmResult, AlgorithmRow, algorithm_page, shown,
};
use mnemic_tasks::babi::update_csv;
use mnemic_tasks::pointer::{PointerFile, PointerRecipe, PointerResult, PointerRow};

use super::jobs::{self, Job};
use crate::args::AlgorithmsBenchArgs;
use crate::output;

/// Trains every recipe that fits from every seed and writes the results.
pub(super) fn algorithms(args: &AlgorithmsBenchArgs) -> Result<ExitCode> {
    if args.tables {
        write_tables(&args.recipes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = all(args)?;
    if jobs.is_empty() {
        bail!("{}: no recipe fits", args.recipes.display());
    }
    if args.list {
        return super::list(&jobs);
    }
    super::carry_out(jobs, args.jobs, args.device, || write_tables(&args.recipes))
}

fn all(args: &AlgorithmsBenchArgs) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for file in AlgorithmFile::below(&args.recipes)? {
        let several = file.recipes.len() > 1;
        for recipe in &file.recipes {
            if !fits(args, &file.path, &recipe.name, &recipe.data.task) {
                continue;
            }
            for seed in 1..=args.seeds.get() {
                jobs.push(job(args, &file.path, recipe.clone(), several, seed));
            }
        }
    }
    for PointerFile { path, recipe } in PointerFile::below(&args.recipes)? {
        if fits(args, &path, &recipe.name, recipe.data.task.name()) {
            let seeds = 1..=args.seeds.get();
            jobs.extend(seeds.map(|seed| pointer_job(args, &path, recipe.clone(), seed)));
        }
    }
    Ok(jobs)
}

fn fits(args: &AlgorithmsBenchArgs, path: &Path, name: &str, task: &str) -> bool {
    let text = format!("{} {name}", path.display());
    (args.filter.is_empty() || args.filter.iter().any(|f| text.contains(f.as_str())))
        && (args.tasks.is_empty() || args.tasks.iter().any(|t| t == task))
}

fn job(
    args: &AlgorithmsBenchArgs,
    path: &Path,
    recipe: AlgorithmRecipe,
    several: bool,
    seed: usize,
) -> Job {
    let mut arguments = vec![path.display().to_string()];
    if several {
        arguments.extend(["--task".to_string(), recipe.data.task.clone()]);
    }
    arguments.extend(["--set".to_string(), format!("train.seed={seed}")]);
    let name = format!("{}-seed{seed}", recipe.name);
    let run = args.runs.join(&name);
    let description = recipe.description.clone();
    let path = path.to_path_buf();
    let collect = Box::new(move |run: &Path| collect(&path, &recipe, run));
    Job { name, description, arguments, run, collect }
}

fn pointer_job(args: &AlgorithmsBenchArgs, path: &Path, recipe: PointerRecipe, seed: usize) -> Job {
    let seeded = ["--set".to_string(), format!("train.seed={seed}")];
    let arguments = std::iter::once(path.display().to_string()).chain(seeded).collect();
    let name = format!("{}-seed{seed}", recipe.name);
    let (run, description) = (args.runs.join(&name), recipe.description.clone());
    let path = path.to_path_buf();
    let collect = Box::new(move |run: &Path| collect_pointer(&path, &recipe, run));
    Job { name, description, arguments, run, collect }
}

/// Adds the rows of a pointer network's run to the results beside its recipe.
fn collect_pointer(path: &Path, recipe: &PointerRecipe, run: &Path) -> Result<String> {
    let result: PointerResult = jobs::result(run)?;
    let rows = PointerRow::of(recipe, path, &result);
    update_csv(&path.parent().unwrap_or(Path::new(".")).join("results.csv"), &rows)?;
    let tests = result.tests.iter();
    let tests: Vec<String> =
        tests.map(|t| format!("{} points, {}: {}", t.points, t.search, t.said())).collect();
    Ok(format!("{}, {:.0} s", tests.join("; "), result.seconds))
}

/// Adds the rows of a run to the results beside its recipe.
fn collect(path: &Path, recipe: &AlgorithmRecipe, run: &Path) -> Result<String> {
    let result: AlgorithmResult = jobs::result(run)?;
    let rows = AlgorithmRow::of(recipe, path, &result);
    update_csv(&path.parent().unwrap_or(Path::new(".")).join("results.csv"), &rows)?;
    let end = if result.converged { "converged" } else { "not converged" };
    let tests: Vec<String> = result
        .tests
        .iter()
        .map(|t| {
            let how = if t.rounding == Some(true) { ", rounded" } else { "" };
            format!("{}{how}: {:.1} % wrong", shown(&t.sizes), t.error_percent)
        })
        .collect();
    Ok(format!("{end}, {}, {:.0} s", tests.join(", "), result.seconds))
}

/// Prints the tables of all results and writes them into `algorithms.md`.
fn write_tables(folder: &Path) -> Result<()> {
    let page = algorithm_page(folder)?;
    mnemic_tasks::write_text(&folder.join("algorithms.md"), &page)?;
    output::print(&page)
}
