//! The model card of a run.

use std::fmt::Write;

use mnemic_models::ModelConfig;

use super::run::RunResult;
use crate::recipe::{Recipe, Source};

/// A model card in Hugging Face's form: what was trained on what, how, and how well.
pub(super) fn card(recipe: &Recipe, config: &ModelConfig, result: &RunResult) -> String {
    let mut out = String::new();
    let p = &result.provenance;
    let architecture = config.architecture();
    let tasks: Vec<String> = recipe.data.tasks.iter().map(|t| t.number().to_string()).collect();
    let data = match (recipe.data.source, recipe.data.edition) {
        (Source::Official, Some(edition)) => {
            format!("bAbI v1.2 `{}`, official files", edition.name())
        }
        (_, Some(edition)) if recipe.data.official_test => {
            format!(
                "bAbI, generated (seed {}); test: official `{}`",
                recipe.data.seed,
                edition.name()
            )
        }
        _ => format!("bAbI, generated (seed {})", recipe.data.seed),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "---\nlicense: mit\nlibrary_name: mnemic\npipeline_tag: question-answering\ntags: [babi, {architecture}]\n---\n\n\
         # {}\n\n{}\n\n\
         - Architecture: `{architecture}`, {} parameters\n\
         - Data: {data}, task {}\n\
         - Seed {} of {} restart(s), chosen by validation loss; trained {:.0} s ({} epochs)\n\
         - Machine: {}; commit {}; {}\n\
         - Command: `{}`\n\n",
        recipe.name,
        recipe.description,
        result.parameters,
        tasks.join(", "),
        result.seed,
        result.epochs.len(),
        result.seconds,
        result.epochs.get(&result.seed).unwrap_or(&0),
        p.machine,
        if p.commit.is_empty() { "unknown" } else { &p.commit },
        p.date,
        p.command,
    );
    if result.tests.is_empty() {
        out.push_str("The run was stopped before its end; nothing was tested.\n");
        return out;
    }
    out.push_str("| task | test questions | error % | paper % |\n| --- | --- | --- | --- |\n");
    for t in &result.tests {
        let paper = t.paper_percent.map_or_else(|| "–".to_string(), |p| format!("{p}"));
        let _ =
            writeln!(out, "| {} | {} | {:.1} | {paper} |", t.task, t.questions, t.error_percent);
    }
    out
}
