//! `mnemic train` and `mnemic inspect` of algorithmic tasks.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::algorithms::{
    AlgorithmModel, AlgorithmRecipe, AlgorithmResult, is_algorithm, shown, train_algorithm,
};
use mnemic_tasks::babi::learning_curve;
use mnemic_tasks::pictures::{Section, page};

use crate::args::{InspectArgs, TrainArgs};
use crate::output;
use crate::train::{observer, run_options, said};

/// Trains, prints, and says whether a signal stopped the run.
pub(crate) fn train(args: &TrainArgs) -> Result<bool> {
    let recipe = AlgorithmRecipe::read(&args.recipe, args.task.as_deref(), &args.set)?;
    let options = run_options(args, &recipe.name)?;
    let result = train_algorithm(&recipe, &options, observer(args).as_mut())?;
    let run_dir = &options.run_dir;
    if !said(args, &result, result.interrupted, run_dir)? {
        output::print(&table(&recipe, &result))?;
        let end = if result.converged { "converged" } else { "not converged" };
        eprintln!("{end} after {} sequences; {:.0} s in all", result.sequences, result.seconds);
        eprintln!("the model is in {}", run_dir.join("model").display());
    }
    Ok(result.interrupted)
}

/// Writes a page of a trained model at work on test sequences of these sizes.
pub(crate) fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let Some(path) = &args.html else { bail!("{}: expected --html", args.run.display()) };
    let model = AlgorithmModel::open(&args.run, args.device)?;
    let mut sections = vec![Section::from(model.facts())];
    // A model's folder alone has no learning curve.
    sections.extend(learning_curve(&args.run).ok().map(Section::from));
    sections.extend(model.watch(&args.sizes, args.from)?);
    let title = format!("{} at work", model.recipe.name);
    let html = page(&title, &model.recipe.description, &[], &sections)?;
    output::write_page(path, &html)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the folder is that of an algorithmic run or model.
pub(crate) fn is_model(folder: &Path) -> bool {
    let recipe = |folder: &Path| is_algorithm(&folder.join("recipe.toml"));
    recipe(folder).or_else(|_| recipe(&folder.join("model"))).unwrap_or(false)
}

fn table(recipe: &AlgorithmRecipe, result: &AlgorithmResult) -> String {
    let heading = ["sizes", "sequences", "bits/sequence", "wrong a seq.", "wrong seqs %", "fine %"];
    let [a, b, c, d, e, f] = heading;
    let mut out = format!("{}\n{a:<16} {b:>9} {c:>14} {d:>12} {e:>12} {f:>7}\n", recipe.data.task);
    for test in &result.tests {
        let sizes = shown(&test.sizes);
        let mut sizes = if sizes.is_empty() { "as trained".into() } else { sizes };
        if test.rounding == Some(true) {
            sizes.push_str(", rounded");
        }
        out.push_str(&format!(
            "{sizes:<16} {:>9} {:>14.4} {:>12.4} {:>12.1} {:>7.1}",
            test.sequences, test.bits, test.wrong_bits, test.error_percent, test.fine_percent
        ));
        if let Some(solved) = test.solved_percent {
            out.push_str(&format!("  {solved:.1} % of sizes solved"));
        }
        out.push('\n');
    }
    out
}
