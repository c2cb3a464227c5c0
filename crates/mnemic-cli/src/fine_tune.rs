//! `mnemic train` of a recipe for fine-tuning.

use std::path::PathBuf;

use anyhow::{Result, bail};
use mnemic_tasks::babi::RunOptions;
use mnemic_tasks::engine::{Interrupt, Observer, ProgressBar};
use mnemic_tasks::fine_tune::{FineTuneRecipe, FineTuneResult, fine_tune};

use crate::args::TrainArgs;
use crate::output;
use crate::train::command_line;

/// Trains, prints, and says whether a signal stopped the run.
pub(crate) fn train(args: &TrainArgs) -> Result<bool> {
    if args.task.is_some() {
        bail!("--task: {} is a recipe for fine-tuning, which has no tasks", args.recipe.display());
    }
    let recipe = FineTuneRecipe::read(&args.recipe, &args.set)?;
    let run_dir = args.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    let options = RunOptions {
        run_dir: run_dir.clone(),
        data: args.data.clone(),
        interrupt: Interrupt::on_signals()?,
        command: command_line(),
        place: args.device,
    };
    let mut bar = ProgressBar::new();
    let mut silent = ();
    let observer: &mut (dyn Observer + Send) = if args.quiet { &mut silent } else { &mut bar };
    let result = fine_tune(&recipe, &options, observer)?;
    if args.json {
        output::json(&result)?;
    } else if result.interrupted {
        eprintln!("stopped; everything is saved in {}", run_dir.display());
        eprintln!("the same command goes on from here");
    } else {
        output::print(&table(&result))?;
        eprintln!(
            "the weights of epoch {} had the best validation; {:.0} s in all",
            result.best_epoch.unwrap_or(0),
            result.seconds
        );
        eprintln!("the model is in {}", run_dir.join("model").display());
    }
    Ok(result.interrupted)
}

/// The metrics of test and validation, beside the published figures.
fn table(result: &FineTuneResult) -> String {
    let mut out =
        format!("{:<10} {:>8} {:>13} {:>12}\n", "metric", "test %", "validation %", "reference %");
    for (name, percent) in result.test.iter().flat_map(|test| &test.percent) {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
        let validation = shown(result.validation.get(name).map(|value| 100. * value));
        let reference = result.test.as_ref().and_then(|test| test.reference.get(name).copied());
        let reference = shown(reference);
        out.push_str(&format!("{name:<10} {percent:>8.1} {validation:>13} {reference:>12}\n"));
    }
    out
}
