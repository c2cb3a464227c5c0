//! `mnemic train` of a recipe of algorithmic tasks.

use std::path::PathBuf;

use anyhow::{Result, bail};
use mnemic_tasks::algorithms::{AlgorithmRecipe, AlgorithmResult, train_algorithm};
use mnemic_tasks::babi::RunOptions;
use mnemic_tasks::engine::{Interrupt, Observer, ProgressBar};

use crate::args::TrainArgs;
use crate::output;
use crate::train::command_line;

/// Trains, prints, and says whether a signal stopped the run.
pub(crate) fn train(args: &TrainArgs) -> Result<bool> {
    if args.task.is_some() {
        bail!("--task: {} has one task, data.task", args.recipe.display());
    }
    let recipe = AlgorithmRecipe::read(&args.recipe, args.task.as_deref(), &args.set)?;
    let run_dir = args.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    let options = RunOptions {
        run_dir: run_dir.clone(),
        data: None,
        interrupt: Interrupt::on_signals()?,
        command: command_line(),
        place: args.device,
    };
    let mut bar = ProgressBar::new();
    let mut silent = ();
    let observer: &mut (dyn Observer + Send) = if args.quiet { &mut silent } else { &mut bar };
    let result = train_algorithm(&recipe, &options, observer)?;
    if args.json {
        output::json(&result)?;
    } else if result.interrupted {
        eprintln!("stopped; everything is saved in {}", run_dir.display());
        eprintln!("the same command goes on from here");
    } else {
        output::print(&table(&recipe, &result))?;
        let end = if result.converged { "converged" } else { "not converged" };
        eprintln!("{end} after {} sequences; {:.0} s in all", result.sequences, result.seconds);
        eprintln!("the model is in {}", run_dir.join("model").display());
    }
    Ok(result.interrupted)
}

fn table(recipe: &AlgorithmRecipe, result: &AlgorithmResult) -> String {
    let heading = ["sizes", "sequences", "bits/sequence", "wrong a seq.", "wrong seqs %", "fine %"];
    let [a, b, c, d, e, f] = heading;
    let mut out = format!("{}\n{a:<14} {b:>9} {c:>14} {d:>12} {e:>12} {f:>7}\n", recipe.data.task);
    for test in &result.tests {
        let sizes: Vec<String> = test.sizes.iter().map(ToString::to_string).collect();
        let sizes = if sizes.is_empty() { "as trained".into() } else { sizes.join(" × ") };
        out.push_str(&format!(
            "{sizes:<14} {:>9} {:>14.4} {:>12.4} {:>12.1} {:>7.1}\n",
            test.sequences, test.bits, test.wrong_bits, test.error_percent, test.fine_percent
        ));
    }
    out
}
