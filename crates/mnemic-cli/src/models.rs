//! `mnemic models`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use mnemic_tasks::models::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::args::ModelsArgs;
use crate::output;

/// A row of the index.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    year: u16,
    name: String,
    family: String,
    #[serde(default)]
    paper: String,
    status: String,
    #[serde(default)]
    recipes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Index {
    architecture: Vec<Row>,
}

pub(crate) fn models(args: &ModelsArgs) -> Result<ExitCode> {
    let rows = match args.index.clone().or_else(find_index) {
        Some(path) => read(&path)?,
        None => vec![],
    };
    if args.json {
        let presets: Vec<_> = ModelConfig::architectures()
            .iter()
            .map(|a| serde_json::json!({"architecture": a, "presets": ModelConfig::presets(a).unwrap_or_default()}))
            .collect();
        output::json(&serde_json::json!({"index": rows, "presets": presets}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    if !rows.is_empty() {
        out.push_str(&format!(
            "{:<5} {:<34} {:<12} {:<14} {}\n",
            "year", "name", "status", "arXiv", "family"
        ));
        for r in &rows {
            let line = format!(
                "{:<5} {:<34} {:<12} {:<14} {}\n",
                r.year, r.name, r.status, r.paper, r.family
            );
            out.push_str(&line);
        }
        out.push('\n');
    }
    out.push_str("presets for recipes (model.architecture, model.preset):\n");
    for a in ModelConfig::architectures() {
        let presets = ModelConfig::presets(a).unwrap_or_default();
        out.push_str(&format!("  {a:<10} {}\n", presets.join(", ")));
    }
    output::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn find_index() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|p| p.join("models/index.toml")).find(|p| p.exists())
}

fn read(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let index: Index = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(index.architecture)
}
