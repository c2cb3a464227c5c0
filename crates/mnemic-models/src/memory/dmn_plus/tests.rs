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

fn small(config: Config) -> Config {
    Config { hidden_size: 8, ..config }
}

fn build(config: &Config, seed: u64, dtype: DType) -> (DmnPlus, ParamStore) {
    let store = ParamStore::new(seed);
    (DmnPlus::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

fn variants() -> Vec<Config> {
    let presets = [Config::dmn2(SIZES), Config::dmn3(SIZES), Config::dmn_plus(SIZES)];
    let mut all: Vec<_> = presets.into_iter().map(small).collect();
    all.push(Config { input_fusion: false, ..small(Config::dmn_plus(SIZES)) });
    all
}

#[test]
fn padding_changes_nothing() {
    for config in variants() {
        check_padding(&build(&config, 1, DType::F64).0);
        check_empty_story(&build(&config, 1, DType::F64).0);
    }
}

#[test]
fn gradients_reach_every_parameter_and_are_right() {
    let (batch, answers) = stories(4, 8);
    for config in variants() {
        let (model, store) = build(&config, 2, DType::F64);
        let loss = || model.loss(&batch, &answers, &Context::eval());
        assert_eq!(without_gradient(&store, &loss().unwrap()), Vec::<String>::new());
        for (name, _) in store.vars() {
            check_differences(&store, &name, 3, loss);
        }
        assert_eq!(store.num_parameters() as u128, config.num_parameters(), "{config:?}");
    }
}

/// So that the backward pass of a training step needs nothing of candle: on a GPU that is half of its time.
#[test]
fn the_graph_of_a_training_step_holds_fused_operations_alone() {
    let (batch, answers) = stories(4, 8);
    let (model, _) = build(&small(Config::dmn_plus(SIZES)), 2, DType::F32);
    let loss = model.loss(&batch, &answers, &Context::train(1, 0)).unwrap();
    assert!(mnemic_layers::only_fused(&mnemic_layers::scale(&loss, 0.25).unwrap()));
}

#[test]
fn oracle_attention_is_a_distribution_over_the_sentences_that_are_there() {
    let (model, _) = build(&small(Config::dmn_plus(SIZES)), 3, DType::F64);
    let (batch, _) = stories(6, 2);
    let ctx = Context::eval().watching();
    model.forward(&batch, &ctx).unwrap();
    let trace = ctx.take_trace();
    assert_eq!(trace.len(), 3);
    for (pass, watched) in trace.iter().enumerate() {
        assert_eq!((watched.name.as_str(), watched.step), ("attention", pass));
        for (row, g) in watched.value.to_vec2::<f64>().unwrap().iter().enumerate() {
            let n = batch.story_lengths[row];
            assert!((g.iter().sum::<f64>() - 1.).abs() < 1e-12);
            assert!(g[n..].iter().all(|g| *g == 0.) && g[..n].iter().all(|g| *g > 0.));
        }
    }
}

#[test]
fn oracle_4_one_fact_gets_all_attention() {
    let (model, _) = build(&small(Config::dmn_plus(SIZES)), 3, DType::F64);
    let story = [vec![vec![1, 5, 7]]];
    let batch = StoryBatch::from_rows(&story, &[vec![11, 1]], vec![], &Device::Cpu).unwrap();
    let ctx = Context::eval().watching();
    model.forward(&batch, &ctx).unwrap();
    assert!(ctx.take_trace().iter().all(|w| w.value.to_vec2::<f64>().unwrap() == [[1.]]));
}

#[test]
fn oracle_5_fusion_reverses_with_the_story_when_its_directions_share_weights() {
    let (model, store) = build(&small(Config::dmn_plus(SIZES)), 4, DType::F64);
    for (name, var) in store.vars() {
        if let Some(forward) = name.strip_suffix("_reverse") {
            var.set(store.get(forward).unwrap().as_tensor()).unwrap();
        }
    }
    let story = vec![vec![1, 5, 7], vec![2, 6, 8], vec![3, 5, 9, 10]];
    let reversed: Vec<_> = story.iter().rev().cloned().collect();
    let questions = vec![vec![11, 1]; 2];
    let batch =
        StoryBatch::from_rows(&[story, reversed], &questions, vec![], &Device::Cpu).unwrap();
    let facts = model.facts(&batch, &Context::eval()).unwrap();
    let back = Tensor::from_vec(vec![2u32, 1, 0], 3, &Device::Cpu).unwrap();
    let (first, second) = (facts.get(0).unwrap(), facts.get(1).unwrap());
    assert_close("facts", &second, &first.index_select(&back, 0).unwrap(), 1e-12, 1e-12);
}

#[test]
fn oracle_3_soft_attention_without_fusion_does_not_see_the_order() {
    let config = Config { input_fusion: false, ..small(Config::dmn2(SIZES)) };
    let story = vec![vec![1, 5, 7], vec![2, 6, 8], vec![3, 5, 9]];
    let turned = vec![story[2].clone(), story[0].clone(), story[1].clone()];
    let questions = vec![vec![11, 1]; 2];
    let batch = StoryBatch::from_rows(&[story, turned], &questions, vec![], &Device::Cpu).unwrap();
    let difference = |config: &Config| {
        let logits = build(config, 5, DType::F64).0.forward(&batch, &Context::eval()).unwrap();
        let d = (logits.logits.get(0).unwrap() - logits.logits.get(1).unwrap()).unwrap();
        d.abs().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap()
    };
    assert!(difference(&config) < 1e-12);
    let ordered = Config { context: ContextKind::AttentionGru, ..config };
    assert!(difference(&ordered) > 1e-6);
}

#[test]
fn same_seed_same_bits() {
    let (batch, answers) = stories(4, 1);
    check_seeds(|seed| {
        let (model, store) = build(&small(Config::dmn_plus(SIZES)), seed, DType::F32);
        train(&model, &store, (&batch, &answers), 0.01, 3);
        model.forward(&batch, &Context::eval()).unwrap().logits
    });
}

#[test]
fn learns_small_stories() {
    let (batch, answers) = stories(20, 6);
    let config = Config { hidden_size: 16, dropout: 0., ..Config::dmn_plus(SIZES) };
    let (model, store) = build(&config, 1, DType::F32);
    assert!(accuracy(&model, &batch, &answers) < 0.8);
    train(&model, &store, (&batch, &answers), 0.02, 80);
    assert_eq!(accuracy(&model, &batch, &answers), 1.);
}

#[test]
fn bad_configs_are_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    let good = Config::dmn_plus(SIZES);
    assert!(error(Config { passes: 0, ..good.clone() }).contains("passes"));
    assert!(error(Config { dropout: 1.5, ..good.clone() }).contains("dropout"));
    assert!(error(Config { vocab_size: 1, ..good.clone() }).contains("vocab_size"));
    let text = serde_json::to_string(&good).unwrap().replacen('{', "{\"hops\":3,", 1);
    let unknown = serde_json::from_str::<Config>(&text).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `hops`"), "{unknown}");
}
