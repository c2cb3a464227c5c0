//! `mnemic data`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use mnemic_tasks::data::babi::generate::{GeneratorConfig, generate};
use mnemic_tasks::data::babi::{BabiSource, Edition, Split, Stats, StatsTable, Story, Task};
use mnemic_tasks::recipe::data_path;

use crate::args::DataCommand;
use crate::output;

pub(crate) fn data(command: &DataCommand) -> Result<ExitCode> {
    match command {
        DataCommand::List { data, json } => list(data.as_deref(), *json)?,
        DataCommand::Show { task, edition, split, stories, data } => {
            let source = open(data.as_deref())?;
            let all = source.stories(*edition, *task, *split)?;
            output::print(&text(&all[..all.len().min(*stories)]))?;
        }
        DataCommand::Generate { task, questions, seed, scale, out } => {
            let mut config = GeneratorConfig::new(*task, *questions, *seed);
            config.story_scale = *scale;
            let text = text(&generate(&config)?);
            match out {
                Some(path) => mnemic_tasks::write_text(path, &text)?,
                None => output::print(&text)?,
            }
        }
        DataCommand::Stats { task, edition, split, questions, seed, data, json } => {
            let tasks: Vec<Task> = task.map_or_else(|| Task::all().collect(), |t| vec![t]);
            let table = match edition {
                Some(edition) => official(data.as_deref(), *edition, *split, &tasks)?,
                None => generated(&tasks, *questions, *seed)?,
            };
            if *json { output::json(&table)? } else { output::print(&table.to_string())? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(data: Option<&Path>) -> Result<BabiSource> {
    Ok(BabiSource::open(data_path(data, "babi")?)?)
}

fn text(stories: &[Story]) -> String {
    stories.iter().map(Story::to_string).collect()
}

#[derive(serde::Serialize)]
struct Listed {
    task: u8,
    name: &'static str,
    title: &'static str,
    /// Official editions with a training file.
    editions: Vec<&'static str>,
}

fn list(data: Option<&Path>, json: bool) -> Result<()> {
    // Without official files the tasks can still be generated.
    let source = match (data, open(data)) {
        (_, Ok(source)) => Some(source),
        (Some(_), Err(e)) => return Err(e),
        (None, Err(_)) => None,
    };
    let editions = |task: Task| match &source {
        None => vec![],
        Some(s) => Edition::ALL
            .into_iter()
            .filter(|&e| s.has(e, task, Split::Train))
            .map(Edition::name)
            .collect(),
    };
    let rows: Vec<Listed> = Task::all()
        .map(|t| Listed {
            task: t.number(),
            name: t.slug(),
            title: t.title(),
            editions: editions(t),
        })
        .collect();
    if json {
        return output::json(&rows);
    }
    let mut out = "babi: question answering, 20 tasks (Weston et al. 2015); all can be generated\n"
        .to_string();
    for r in &rows {
        let files = match (&source, r.editions.is_empty()) {
            (None, _) => String::new(),
            (Some(_), true) => "  no training file".to_string(),
            (Some(_), false) => format!("  official: {}", r.editions.join(", ")),
        };
        out.push_str(format!("{:>4}  {:<26}{files}\n", r.task, r.name).as_str());
    }
    if source.is_none() {
        out.push_str("no official files: give --data, or set MNEMIC_DATA\n");
    }
    output::print(&out)
}

fn official(
    data: Option<&Path>,
    edition: Edition,
    split: Split,
    tasks: &[Task],
) -> Result<StatsTable> {
    let source = open(data)?;
    let rows =
        tasks.iter().map(|&t| Ok((t.to_string(), Stats::new(&source.stories(edition, t, split)?))));
    Ok(StatsTable { rows: rows.collect::<Result<_>>()? })
}

fn generated(tasks: &[Task], questions: usize, seed: u64) -> Result<StatsTable> {
    let rows = tasks.iter().map(|&t| {
        Ok((t.to_string(), Stats::new(&generate(&GeneratorConfig::new(t, questions, seed))?)))
    });
    Ok(StatsTable { rows: rows.collect::<Result<_>>()? })
}
