use std::path::Path;

use mnemic_train::Interrupt;

use super::*;
use crate::babi::RunOptions;
use crate::run_folder::RunRecipe;

fn recipe(extra: &str) -> crate::Result<AlgorithmRecipe> {
    let text = format!(
        "name = \"small\"\n[model]\narchitecture = \"ntm\"\nhidden_size = 16\nnum_slots = 8\nslot_width = 6\n\
         [data]\ndataset = \"algorithms\"\ntask = \"copy\"\ntest = [[2], [5]]\n\
         [batches]\nsize = 4\nper_epoch = 6\nevaluation = 2\n\
         [train]\nseed = 3\nepochs = 2\noptimizer = {{ name = \"adam\", lr = 0.01 }}\n{extra}"
    );
    AlgorithmRecipe::parse(&text, "small.toml")
}

fn options(dir: &Path) -> RunOptions {
    RunOptions { run_dir: dir.to_path_buf(), interrupt: Interrupt::default(), ..Default::default() }
}

#[test]
fn a_run_trains_tests_and_saves_and_gives_the_same_again() {
    let (one, two) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let recipe = recipe("").unwrap();
    let result = train_algorithm(&recipe, &options(one.path()), &mut ()).unwrap();
    assert_eq!((result.sequences, result.converged), (48, false));
    let sizes: Vec<_> = result.tests.iter().map(|test| test.sizes.clone()).collect();
    assert_eq!(sizes, [vec![2], vec![5]]);
    // Untrained, about half of all bits are wrong, and each costs about one.
    assert!((4. ..12.).contains(&result.tests[0].wrong_bits), "{:?}", result.tests);
    assert!((14. ..20.).contains(&result.tests[0].bits), "{:?}", result.tests);
    let again = train_algorithm(&recipe, &options(one.path()), &mut ()).unwrap();
    assert_eq!(again, result);
    train_algorithm(&recipe, &options(two.path()), &mut ()).unwrap();
    let weights = |dir: &Path| std::fs::read(dir.join("model/model.safetensors")).unwrap();
    assert_eq!(weights(one.path()), weights(two.path()));
}

#[test]
fn a_run_that_goes_on_ends_with_the_same_weights() {
    let (one, two) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let (short, long) = (recipe("").unwrap(), recipe("").unwrap());
    let short =
        AlgorithmRecipe { train: mnemic_train::TrainConfig { epochs: 1, ..short.train }, ..short };
    train_algorithm(&short, &options(one.path()), &mut ()).unwrap();
    train_algorithm(&long, &options(one.path()), &mut ()).unwrap();
    train_algorithm(&long, &options(two.path()), &mut ()).unwrap();
    let weights = |dir: &Path| std::fs::read(dir.join("model/model.safetensors")).unwrap();
    assert_eq!(weights(one.path()), weights(two.path()));
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str, by: &str| {
        let good = recipe("").unwrap().to_toml().unwrap();
        assert!(good.contains(text), "{good}");
        AlgorithmRecipe::parse(&good.replace(text, by), "x.toml")
            .and_then(|r| r.config())
            .unwrap_err()
            .to_string()
    };
    assert!(error("\"copy\"", "\"copi\"").contains("copy, repeat-copy"));
    assert!(error("\"ntm\"", "\"nmt\"").contains("ntm, structured-ntm, dnc"));
    assert!(error("num_slots = 8", "num_slot = 8").contains("num_slot"));
    assert!(error("per_epoch = 6", "per_epoch = 0").contains("batches.per_epoch"));
    assert!(error("seed = 3", "seeds = 3").contains("seeds"));
}

/// A stack RNN on streams, with a curriculum.
fn pattern() -> AlgorithmRecipe {
    let text = "name = \"small\"\n[model]\narchitecture = \"stack-rnn\"\nhidden_size = 8\nstacks = 2\n\
                [data]\ndataset = \"algorithms\"\ntask = \"anbn\"\ntest = [[1, 4]]\ncurriculum = { first = 2 }\n\
                [batches]\nsize = 4\nper_epoch = 5\nevaluation = 1\n\
                [train]\nseed = 3\nepochs = 2\noptimizer = { name = \"adam\", lr = 0.01 }\n";
    AlgorithmRecipe::parse(text, "small.toml").unwrap()
}

