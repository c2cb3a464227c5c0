//! `mnemic inspect`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::babi::{BabiData, BabiModel, Confusion, TestResult, confusions, learning_curve};
use mnemic_tasks::pictures::{Curve, Facts, QaTrace, Section, curve_svg, page, svg};

use crate::args::InspectArgs;
use crate::{algorithms, output, pointer, text};

/// Test examples looked at in search of `--examples` that fit.
const SEARCH: usize = 5_000;

pub(crate) fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    if let Some(chosen) = &args.text {
        return text::attention(args, chosen);
    }
    if algorithms::is_model(&args.run) {
        return algorithms::inspect(args);
    }
    if pointer::is_model(&args.run) {
        return pointer::inspect(args);
    }
    let model = BabiModel::open_on(&args.run, args.device)?;
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
    // A model's folder alone has no learning curve.
    let curve = learning_curve(&args.run).ok();
    if let Some(path) = &args.html {
        let tests = model.test(args.data.as_deref())?;
        let html = attention_page(&model, &tests, &traces, curve.as_ref())?;
        output::write_page(path, &html)?;
    }
    if let Some(folder) = &args.card {
        card(folder, &traces, curve.as_ref())?;
        output::print(&wrong(&confusions(&model, &data)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pictures for a model card.
fn card(folder: &Path, traces: &[QaTrace], curve: Option<&Curve>) -> Result<()> {
    if let Some(picture) = curve.and_then(curve_svg) {
        output::write_page(&folder.join("learning-curve.svg"), &picture)?;
    }
    for (i, trace) in traces.iter().enumerate() {
        output::write_page(&folder.join(format!("example-{}.svg", i + 1)), &svg(trace)?)?;
    }
    Ok(())
}

/// Wrong answers as a table in Markdown.
fn wrong(confusions: &[Confusion]) -> String {
    if confusions.is_empty() {
        return "No test question is answered wrongly.".to_string();
    }
    let mut out = String::from(
        "| task | expected | said | times | first example |\n| --- | --- | --- | ---: | ---: |\n",
    );
    for c in confusions {
        let (task, count, first) = (c.task, c.count, c.first);
        out.push_str(&format!("| {task} | {} | {} | {count} | {first} |\n", c.expected, c.said));
    }
    out
}

/// The page of a trained model: facts, then the examples.
pub(crate) fn attention_page(
    model: &BabiModel,
    tests: &[TestResult],
    traces: &[QaTrace],
    curve: Option<&Curve>,
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
    let curve = curve.cloned().map(Section::from);
    let sections: Vec<Section> = std::iter::once(facts).chain(curve).collect();
    Ok(page(&title, &recipe.description, traces, &sections)?)
}
