//! `mnemic bench algorithms`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::algorithms::{
    AlgorithmFile, AlgorithmRecipe, AlgorithmResult, AlgorithmRow, algorithm_page, shown,
};
use mnemic_tasks::babi::update_csv;

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
            let text = format!("{} {}", file.path.display(), recipe.name);
            let fits = |texts: &[String]| texts.iter().any(|f| text.contains(f.as_str()));
            if !(args.filter.is_empty() || fits(&args.filter))
                || !(args.tasks.is_empty() || args.tasks.contains(&recipe.data.task))
            {
                continue;
            }
            for seed in 1..=args.seeds.get() {
                jobs.push(job(args, &file.path, recipe.clone(), several, seed));
            }
        }
    }
    Ok(jobs)
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
