//! Every recipe under `models/` is read and trained for a few steps on a little generated data.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use mnemic_tasks::Recipe;
use mnemic_tasks::babi::{self, BabiModel, RunOptions};

fn recipes() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml") && !path.ends_with("index.toml")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_recipe_trains_for_a_few_steps() {
    let recipes = recipes();
    assert!(recipes.len() >= 8);
    for path in recipes {
        let small = [
            "restarts=1",
            "data.source=generated",
            "data.official_test=false",
            "data.train_questions=60",
            "data.test_questions=20",
            "train.epochs=1",
            "train.tensorboard=false",
        ]
        .map(String::from);
        let mut recipe = Recipe::read(&path, &small).unwrap();
        // A linear start is one epoch long here, so that the second has the other loss.
        if recipe.batches.linear_start_epochs > 0 {
            recipe.batches.linear_start_epochs = 1;
            recipe.train.epochs = 2;
        }
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("run");
        let options = RunOptions { run_dir: run_dir.clone(), ..RunOptions::default() };
        let result = babi::train(&recipe, &options, &mut ()).unwrap();
        assert_eq!(result.tests.len(), recipe.data.tasks.len(), "{path:?}");
        assert!(result.validation.loss.is_finite(), "{path:?}");
        let model = BabiModel::open(&run_dir).unwrap();
        assert_eq!(model.test(None).unwrap(), result.tests, "{path:?}");
    }
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
            // An LSTM attends to nothing; MemNN's adaptive memory may stop before it has retrieved anything.
            if architecture != "memnn" {
                assert_eq!(trace.passes.is_empty(), architecture == "lstm", "{preset}");
            }
        }
    }
}
