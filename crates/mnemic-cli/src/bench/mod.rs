//! `mnemic bench`: many recipes carried out, their results kept as tables.

mod generalise;
mod jobs;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::Recipe;
use mnemic_tasks::babi::{RecipeFile, table};
use mnemic_tasks::data::babi::Edition;
use mnemic_tasks::engine::Interrupt;

use crate::args::{BabiBenchArgs, BenchCommand, Size};
use crate::output;
use jobs::{Job, Runner};

pub(crate) fn bench(command: &BenchCommand) -> Result<ExitCode> {
    match command {
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
        let lines: Vec<String> = jobs.iter().map(Job::line).collect();
        output::print(&lines.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cores = std::thread::available_parallelism()?.get();
    let at_once = args.jobs.map_or(cores, usize::from).min(jobs.len());
    let runner = Runner {
        data: args.data.clone(),
        device: args.device,
        threads: (cores / at_once).max(1),
        all: jobs.len(),
        at_once,
        interrupt: Interrupt::on_signals()?,
    };
    let failed = runner.run(jobs);
    write_tables(&args.recipes)?;
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
                let run = args.runs.join(&recipe.name);
                jobs.push(Job { path: file.path.clone(), recipe, run });
            }
        }
    }
    Ok(jobs)
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
