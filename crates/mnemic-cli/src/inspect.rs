//! `mnemic inspect`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::babi::{BabiData, BabiModel, TestResult};
use mnemic_tasks::pictures::{Facts, QaTrace, Section, page};

use crate::args::InspectArgs;
use crate::output;

/// Test examples looked at in search of `--examples` that fit.
const SEARCH: usize = 5_000;

pub(crate) fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let model = BabiModel::open(&args.run)?;
    let data =
        BabiData::load_with(&model.recipe.data, args.data.as_deref(), Some(&model.vocabulary))?;
    let mut traces = Vec::new();
    let chosen = data.test_examples.iter().enumerate().skip(args.from).take(SEARCH);
    for (i, example) in chosen {
        if traces.len() == args.examples {
            break;
        }
        if args.task.is_some() && args.task != example.task {
            continue;
        }
        let mut trace = model.ask(example, 5)?;
        if args.wrong && trace.correct() != Some(false) {
            continue;
        }
        trace.title = format!("Test example {i}");
        traces.push(trace);
    }
    if traces.is_empty() {
        bail!("no test example from {} on fits", args.from);
    }
    let tests = model.test(args.data.as_deref())?;
    let html = attention_page(&model, &tests, &traces)?;
    output::write_page(&args.html, &html)?;
    Ok(ExitCode::SUCCESS)
}

/// The page of a trained model: facts, then the examples.
pub(crate) fn attention_page(
    model: &BabiModel,
    tests: &[TestResult],
    traces: &[QaTrace],
) -> Result<String> {
    let recipe = &model.recipe;
    let mut rows = vec![
        ("model".to_string(), model.config.architecture().to_string()),
        ("recipe".to_string(), recipe.name.clone()),
    ];
    for t in tests {
        let error = format!("{:.1} % of {} questions", t.error_percent, t.questions);
        rows.push((format!("test error, task {}", t.task), error));
    }
    rows.push(("seed".to_string(), recipe.train.seed.to_string()));
    let facts = Section::from(Facts { title: "The run".to_string(), rows });
    let title = format!("What {} attended to", recipe.name);
    Ok(page(&title, &recipe.description, traces, &[facts])?)
}