#[test]
fn patterns_are_tested_size_by_size_with_and_without_rounding() {
    let dir = tempfile::TempDir::new().unwrap();
    let recipe = pattern();
    assert_eq!(recipe.data.curriculum, Some(Curriculum { first: 2, ..Curriculum::default() }));
    let result = train_algorithm(&recipe, &options(dir.path()), &mut ()).unwrap();
    let rounding: Vec<_> = result.tests.iter().map(|test| test.rounding).collect();
    assert_eq!(rounding, [Some(false), Some(true)]);
    for test in &result.tests {
        // Four rows of ten sequences of each of four sizes.
        assert_eq!((test.sizes.as_slice(), test.sequences), (&[1, 4][..], 160));
        let solved = test.solved_percent.unwrap();
        assert!(solved % 25. == 0. && solved <= 100. - test.error_percent, "{test:?}");
    }
    let rows = AlgorithmRow::of(&recipe, Path::new("stack.toml"), &result);
    assert_eq!(rows.len(), 2);
    let model = AlgorithmModel::open(dir.path(), crate::Place::default()).unwrap();
    assert!(model.watch(&[2], 0).unwrap().len() >= 3 + 2 + 2);
}

#[test]
fn sizes_wait_until_the_model_is_good_enough() {
    let dirs = [(); 3].map(|()| tempfile::TempDir::new().unwrap());
    let grown = |below: f64, first: usize, dir: &Path, epochs: usize| {
        let mut recipe = pattern();
        recipe.data.curriculum = Some(Curriculum { first, step: 1, below: Some(below) });
        recipe.train.epochs = epochs;
        let result = train_algorithm(&recipe, &options(dir), &mut ()).unwrap();
        assert!(result.validation.metrics["error_so_far"] <= 1.);
        let lines = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        let epochs = lines.filter(|line: &serde_json::Value| line["kind"] == "epoch");
        let grown = epochs.map(|line| line["validation"]["metrics"]["grown"].as_f64().unwrap());
        grown.collect::<Vec<_>>()
    };
    assert_eq!(grown(1., 1, dirs[0].path(), 3), [0., 1., 2.]);
    assert_eq!(grown(0., 9, dirs[1].path(), 2), [0., 0.]);
    // A run that goes on knows how far it came.
    grown(1., 1, dirs[2].path(), 1);
    assert_eq!(grown(1., 1, dirs[2].path(), 3), [0., 1., 2.]);
    let mut recipe = pattern();
    recipe.data.curriculum = Some(Curriculum { below: Some(2.), ..Curriculum::default() });
    let error = AlgorithmRecipe::parse(&recipe.to_toml().unwrap(), "x").unwrap_err().to_string();
    assert!(error.contains("data.curriculum.below = 2"), "{error}");
}

#[test]
fn a_curriculum_is_gone_on_with_and_not_changed_on_the_way() {
    let (one, two) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let long = pattern();
    let mut short = long.clone();
    short.train.epochs = 1;
    train_algorithm(&short, &options(one.path()), &mut ()).unwrap();
    let mut other = long.clone();
    other.data.curriculum = None;
    assert!(train_algorithm(&other, &options(one.path()), &mut ()).is_err());
    train_algorithm(&long, &options(one.path()), &mut ()).unwrap();
    train_algorithm(&long, &options(two.path()), &mut ()).unwrap();
    let weights = |dir: &Path| std::fs::read(dir.join("model/model.safetensors")).unwrap();
    assert_eq!(weights(one.path()), weights(two.path()));
    train_algorithm(&other, &options(tempfile::TempDir::new().unwrap().path()), &mut ()).unwrap();
}
