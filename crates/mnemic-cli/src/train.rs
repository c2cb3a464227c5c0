//! `mnemic train` and `mnemic eval`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use mnemic_tasks::Recipe;
use mnemic_tasks::algorithms::is_algorithm;
use mnemic_tasks::babi::{self, BabiModel, RunOptions};
use mnemic_tasks::engine::{Interrupt, Observer, ProgressBar};
use mnemic_tasks::fine_tune::is_fine_tune;
use mnemic_tasks::pointer::is_pointer;

use crate::args::{EvalArgs, TrainArgs};
use crate::{algorithms, fine_tune, output, pointer};

/// The exit code of a run that a signal stopped: that of Ctrl-C in a shell.
const INTERRUPTED: u8 = 130;

/// The command line as typed, for model cards.
pub(crate) fn command_line() -> String {
    let mut words = std::env::args();
    let program = words.next().map(PathBuf::from);
    let name = program.as_ref().and_then(|p| p.file_name()).and_then(|n| n.to_str());
    let rest = words.map(|w| if w.contains(' ') { format!("'{w}'") } else { w });
    std::iter::once(name.unwrap_or("mnemic").to_string()).chain(rest).collect::<Vec<_>>().join(" ")
}

/// What a run needs beside its recipe, of which this is the name.
pub(crate) fn run_options(args: &TrainArgs, name: &str) -> Result<RunOptions> {
    Ok(RunOptions {
        run_dir: args.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(name)),
        data: args.data.clone(),
        interrupt: Interrupt::on_signals()?,
        command: command_line(),
        place: args.device,
    })
}

/// A progress bar, or nobody where the run is to be quiet.
pub(crate) fn observer(args: &TrainArgs) -> Box<dyn Observer + Send> {
    if args.quiet { Box::new(()) } else { Box::new(ProgressBar::new()) }
}

/// Prints a result as JSON, or that the run was stopped; `false` where it is still to be printed as a table.
pub(crate) fn said(
    args: &TrainArgs,
    result: &impl serde::Serialize,
    interrupted: bool,
    run_dir: &Path,
) -> Result<bool> {
    if args.json {
        output::json(result)?;
    } else if interrupted {
        eprintln!("stopped; everything is saved in {}", run_dir.display());
        eprintln!("the same command goes on from here");
    }
    Ok(args.json || interrupted)
}

pub(crate) fn train(args: &TrainArgs) -> Result<ExitCode> {
    if is_fine_tune(&args.recipe)? {
        return Ok(exit_code(fine_tune::train(args)?));
    }
    if is_algorithm(&args.recipe)? {
        return Ok(exit_code(algorithms::train(args)?));
    }
    if is_pointer(&args.recipe)? {
        return Ok(exit_code(pointer::train(args)?));
    }
    let task = args.task.as_deref().map(str::parse).transpose()?;
    let recipe = Recipe::read_task(&args.recipe, task, &args.set)?;
    let options = run_options(args, &recipe.name)?;
    let result = babi::train(&recipe, &options, observer(args).as_mut())?;
    let run_dir = &options.run_dir;
    if !said(args, &result, result.interrupted, run_dir)? {
        output::print(&output::tests_table(&result.tests))?;
        eprintln!(
            "seed {} of {:?} had the lowest validation loss; {:.0} s in all",
            result.seed,
            result.epochs.keys().collect::<Vec<_>>(),
            result.seconds
        );
        eprintln!(
            "the model is in {}; try: mnemic ask {}",
            run_dir.join("model").display(),
            run_dir.display()
        );
    }
    Ok(exit_code(result.interrupted))
}

fn exit_code(interrupted: bool) -> ExitCode {
    if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
}

pub(crate) fn eval(args: &EvalArgs) -> Result<ExitCode> {
    let model = BabiModel::open_on(&args.run, args.device)?;
    let tests = model.test(args.data.as_deref())?;
    if args.json {
        output::json(&tests)?
    } else {
        output::print(&output::tests_table(&tests))?
    }
    Ok(ExitCode::SUCCESS)
}
