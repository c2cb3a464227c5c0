//! `mnemic bench generalise`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use mnemic_tasks::babi::{
    self, BabiModel, GeneralisationRow, RecipeFile, generalisation_table, read_csv, update_csv,
};
use mnemic_tasks::recipe::{Recipe, ResultTable};
use mnemic_tasks::{Provenance, engine};

use super::jobs;
use crate::args::GeneraliseArgs;
use crate::output;
use crate::train::command_line;

const HEAD: &str = "# Stories unlike those of training\n\nWrong answers in percent on 1,000 generated \
    questions a task: stories **as in training / twice as long / about people\nwhose names were never read / about \
    places whose names were never read**. Unknown words get the vectors that they would have had\nat the start of \
    training; a model that answers by choosing a class cannot choose one that it never learnt, unless its answers \
    share\ntheir vectors with its inputs. Seeds and commits: `generalisation.csv`. Written by `mnemic bench \
    generalise`; not to be edited.\n\n";

/// Tests the runs of the recipes of the table at 10,000 questions a task.
pub(super) fn generalise(args: &GeneraliseArgs) -> Result<ExitCode> {
    let table = args.recipes.join("generalisation.csv");
    let mut tested = 0;
    for file in RecipeFile::below(&args.recipes)? {
        for recipe in file.recipes.iter().filter(|r| r.table == Some(ResultTable::TenThousand)) {
            let run = args.runs.join(&recipe.name);
            let text = format!("{} {}", file.path.display(), recipe.name);
            let fits =
                args.filter.is_empty() || args.filter.iter().any(|f| text.contains(f.as_str()));
            if !fits || !run.join("result.json").exists() {
                continue;
            }
            eprintln!("{}", recipe.name);
            let rows = engine::on_big_stack(|| rows(args, recipe, &run))?;
            update_csv(&table, &rows.with_context(|| recipe.name.clone())?)?;
            tested += 1;
        }
    }
    if tested == 0 {
        bail!("{}: no run of a recipe fits; `mnemic bench babi` makes them", args.runs.display());
    }
    let text = format!("{HEAD}{}", generalisation_table(&read_csv(&table)?));
    mnemic_tasks::write_text(&args.recipes.join("generalisation.md"), &text)?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(args: &GeneraliseArgs, recipe: &Recipe, run: &Path) -> Result<Vec<GeneralisationRow>> {
    let (model, trained) = (BabiModel::open(run)?, jobs::result::<babi::RunResult>(run)?);
    let here = Provenance::here(&command_line());
    let mut rows = Vec::new();
    for &task in &recipe.data.tasks {
        for (stories, error) in babi::generalise(&model, task, args.questions, args.seed)? {
            rows.push(GeneralisationRow {
                model: recipe.heading().to_string(),
                recipe: recipe.name.clone(),
                task: task.number(),
                stories,
                error_percent: (error * 10.).round() / 10.,
                questions: args.questions,
                seed: args.seed,
                trained_seed: trained.seed,
                trained_commit: trained.provenance.commit.clone(),
                commit: here.commit.clone(),
            });
        }
    }
    Ok(rows)
}
