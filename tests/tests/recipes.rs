//! Every recipe under `models/` is read and trained for a few steps on a little generated data.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use mnemic_tasks::Recipe;
use mnemic_tasks::babi::{self, BabiModel, RecipeFile, RunOptions};

/// A recipe for a file's first task, and for the first that differs from it by more than the task.
fn samples(file: &RecipeFile) -> Vec<usize> {
    let text = |r: &Recipe| {
        let mut table: toml::Table = toml::from_str(&r.to_toml().unwrap()).unwrap();
        table["data"]["tasks"] = toml::Value::Array(vec![]);
        table.retain(|key, _| key != "name" && key != "paper");
        table
    };
    let first = text(&file.recipes[0]);
    let other = file.recipes.iter().position(|r| text(r) != first);
    [Some(0), other].into_iter().flatten().collect()
}

/// Makes a recipe small enough for a test.
fn small(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.restarts = 1;
    recipe.data.source = mnemic_tasks::recipe::Source::Generated;
    recipe.data.official_test = false;
    recipe.data.tasks.truncate(3);
    (recipe.data.train_questions, recipe.data.test_questions) = (60, 20);
    (recipe.train.epochs, recipe.train.tensorboard) = (1, false);
    // A linear start is one epoch long here, so that the second has the other loss.
    if recipe.batches.linear_start_epochs > 0 {
        recipe.batches.linear_start_epochs = 1;
        recipe.train.epochs = 2;
    }
    recipe
}

#[test]
fn every_recipe_trains_for_a_few_steps() {
    let files =
        RecipeFile::below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")).unwrap();
    assert!(files.len() >= 8);
    for file in files {
        for recipe in samples(&file).into_iter().map(|i| small(&file.recipes[i])) {
            let (path, name) = (file.path.display(), &recipe.name);
            let folder = tempfile::tempdir().unwrap();
            let run_dir = folder.path().join("run");
            let options = RunOptions { run_dir: run_dir.clone(), ..RunOptions::default() };
            let result = babi::train(&recipe, &options, &mut ()).unwrap();
            assert_eq!(result.tests.len(), recipe.data.tasks.len(), "{path} {name}");
            assert!(result.validation.loss.is_finite(), "{path} {name}");
            let model = BabiModel::open(&run_dir).unwrap();
            assert_eq!(model.test(None).unwrap(), result.tests, "{path} {name}");
            // A run that is done is not repeated, and keeps the commit that it was made with.
            assert_eq!(babi::train(&recipe, &options, &mut ()).unwrap(), result, "{path} {name}");
        }
    }
}

/// The tables that the README shows are those of the results.
#[test]
fn tables_are_those_of_the_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tables = babi::table::tables(&root.join("models")).unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (page, readme) = (read("models/babi.md"), read("README.md"));
    let advice = "run `cargo xtask bench babi --tables`";
    assert_eq!(page, babi::table::page(&tables), "models/babi.md: {advice}");
    assert_eq!(readme, babi::table::insert(&readme, &tables), "README.md: {advice}");
    assert!(tables.values().any(|table| readme.contains(table.as_str())));
}

#[test]
fn every_architecture_trains_for_a_few_steps() {
    use mnemic_tasks::models::ModelConfig;
    for architecture in ModelConfig::architectures() {
        for preset in ModelConfig::presets(architecture).unwrap() {
            let text = format!(
                "name = 'x'\n[model]\narchitecture = '{architecture}'\npreset = '{preset}'\n\
                 [data]\ndataset = 'babi'\ntasks = [1, 6]\nsource = 'generated'\ntrain_questions = 40\n\
                 test_questions = 10\n[batches]\nsize = 10\n\
                 [train]\nepochs = 1\noptimizer = {{ name = 'sgd', lr = 0.01 }}\n"
            );
            let recipe = Recipe::parse(&text, preset, &[]).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let options =
                RunOptions { run_dir: folder.path().join("run"), ..RunOptions::default() };
            let result = babi::train(&recipe, &options, &mut ()).unwrap();
            assert_eq!(result.tests.len(), 2, "{architecture} {preset}");
            let model = BabiModel::open(&options.run_dir).unwrap();
            let example = mnemic_tasks::data::babi::Example::parse(
                "Mary went to the kitchen.\nJohn moved to the garden.",
                "Where is Mary?",
            )
            .unwrap();
            let trace = model.ask(&example, 2).unwrap();
            assert_eq!(trace.answers.len(), 2);
            let watched = trace.passes.iter().all(|p| p.weights.len() == 2);
            assert!(watched, "{architecture} {preset}");
            // Readers of words attend to no sentence; MemNN's adaptive memory may stop before it has retrieved anything.
            if architecture != "memnn" {
                let reader = ["lstm", "dnc-reader"].contains(&architecture);
                assert_eq!(trace.passes.is_empty(), reader, "{preset}");
            }
        }
    }
}

/// The recipes of algorithmic tasks are read, and each trains for a few steps.
#[test]
fn every_algorithm_trains_for_a_few_steps() {
    use mnemic_tasks::algorithms::{AlgorithmFile, AlgorithmRecipe, train_algorithm};
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut count = 0;
    let overrides =
        ["train.epochs=1", "batches.size=2", "batches.per_epoch=2", "batches.evaluation=1"];
    for file in AlgorithmFile::below(&models).unwrap() {
        let path = &file.path;
        for mut recipe in AlgorithmRecipe::read_all(path, &overrides.map(String::from)).unwrap() {
            // One size more than training's is enough here; of patterns, where a test goes through all of a range, a few.
            recipe.data.test.truncate(1);
            if recipe.task().unwrap().each_size().is_some() {
                recipe.data.test = vec![vec![2, 3]];
            }
            let dir = tempfile::tempdir().unwrap();
            let options = RunOptions { run_dir: dir.path().into(), ..RunOptions::default() };
            let result = train_algorithm(&recipe, &options, &mut ()).unwrap();
            assert!(result.validation.loss.is_finite(), "{path:?}");
            // Models of soft actions are tested with whole ones, too.
            let soft = result.tests.iter().filter(|test| test.rounding != Some(true));
            assert_eq!(soft.count(), recipe.data.test.len(), "{path:?}");
            count += 1;
        }
    }
    assert!(count >= 47, "{count}");
}

/// The recipes of pointer networks are read, and each trains for a few steps.
#[test]
fn every_pointer_network_trains_for_a_few_steps() {
    use mnemic_tasks::pointer::{PointerFile, PointerRecipe, train_pointer};
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut count = 0;
    let overrides = [
        "train.epochs=1",
        "batches.size=4",
        "batches.per_epoch=2",
        "batches.evaluation=1",
        "model.hidden_size=8",
        "data.files=[]",
    ];
    for file in PointerFile::below(&models).unwrap() {
        let path = &file.path;
        let recipe = PointerRecipe::read(path, &overrides.map(String::from)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = RunOptions { run_dir: dir.path().into(), ..RunOptions::default() };
        let result = train_pointer(&recipe, &options, &mut ()).unwrap();
        assert!(result.validation.loss.is_finite(), "{path:?}");
        assert!(result.tests.len() >= recipe.data.test.len(), "{path:?}");
        count += 1;
    }
    assert!(count >= 6, "{count}");
}
