//! `mnemic demo`: the main job from end to end, without a download.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::babi::{self, BabiData, BabiModel, RunOptions};
use mnemic_tasks::engine::{Interrupt, ProgressBar};
use mnemic_tasks::{Place, Recipe};

use crate::args::DemoArgs;
use crate::inspect::attention_page;
use crate::output;
use crate::train::command_line;

const RECIPE: &str = include_str!("demo.toml");

/// Test examples on the page, and how many of them are drawn in the terminal.
const PAGE: usize = 8;
const DRAWN: usize = 3;

pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode> {
    let mut set = vec![
        format!("data.tasks=[{}]", args.task.number()),
        format!("data.seed={}", args.seed),
        format!("train.seed={}", args.seed),
    ];
    set.extend(args.set.iter().cloned());
    let recipe = Recipe::parse(RECIPE, "the demo's recipe", &set)?;
    clear(&args.run, &recipe.name)?;
    eprintln!(
        "bAbI task {} ({}): generating {} questions to learn from and {} to test, seed {}",
        args.task.number(),
        args.task.title(),
        recipe.data.train_questions,
        recipe.data.test_questions,
        args.seed
    );
    let options = RunOptions {
        run_dir: args.run.clone(),
        data: None,
        interrupt: Interrupt::on_signals()?,
        command: command_line(),
        place: Place::Cpu,
    };
    let result = babi::train(&recipe, &options, &mut ProgressBar::new())?;
    if result.interrupted {
        eprintln!("stopped");
        return Ok(ExitCode::from(130));
    }
    for t in &result.tests {
        eprintln!(
            "test: {:.1} % wrong of {} questions about stories never seen in training; trained in {:.0} s\n",
            t.error_percent, t.questions, result.seconds
        );
    }
    let model = BabiModel::open(&args.run)?;
    let data = BabiData::load_with(&recipe.data, None, Some(&model.vocabulary))?;
    let mut traces = Vec::new();
    // One question a story, the longest context of each.
    let last_of_story = data.test_examples.chunk_by(|a, b| a.story == b.story);
    for example in last_of_story.filter_map(<[_]>::last).take(PAGE) {
        let mut trace = model.ask(example, 4)?;
        trace.title = format!("Example {}", traces.len() + 1);
        if traces.len() < DRAWN {
            output::draw(&trace, false)?;
            output::print("")?;
        }
        traces.push(trace);
    }
    let html = args.run.join("attention.html");
    let curve = babi::learning_curve(&args.run)?;
    output::write_page(&html, &attention_page(&model, &result.tests, &traces, Some(&curve))?)?;
    eprintln!("ask it yourself: mnemic ask {}", args.run.display());
    Ok(ExitCode::SUCCESS)
}

/// Removes an earlier demo from the run's folder, and nothing else.
fn clear(run: &Path, name: &str) -> Result<()> {
    if !run.exists() {
        return Ok(());
    }
    let recipe = run.join("recipe.toml");
    let empty = std::fs::read_dir(run)?.next().is_none();
    let ours = recipe.exists() && Recipe::read(&recipe, &[])?.name == name;
    if !empty && !ours {
        bail!(
            "{} holds something other than a demo; choose another folder with --run",
            run.display()
        );
    }
    Ok(std::fs::remove_dir_all(run)?)
}
