use candle_core::{DType, Device, Tensor};
use mnemic_layers::ParamStore;
use mnemic_testing::assert_close;

use super::*;
use crate::config::Sizes;
use crate::testing::{
    VOCAB, accuracy, check_differences, check_empty_story, check_padding, check_seeds, stories,
    train, without_gradient,
};

const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 6, memory_size: 10 };

fn small() -> Config {
    Config { embedding_dim: 8, num_slots: 3, init_std: 0.4, ..Config::entnet(SIZES) }
}

fn build(config: &Config, seed: u64, dtype: DType) -> (EntNet, ParamStore) {
    let store = ParamStore::new(seed);
    (EntNet::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

/// Masks, slopes and bias as they may be after training.
fn trained(store: &ParamStore) {
    for (i, name) in ["story_mask", "question_mask", "prelu.weight", "bias"].iter().enumerate() {
        let var = store.get(name).unwrap();
        let change = mnemic_testing::waves(var.dims(), i as f64, 0.6, var.dtype());
        var.set(&(var.as_tensor() + change).unwrap()).unwrap();
    }
}

fn logits(model: &EntNet, batch: &StoryBatch) -> Tensor {
    model.forward(batch, &Context::eval()).unwrap().logits
}

#[test]
fn padding_changes_nothing() {
    let (model, store) = build(&small(), 1, DType::F64);
    trained(&store);
    check_padding(&model);
    check_empty_story(&model);
}

#[test]
fn gradients_reach_every_parameter_and_are_right() {
    let (batch, answers) = stories(6, 8);
    let (model, store) = build(&small(), 2, DType::F64);
    trained(&store);
    let loss = || model.loss(&batch, &answers, &Context::eval());
    assert_eq!(without_gradient(&store, &loss().unwrap()), Vec::<String>::new());
    for (name, _) in store.vars() {
        check_differences(&store, &name, 6, loss);
    }
    assert_eq!(store.num_parameters() as u128, small().num_parameters());
}

#[test]
fn initial_values_are_those_of_the_paper() {
    let (_, store) = build(&Config::entnet(SIZES), 1, DType::F64);
    for (name, var) in store.vars() {
        let all = var.as_tensor().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        match name.as_str() {
            "story_mask" | "question_mask" | "prelu.weight" => {
                assert!(all.iter().all(|x| *x == 1.), "{name}");
            }
            "bias" => assert!(all.iter().all(|x| *x == 0.)),
            _ => {
                let variance = all.iter().map(|x| x * x).sum::<f64>() / all.len() as f64;
                assert!((variance.sqrt() - 0.1).abs() < 0.01, "{name}: {variance}");
            }
        }
    }
    let model = build(&Config::entnet(SIZES), 1, DType::F64).0;
    assert_eq!(model.null_rows(), ["embedding.weight"]);
    let null = store.get("embedding.weight").unwrap().as_tensor().get(0).unwrap();
    assert_eq!(null.to_vec1::<f64>().unwrap(), vec![0.; 100]);
}

/// The paper's equations, word by word, slot by slot, unit by unit.
fn by_hand(store: &ParamStore, story: &[Vec<u32>], question: &[u32]) -> Vec<f64> {
    let matrix = |name: &str| store.get(name).unwrap().as_tensor().to_vec2::<f64>().unwrap();
    let vector = |name: &str| store.get(name).unwrap().as_tensor().to_vec1::<f64>().unwrap();
    let words = matrix("embedding.weight");
    let d = words[0].len();
    let encode = |ids: &[u32], mask: &[Vec<f64>]| -> Vec<f64> {
        let term = |i: usize, k: usize| mask[i][k] * words[ids[i] as usize][k];
        (0..d).map(|k| (0..ids.len()).map(|i| term(i, k)).sum()).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (slopes, bias) = (vector("prelu.weight"), vector("bias"));
    let phi = |k: usize, x: f64| if x > 0. { x } else { slopes[k] * x };
    let (u, v, w) = (matrix("u.weight"), matrix("v.weight"), matrix("w.weight"));
    let (keys, mask) = (matrix("keys"), matrix("story_mask"));
    let mut slots = keys.clone();
    for sentence in story {
        let s = encode(sentence, &mask);
        for (h, key) in slots.iter_mut().zip(&keys) {
            let gate = 1. / (1. + (-dot(&s, h) - dot(&s, key)).exp());
            let inner = |k: usize| dot(&u[k], h) + dot(&v[k], key) + dot(&w[k], &s) + bias[k];
            let new: Vec<f64> = (0..d).map(|k| h[k] + gate * phi(k, inner(k))).collect();
            let norm = dot(&new, &new).sqrt();
            *h = new.iter().map(|x| x / norm).collect();
        }
    }
    let q = encode(question, &matrix("question_mask"));
    let scores: Vec<f64> = slots.iter().map(|h| dot(&q, h).exp()).collect();
    let total: f64 = scores.iter().sum();
    let read: Vec<f64> =
        (0..d).map(|k| slots.iter().zip(&scores).map(|(h, p)| p / total * h[k]).sum()).collect();
    let h = matrix("h.weight");
    let y: Vec<f64> = (0..d).map(|k| phi(k, q[k] + dot(&h[k], &read))).collect();
    matrix("r.weight").iter().map(|row| dot(row, &y)).collect()
}

#[test]
fn equals_the_equations_of_the_paper() {
    let (model, store) = build(&small(), 3, DType::F64);
    trained(&store);
    let story = vec![vec![1, 5, 7], vec![2, 6, 5, 8], vec![1, 6, 5, 10]];
    let question = vec![11, 5, 1];
    let expected = by_hand(&store, &story, &question);
    let batch = StoryBatch::from_rows(&[story], &[question], vec![], &Device::Cpu).unwrap();
    let expected = Tensor::from_vec(expected, (1, VOCAB), &Device::Cpu).unwrap();
    assert_close("logits", &logits(&model, &batch), &expected, 1e-11, 1e-12);
}

#[test]
fn slots_are_exchangeable() {
    let (model, store) = build(&small(), 3, DType::F64);
    let (batch, _) = stories(4, 2);
    let before = logits(&model, &batch);
    let keys = store.get("keys").unwrap();
    let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
    keys.set(&keys.as_tensor().index_select(&order, 0).unwrap()).unwrap();
    assert_close("logits", &logits(&model, &batch), &before, 1e-12, 1e-12);
}

#[test]
fn the_order_of_the_sentences_matters() {
    let (model, _) = build(&small(), 3, DType::F64);
    let story = vec![vec![1, 5, 7], vec![1, 5, 8]];
    let turned = vec![story[1].clone(), story[0].clone()];
    let questions = vec![vec![11, 1]; 2];
    let batch = StoryBatch::from_rows(&[story, turned], &questions, vec![], &Device::Cpu).unwrap();
    let both = logits(&model, &batch).to_vec2::<f64>().unwrap();
    assert!(both[0].iter().zip(&both[1]).any(|(a, b)| (a - b).abs() > 1e-4));
}

#[test]
fn long_stories_keep_the_most_recent_sentences() {
    let (model, _) = build(&Config { memory_size: 2, ..small() }, 3, DType::F64);
    let story = vec![vec![1, 5, 7], vec![2, 6, 5, 8], vec![1, 6, 5, 10]];
    let questions = vec![vec![11, 1]; 2];
    let recent = story[1..].to_vec();
    let batch = StoryBatch::from_rows(&[story, recent], &questions, vec![], &Device::Cpu).unwrap();
    let both = logits(&model, &batch);
    assert_close("logits", &both.get(0).unwrap(), &both.get(1).unwrap(), 1e-13, 1e-13);
}

#[test]
fn gates_and_attention_are_watched() {
    let (model, _) = build(&small(), 4, DType::F64);
    let (batch, _) = stories(5, 2);
    let ctx = Context::eval().watching();
    assert!(model.forward(&batch, &ctx).unwrap().gate_scores.is_empty());
    let trace = ctx.take_trace();
    let names: Vec<&str> = trace.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["gates", "attention"]);
    let gates = trace[0].value.to_vec3::<f64>().unwrap();
    let attention = trace[1].value.to_vec2::<f64>().unwrap();
    for (row, &n) in batch.story_lengths.iter().enumerate() {
        for (t, (gates, a)) in gates[row].iter().zip(&attention[row]).enumerate() {
            if t >= n {
                assert!(*a == 0. && gates.iter().all(|g| *g == 0.));
                continue;
            }
            // A mean of the gates lies between them.
            let low = gates.iter().copied().fold(1., f64::min);
            let high = gates.iter().copied().fold(0., f64::max);
            assert!(0. < low && high < 1. && low <= *a && *a <= high);
        }
    }
}

#[test]
fn same_seed_same_bits() {
    let (batch, answers) = stories(4, 1);
    check_seeds(|seed| {
        let (model, store) = build(&small(), seed, DType::F32);
        train(&model, &store, (&batch, &answers), 0.01, 3);
        model.forward(&batch, &Context::eval()).unwrap().logits
    });
}

#[test]
fn learns_small_stories() {
    let (batch, answers) = stories(20, 6);
    let config = Config { embedding_dim: 20, num_slots: 5, ..Config::entnet(SIZES) };
    let (model, store) = build(&config, 1, DType::F32);
    assert!(accuracy(&model, &batch, &answers) < 0.8);
    train(&model, &store, (&batch, &answers), 0.02, 80);
    assert_eq!(accuracy(&model, &batch, &answers), 1.);
}

#[test]
fn bad_configs_are_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    let good = Config::entnet(SIZES);
    assert!(error(Config { num_slots: 0, ..good.clone() }).contains("num_slots must be positive"));
    assert!(error(Config { init_std: f64::NAN, ..good.clone() }).contains("init_std"));
    assert!(error(Config { vocab_size: 1, ..good.clone() }).contains("vocab_size"));
    assert!(Config::preset("entnet_tied", SIZES).is_none());
    let (model, _) = build(&small(), 1, DType::F32);
    let long = vec![vec![1; 7]];
    let batch = StoryBatch::from_rows(&[long], &[vec![11]], vec![], &Device::Cpu).unwrap();
    let error = model.forward(&batch, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("entnet: a sentence has 7 words, but sentence_len is 6"), "{error}");
}
