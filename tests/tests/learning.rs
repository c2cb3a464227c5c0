//! A memory network learns: from generated stories to questions about stories that it has never seen.

use mnemic_tasks::Recipe;
use mnemic_tasks::babi::{self, RunOptions};

const RECIPE: &str = r#"
name = "deduction"
[model]
architecture = "memn2n"
preset = "pe_ls_rn"
[data]
dataset = "babi"
tasks = [15]
source = "generated"
train_questions = 2000
test_questions = 400
max_sentences = 50
[batches]
size = 32
sampling = "with_replacement"
linear_start_epochs = 10
[train]
seed = 1
epochs = 60
optimizer = { name = "sgd", lr = 0.16 }
schedule = { name = "halving", every = 25 }
clip = { tensor_norm = 1.25 }
stop_when = { metric = "error", below = 0.0, epochs = 2 }
"#;

#[test]
fn memn2n_learns_deduction_and_repeats_itself_to_the_bit() {
    let recipe = Recipe::parse(RECIPE, "test", &[]).unwrap();
    let run = || {
        let folder = tempfile::tempdir().unwrap();
        let options = RunOptions { run_dir: folder.path().join("run"), ..RunOptions::default() };
        let result = babi::train(&recipe, &options, &mut ()).unwrap();
        (result, std::fs::read(options.run_dir.join("model/model.safetensors")).unwrap())
    };
    let (result, weights) = run();
    // Guessing is wrong three times in four.
    assert!(result.tests[0].error_percent < 5., "{:?}", result.tests);
    assert!(weights == run().1, "two runs of one seed differ");
}
