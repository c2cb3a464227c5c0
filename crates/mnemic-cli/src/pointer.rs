//! `mnemic train` and `mnemic inspect` of pointer networks.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::babi::learning_curve;
use mnemic_tasks::pictures::{Section, page};
use mnemic_tasks::pointer::{
    PointerModel, PointerRecipe, PointerResult, is_pointer, train_pointer,
};

use crate::args::{InspectArgs, TrainArgs};
use crate::output;
use crate::train::{observer, run_options, said};

/// Trains, prints, and says whether a signal stopped the run.
pub(crate) fn train(args: &TrainArgs) -> Result<bool> {
    if let Some(task) = &args.task {
        bail!("--task {task}: {} holds one recipe", args.recipe.display());
    }
    let recipe = PointerRecipe::read(&args.recipe, &args.set)?;
    let options = run_options(args, &recipe.name)?;
    let result = train_pointer(&recipe, &options, observer(args).as_mut())?;
    let run_dir = &options.run_dir;
    if !said(args, &result, result.interrupted, run_dir)? {
        output::print(&table(&recipe, &result))?;
        eprintln!("trained on {} instances; {:.0} s in all", result.examples, result.seconds);
        eprintln!("the model is in {}", run_dir.join("model").display());
    }
    Ok(result.interrupted)
}

/// Writes a page of a trained model at work on one test instance.
pub(crate) fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let Some(path) = &args.html else { bail!("{}: expected --html", args.run.display()) };
    let points = match args.sizes.as_slice() {
        [] => None,
        &[points] => Some(points),
        more => bail!("--sizes {more:?}: expected one number of points"),
    };
    let model = PointerModel::open(&args.run, args.device)?;
    let mut sections = vec![Section::from(model.facts())];
    // A model's folder alone has no learning curve.
    sections.extend(learning_curve(&args.run).ok().map(Section::from));
    sections.extend(model.watch(points, args.from)?);
    let title = format!("{} at work", model.recipe.name);
    let html = page(&title, &model.recipe.description, &[], &sections)?;
    output::write_page(path, &html)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the folder is that of a pointer network's run or model.
pub(crate) fn is_model(folder: &Path) -> bool {
    let recipe = |folder: &Path| is_pointer(&folder.join("recipe.toml"));
    recipe(folder).or_else(|_| recipe(&folder.join("model"))).unwrap_or(false)
}

fn table(recipe: &PointerRecipe, result: &PointerResult) -> String {
    let mut out = format!("{}\n", recipe.data.task.name());
    for test in &result.tests {
        let (points, search) = (test.points, &test.search);
        let (instances, source) = (test.instances, &test.source);
        out.push_str(&format!(
            "{points:>4} points, {search:<20} {}; {instances} instances, {source}\n",
            test.said()
        ));
    }
    out
}
