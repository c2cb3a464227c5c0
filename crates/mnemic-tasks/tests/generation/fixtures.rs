//! The searches of `transformers` 5.23.0 on small trained models: greedy search with its scores, and beams of four with their four best.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mnemic_tasks::generation::{EarlyStopping, GenerationConfig, Generator, Hypothesis};
use mnemic_tasks::models::{Autoregressive, TextBatch};
use mnemic_testing::shared_data;

use crate::plain;

pub(crate) type Tensors = HashMap<String, Tensor>;

/// What is opened from a model's folder.
type Open<M> = fn(&Path) -> M;

/// A test for each model whose searches are recorded: a line here is all that a further model needs.
macro_rules! searches {
    ($($test:ident: $fixture:literal, $open:expr;)*) => {$(
        #[test]
        fn $test() {
            check_fixture(concat!("fixtures::", stringify!($test)), $fixture, $open);
        }
    )*};
}

searches! {
    gpt2_read_anew_at_every_step: "gpt2-lm", plain::gpt2;
    llama_read_anew_at_every_step: "llama-lm", plain::llama;
}

#[test]
fn stories_of_a_real_llama_read_anew_at_every_step() {
    check_stories("fixtures::stories_of_a_real_llama_read_anew_at_every_step", plain::llama);
}

/// The names of the beam searches with their length penalty and stopping rule.
const BEAMS: [(&str, f64, EarlyStopping); 4] = [
    ("beam4", 1., EarlyStopping::Heuristic),
    ("beam4_lp0.6", 0.6, EarlyStopping::Heuristic),
    ("beam4_lp2_early", 2., EarlyStopping::Always),
    ("beam4_lp0_never", 0., EarlyStopping::Never),
];

pub(crate) fn load(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

/// The searches of `fixtures/hf/NAME`.
fn check_fixture<M: Autoregressive>(test: &str, name: &str, open: Open<M>) {
    let Some(folder) = shared_data(test, &format!("fixtures/hf/{name}")) else { return };
    let expected = load(&folder.join("generation.safetensors"));
    let config = GenerationConfig::from_folder(&folder).unwrap();
    let config = GenerationConfig { max_new_tokens: Some(14), ..config };
    check_searches(&open(&folder), &config, &expected, "");
}

/// The stories of `fixtures/real/stories260k`: three prompts, 48 tokens each.
fn check_stories<M: Autoregressive>(test: &str, open: Open<M>) {
    let Some(folder) = shared_data(test, "weights/stories260K") else { return };
    let Some(fixture) = shared_data(test, "fixtures/real/stories260k/fixture.safetensors") else {
        return;
    };
    let (model, expected) = (open(&folder), load(&fixture));
    let config = GenerationConfig::from_folder(&folder).unwrap();
    let config = GenerationConfig { max_new_tokens: Some(48), ..config };
    for prompt in 0..3 {
        check_searches(&model, &config, &expected, &format!("{prompt}."));
    }
}

/// The searches whose tensors in `expected` have names that begin with `prefix`.
fn check_searches<M: Autoregressive>(
    model: &M,
    config: &GenerationConfig,
    expected: &Tensors,
    prefix: &str,
) {
    let tensor = |name: &str| expected.get(&format!("{prefix}{name}"));
    let ids = tensor("input_ids").unwrap().to_dtype(DType::U32).unwrap();
    let mask = tensor("attention_mask").map(|mask| mask.to_dtype(DType::U8).unwrap());
    let mask = mask.map_or(vec![vec![1; ids.dims()[1]]; ids.dims()[0]], |m| m.to_vec2().unwrap());
    let batch = TextBatch::with_mask(ids, mask).unwrap();
    let prompt = if model.is_encoder_decoder() { 1 } else { batch.dims().unwrap().1 };
    let sequences = |search: &str| -> Vec<Vec<i64>> {
        let whole = tensor(&format!("{search}.sequences")).unwrap().to_vec2::<i64>().unwrap();
        whole.into_iter().map(|mut row| row.split_off(prompt)).collect()
    };
    let written = |config| Generator::new(model, config).unwrap().keep_scores().generate(&batch);

    let greedy = written(config.clone()).unwrap();
    let found: Vec<&Hypothesis> = greedy.rows.iter().flatten().collect();
    check_ids("greedy", &found, &sequences("greedy"), config);
    if let Some(scores) = tensor("greedy.scores") {
        let scores: Vec<Vec<Vec<f32>>> = scores.to_vec3().unwrap();
        for (hypothesis, scores) in found.iter().zip(scores) {
            for (step, (a, b)) in hypothesis.step_scores.iter().zip(&scores).enumerate() {
                check_numbers(&format!("greedy scores, step {step}"), a, b);
            }
        }
    }
    for (search, length_penalty, early_stopping) in BEAMS {
        let beams = GenerationConfig { num_beams: 4, num_return_sequences: 4, ..config.clone() };
        let beams = GenerationConfig { length_penalty, early_stopping, ..beams };
        let found = written(beams).unwrap();
        assert!(found.rows.iter().all(|row| row.len() == 4), "{search}");
        let hypotheses: Vec<&Hypothesis> = found.rows.iter().flatten().collect();
        check_ids(search, &hypotheses, &sequences(search), config);
        let scores: Vec<f32> = found.scores().into_iter().map(|s| s as f32).collect();
        let expected = tensor(&format!("{search}.sequences_scores")).unwrap();
        check_numbers(search, &scores, &expected.to_vec1().unwrap());
    }
}

/// After its end a recorded sequence is filled with pad tokens, or with end tokens where the pad token is 0.
fn check_ids(
    search: &str,
    found: &[&Hypothesis],
    expected: &[Vec<i64>],
    config: &GenerationConfig,
) {
    assert_eq!(found.len(), expected.len(), "{search}");
    let fill = |id: i64| Some(id as u32) == config.padding() || is_end(config, id);
    for (i, (hypothesis, expected)) in found.iter().zip(expected).enumerate() {
        let ids: Vec<i64> = hypothesis.ids.iter().map(|&id| i64::from(id)).collect();
        let (written, rest) = expected.split_at(ids.len());
        assert_eq!(ids, written, "{search}, hypothesis {i}");
        assert!(rest.iter().all(|&id| fill(id)), "{search}, hypothesis {i}: {expected:?}");
        let ended = ids.last().is_some_and(|&id| is_end(config, id));
        assert!(rest.is_empty() || ended, "{search}, hypothesis {i} ends too early");
    }
}

fn is_end(config: &GenerationConfig, id: i64) -> bool {
    config.eos_token_id.contains(&(id as u32))
}

fn check_numbers(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(a == b || (a - b).abs() <= 1e-4, "{what}, number {i}: {a} and {b}");
    }
}
