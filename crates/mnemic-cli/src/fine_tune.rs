//! `mnemic train` of a recipe for fine-tuning.

use anyhow::{Result, bail};
use mnemic_tasks::fine_tune::{FineTuneRecipe, FineTuneResult, fine_tune};

use crate::args::TrainArgs;
use crate::output;
use crate::train::{observer, run_options, said};

/// Trains, prints, and says whether a signal stopped the run.
pub(crate) fn train(args: &TrainArgs) -> Result<bool> {
    if args.task.is_some() {
        bail!("--task: {} is a recipe for fine-tuning, which has no tasks", args.recipe.display());
    }
    let recipe = FineTuneRecipe::read(&args.recipe, &args.set)?;
    let options = run_options(args, &recipe.name)?;
    let result = fine_tune(&recipe, &options, observer(args).as_mut())?;
    let run_dir = &options.run_dir;
    if !said(args, &result, result.interrupted, run_dir)? {
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
