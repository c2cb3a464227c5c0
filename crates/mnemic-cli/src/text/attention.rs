//! `mnemic inspect MODEL --text TEXT`: attention of a published model.

use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::pictures::{Facts, Section, page, terminal_heat_map};
use mnemic_tasks::text;

use crate::args::InspectArgs;
use crate::output;

pub(crate) fn attention(args: &InspectArgs, text: &str) -> Result<ExitCode> {
    if text.trim().is_empty() {
        bail!("--text: expected a text, got an empty one");
    }
    let found = text::attention(&args.run, text, args.device)?;
    let Some(path) = &args.html else {
        let options = output::terminal_options(true);
        let mut out = String::new();
        for map in &found.maps {
            for mean in map.means()? {
                out.push_str(&terminal_heat_map(&mean, &options)?);
                out.push('\n');
            }
        }
        output::print(out.trim_end_matches('\n'))?;
        return Ok(ExitCode::SUCCESS);
    };
    let rows = vec![
        ("architecture".to_string(), found.architecture.clone()),
        ("tokens".to_string(), found.tokens.len().to_string()),
    ];
    let facts = Section::from(Facts { title: "The model".to_string(), rows });
    let maps = found.maps.iter().cloned().map(Section::from);
    let sections: Vec<Section> = std::iter::once(facts).chain(maps).collect();
    let title = format!("Attention of {}", args.run.display());
    let html = page(&title, text, &[], &sections)?;
    output::write_page(path, &html)?;
    Ok(ExitCode::SUCCESS)
}
