//! Training on a CUDA device: the same losses as on the CPU, from the same recipes. Skipped where there is no device.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use mnemic_tasks::babi::{self, BabiModel, RunOptions};
use mnemic_tasks::engine::{Observer, StepInfo};
use mnemic_tasks::models::ModelConfig;
use mnemic_tasks::{Place, Recipe};

const GPU: Place = Place::Cuda(0);

/// Whether there is a device. Says so of `test` where there is none.
fn device(test: &str) -> bool {
    match GPU.open() {
        Ok(_) => true,
        Err(e) => {
            println!("skipped: {test}: {e}");
            false
        }
    }
}

/// The loss of every step.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn on_step(&mut self, info: &StepInfo<'_>) {
        self.0.push(info.step_loss);
    }
}

fn losses(recipe: &Recipe, place: Place) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut losses = Losses::default();
    babi::train(recipe, &RunOptions { run_dir, place, ..RunOptions::default() }, &mut losses)
        .unwrap();
    losses.0
}

/// Initial weights, batches and dropout masks are those of the seed on any device.
#[test]
fn every_architecture_has_the_losses_of_the_cpu() {
    if !device("every_architecture_has_the_losses_of_the_cpu") {
        return;
    }
    for architecture in ModelConfig::architectures() {
        let preset = ModelConfig::presets(architecture).unwrap()[0];
        let text = format!(
            "name = 'x'\n[model]\narchitecture = '{architecture}'\npreset = '{preset}'\n\
             [data]\ndataset = 'babi'\ntasks = [1, 6]\nsource = 'generated'\ntrain_questions = 50\n\
             test_questions = 10\n[batches]\nsize = 15\n\
             [train]\nepochs = 1\noptimizer = {{ name = 'adam', lr = 0.001 }}\n"
        );
        let recipe = Recipe::parse(&text, preset, &[]).unwrap();
        let (cpu, cuda) = (losses(&recipe, Place::Cpu), losses(&recipe, GPU));
        assert!(cpu.len() >= 5 && cpu.len() == cuda.len(), "{architecture}");
        for (step, (a, b)) in cpu.iter().zip(&cuda).enumerate().take(5) {
            let text = format!("{architecture}, step {step}: {a} on the CPU, {b} on the device");
            assert!((a - b).abs() <= 1e-3 * a.abs(), "{text}");
        }
    }
}

/// A recipe as it is, but on little data; begun on the device, it goes on on the CPU.
#[test]
fn a_recipe_trains_there_and_goes_on_elsewhere() {
    if !device("a_recipe_trains_there_and_goes_on_elsewhere") {
        return;
    }
    let text = include_str!("../../models/dmn-plus/10k.toml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    let run_dir = folder.path().join("run");
    let run = |epochs: usize, place: Place| {
        let set = [
            format!("train.epochs={epochs}"),
            "data.source=generated".into(),
            "data.train_questions=400".into(),
            "data.test_questions=50".into(),
            "restarts=1".into(),
        ];
        let task = Some("1".parse().unwrap());
        let recipe = Recipe::read_task(&path, task, &set).unwrap();
        let options = RunOptions { run_dir: run_dir.clone(), place, ..RunOptions::default() };
        babi::train(&recipe, &options, &mut ()).unwrap()
    };
    let first = run(2, GPU);
    assert!(first.provenance.device.starts_with("cuda:0"), "{:?}", first.provenance);
    assert!(first.validation.loss.is_finite());
    // What the device trained answers the same everywhere, but for a tie or two.
    let error =
        |place| BabiModel::open_on(&run_dir, place).unwrap().test(None).unwrap()[0].error_percent;
    assert!((error(GPU) - first.tests[0].error_percent).abs() < 1e-9);
    assert!((error(Place::Cpu) - first.tests[0].error_percent).abs() <= 4.);
    let second = run(3, Place::Cpu);
    assert_eq!(second.epochs.values().sum::<usize>(), 3);
    assert!(second.provenance.device.is_empty() && second.validation.loss.is_finite());
}
