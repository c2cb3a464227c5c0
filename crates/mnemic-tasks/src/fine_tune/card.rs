//! The model card of a fine-tuned model.

use std::fmt::Write;

use super::recipe::{FineTuneRecipe, Head};
use super::run::FineTuneResult;

/// A model card in Hugging Face's form: what was trained on what, how, and how well.
pub(super) fn card(recipe: &FineTuneRecipe, result: &FineTuneResult) -> String {
    let mut out = String::new();
    let p = &result.provenance;
    let set = recipe.data.dataset;
    let task = match recipe.model.head {
        Head::SequenceClassification => "text-classification",
        Head::TokenClassification => "token-classification",
    };
    // A path of this machine says nothing elsewhere; an id of the hub does.
    let from = match std::path::Path::new(&recipe.model.from) {
        path if path.is_absolute() => path.file_name().unwrap_or_default().to_string_lossy(),
        _ => recipe.model.from.as_str().into(),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "---\nlibrary_name: mnemic\npipeline_tag: {task}\ntags: [{}, {}]\n---\n\n# {}\n\n{}\n\n\
         - Start: `{from}` with a new head (`{}`), {} parameters; labels {}\n\
         - Data: `{}`, official parts, at most {} tokens a text\n\
         - Seed {}; {} epoch(s), weights of epoch {} (best validation; its loss {:.4}); {:.0} s, {} CPU minutes\n\
         - Machine: {}; commit {}; {}\n- Command: `{}`\n\n",
        set.name(),
        recipe.model.head.name(),
        recipe.name,
        recipe.description,
        recipe.model.head.name(),
        result.parameters,
        set.labels().join(", "),
        set.name(),
        recipe.data.max_length,
        result.seed,
        result.epochs,
        result.best_epoch.map_or_else(|| "–".into(), |epoch| epoch.to_string()),
        result.validation.loss,
        result.seconds,
        result.cpu_seconds.map_or_else(|| "unknown".into(), |s| format!("{:.1}", s / 60.)),
        p.hardware(),
        if p.commit.is_empty() { "unknown" } else { &p.commit },
        p.date,
        p.command,
    );
    let Some(test) = &result.test else { return out };
    let _ = writeln!(
        out,
        "| metric | test % | validation % | reference % |\n| --- | --- | --- | --- |"
    );
    for &name in recipe.model.head.metrics() {
        let shown = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.1}"));
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} |",
            shown(test.percent.get(name).copied()),
            shown(result.validation.get(name).map(|value| 100. * value)),
            shown(test.reference.get(name).copied()),
        );
    }
    let _ = writeln!(
        out,
        "\nThe test ({} texts) was made once, with the weights that were kept.",
        test.texts
    );
    out
}
