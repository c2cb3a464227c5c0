//! `mnemic bench`: recipes carried out one after the other, their results kept as tables.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use mnemic_tasks::Recipe;
use mnemic_tasks::babi::{self, ResultRow, RunOptions, update_csv};
use mnemic_tasks::engine::{Interrupt, ProgressBar};

use crate::args::{BabiBenchArgs, BenchCommand};
use crate::output;
use crate::train::command_line;

pub(crate) fn bench(command: &BenchCommand) -> Result<ExitCode> {
    match command {
        BenchCommand::Babi(args) => babi_table(args),
    }
}

/// Trains every recipe that fits, skipping what is done, and writes `results.csv` beside the recipes.
fn babi_table(args: &BabiBenchArgs) -> Result<ExitCode> {
    let recipes = recipes(args)?;
    if recipes.is_empty() {
        bail!("{}: no recipe fits", args.recipes.display());
    }
    let interrupt = Interrupt::on_signals()?;
    let mut tests = Vec::new();
    for (i, path) in recipes.iter().enumerate() {
        let recipe = Recipe::read(path, &[])?;
        eprintln!("[{}/{}] {}: {}", i + 1, recipes.len(), path.display(), recipe.description);
        let run_dir = args.runs.join(&recipe.name);
        let options = RunOptions {
            run_dir,
            data: args.data.clone(),
            interrupt: interrupt.clone(),
            command: command_line(),
        };
        let result = babi::train(&recipe, &options, &mut ProgressBar::new())
            .with_context(|| path.display().to_string())?;
        if result.interrupted {
            eprintln!("stopped; the same command goes on from here");
            return Ok(ExitCode::from(130));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        update_csv(&folder.join("results.csv"), &ResultRow::of(&recipe, path, &result)?)?;
        eprint!("{}", output::tests_table(&result.tests));
        tests.extend(result.tests.into_iter().map(|t| (recipe.name.clone(), t)));
    }
    let mut out = format!("{:<34} {:>4} {:>8} {:>8}\n", "recipe", "task", "error %", "paper %");
    for (name, t) in &tests {
        let paper = t.paper_percent.map_or_else(|| "-".to_string(), |p| format!("{p:.1}"));
        out.push_str(&format!("{name:<34} {:>4} {:>8.1} {paper:>8}\n", t.task, t.error_percent));
    }
    output::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// The bAbI recipes below the folder that fit the choice, by name.
fn recipes(args: &BabiBenchArgs) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![args.recipes.clone()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml") && !path.ends_with("index.toml")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    let mut fit = Vec::new();
    for path in found {
        // A trained model's folder holds a copy of its recipe.
        if path.ends_with("recipe.toml") {
            continue;
        }
        let recipe = Recipe::read(&path, &[])?;
        let text = path.display().to_string();
        let task =
            args.tasks.is_empty() || recipe.data.tasks.iter().any(|t| args.tasks.contains(t));
        if task && (args.filter.is_empty() || args.filter.iter().any(|f| text.contains(f))) {
            fit.push(path);
        }
    }
    Ok(fit)
}
