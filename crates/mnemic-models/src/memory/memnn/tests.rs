use candle_core::{DType, Device, Var};
use mnemic_layers::ParamStore;
use mnemic_layers::losses::{Reduction, margin_ranking};
use mnemic_testing::assert_close;

use super::*;
use crate::config::Sizes;
use crate::story::support_accuracy;
use crate::testing::{self, VOCAB, stories};

const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 4, memory_size: 8 };

fn small() -> Config {
    Config { embedding_dim: 6, hops: 1, init_std: 0.3, ..Config::memnn(SIZES) }
}

fn variants() -> Vec<Config> {
    let small_of = |config: Config| Config { embedding_dim: 6, init_std: 0.3, ..config };
    let buckets = |config: Config| Config { ngram_buckets: 13, ..small_of(config) };
    vec![
        small(),
        Config { temporal: false, hops: 2, ..small() },
        small_of(Config::am(SIZES)),
        small_of(Config::am_nl(SIZES)),
        buckets(Config::am_ng(SIZES)),
        buckets(Config::am_ng_nl(SIZES)),
    ]
}

fn build(config: &Config, dtype: DType) -> (ParamStore, MemNN) {
    let store = ParamStore::new(2);
    let model = MemNN::new(config, store.builder(dtype, &Device::Cpu)).unwrap();
    (store, model)
}

fn set(store: &ParamStore, name: &str, values: &[f64]) {
    let var: Var = store.get(name).unwrap();
    var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
}

/// Words a = 1 and b = 2, every block of U_O the identity; the null word is a row of zeros.
fn identity(config: Config) -> (ParamStore, MemNN) {
    let config = Config { vocab_size: 3, embedding_dim: 2, ..config };
    let (store, model) = build(&config, DType::F64);
    for block in ["question", "support", "candidate"] {
        let name = format!("u_o.{block}.weight");
        if store.get(&name).is_some() {
            set(&store, &name, &[0., 0., 1., 0., 0., 1.]);
        }
    }
    (store, model)
}

/// Memories "a", "b", "a b", question "a".
fn letters() -> StoryBatch {
    let story = [vec![vec![1], vec![2], vec![1, 2]]];
    StoryBatch::from_rows(&story, &[vec![1]], vec![vec![2]], &Device::Cpu).unwrap()
}

fn gates(model: &MemNN, batch: &StoryBatch) -> (Vec<Vec<f64>>, StoryOutput) {
    let out = model.forward(batch, &Context::eval()).unwrap();
    let rows = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    (out.gate_scores.iter().map(rows).collect(), out)
}

#[test]
fn oracle_1_order_matters_with_time_features_only() {
    let said = |config: &Config, order: [usize; 3]| {
        let story = [vec![1, 5, 7], vec![1, 5, 8], vec![2, 6, 9]];
        let story = order.map(|i| story[i].clone()).to_vec();
        let (_, model) = build(config, DType::F64);
        let batch = StoryBatch::from_rows(&[story], &[vec![11, 1]], vec![], &Device::Cpu).unwrap();
        let (_, out) = gates(&model, &batch);
        (order[out.retrieved[0][0]], out.logits)
    };
    let plain = Config { temporal: false, ..small() };
    let (first, logits) = said(&plain, [0, 1, 2]);
    for order in [[1, 0, 2], [2, 1, 0], [1, 2, 0]] {
        let (again, shuffled) = said(&plain, order);
        assert_eq!(again, first);
        assert_close("logits", &shuffled, &logits, 1e-12, 1e-12);
    }
    // Two candidates of the same match: the newer one wins, whichever it is.
    let (store, model) = identity(small());
    set(&store, "u_o.newer", &[0.01, 0.01]);
    let winner = |story: Vec<Vec<u32>>| {
        let batch = StoryBatch::from_rows(&[story], &[vec![1]], vec![], &Device::Cpu).unwrap();
        gates(&model, &batch).1.retrieved[0][0]
    };
    assert_eq!(winner(vec![vec![1], vec![1, 2], vec![2]]), 1);
    assert_eq!(winner(vec![vec![1, 2], vec![1], vec![2]]), 1);
}

#[test]
fn oracle_2_match_equals_the_explicit_bilinear_form() {
    let config = Config { hops: 2, temporal: false, ..small() };
    let (store, model) = build(&config, DType::F64);
    let (batch, _) = stories(1, 4);
    let (scores, out) = gates(&model, &batch);
    // U as one (3|W|, n) matrix with one-hot bags.
    let blocks = ["question", "support", "candidate"]
        .map(|b| store.get(&format!("u_o.{b}.weight")).unwrap().as_tensor().clone());
    let u = Tensor::cat(&blocks, 0).unwrap();
    let form = u.matmul(&u.t().unwrap()).unwrap();
    let bag = |words: &[u32], block: usize| {
        let mut phi = vec![0f64; 3 * VOCAB];
        words.iter().filter(|&&w| w > 0).for_each(|&w| phi[block * VOCAB + w as usize] += 1.);
        Tensor::from_vec(phi, (1, 3 * VOCAB), &Device::Cpu).unwrap()
    };
    let story = batch.story.squeeze(0).unwrap().to_vec2::<u32>().unwrap();
    let question = batch.question.to_vec2::<u32>().unwrap()[0].clone();
    let mut x = bag(&question, 0);
    for (hop, scores) in scores.iter().enumerate() {
        for (sentence, score) in story.iter().zip(scores) {
            let s = x.matmul(&form).unwrap().matmul(&bag(sentence, 2).t().unwrap()).unwrap();
            let s = s.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
            assert!((s - score).abs() < 1e-12, "hop {hop}: {s} and {score}");
        }
        x = (x + bag(&story[out.retrieved[0][hop]], 1)).unwrap();
    }
}

#[test]
fn oracle_3_antisymmetry_up_to_the_order_feature() {
    // s(y, y') + s(y', y) = τ in one order and in the other: exactly one of the two is newer.
    let (store, model) = build(&small(), DType::F64);
    let (batch, _) = stories(2, 9);
    let read = model.read(&batch).unwrap();
    let (a, tau) = model.scores(&read, &read.question, &[None; 2]).unwrap();
    let (a, tau) = (a.to_vec2::<f64>().unwrap(), tau.unwrap().to_vec1::<f64>().unwrap());
    let s =
        |row: usize, y: usize, z: usize| a[row][y] - a[row][z] + if y > z { tau[row] } else { 0. };
    for (row, &tau) in tau.iter().enumerate() {
        assert!((s(row, 0, 1) + s(row, 1, 0) - tau).abs() < 1e-12 && tau != 0.);
    }
    set(&store, "u_o.newer", &[0.; 6]);
    let (_, tau) = model.scores(&read, &read.question, &[None; 2]).unwrap();
    assert_eq!(tau.unwrap().to_vec1::<f64>().unwrap(), [0., 0.]);
}

#[test]
fn oracle_4_tournament() {
    assert_eq!(tournament(&[0.3, 0.9, 0.1, 0.8], 0.), Some(1));
    assert_eq!(tournament(&[0.3, 0.9, 0.1, 0.8], 5.), Some(3));
    assert_eq!(tournament(&[0.3, 0.9, 0.1, 0.8], 0.2), Some(3));
    assert_eq!(tournament(&[0.3, 0.9, 0.1, 0.8], 0.05), Some(1));
    assert_eq!(tournament(&[0.5, 0.5], 0.), Some(0));
    assert_eq!(tournament(&[], 1.), None);
}

#[test]
fn oracle_5_worked_example() {
    let (store, model) = identity(Config { hops: 2, ..small() });
    set(&store, "u_o.newer", &[1., 0.]); // the newer of "a" and "a b" wins the tie
    let (scores, out) = gates(&model, &letters());
    assert_eq!(scores[0], [1., 0., 1.]);
    assert_eq!(scores[1], [2., 1., 3.]);
    assert_eq!(out.retrieved, [[2, 2]]);
}

#[test]
fn a_later_hop_knows_what_was_written_after_its_support() {
    let (store, model) = identity(Config { hops: 2, ..small() });
    set(&store, "u_o.newer", &[-10., 0.]); // the older of "a" and "a b" wins, x becomes (2, 0)
    for (after, second) in [(0., [2., 0., 2.]), (1., [2., 2., 4.])] {
        set(&store, "u_o.after", &[after, 0.]);
        let (scores, out) = gates(&model, &letters());
        assert_eq!(
            (scores[0].as_slice(), scores[1].as_slice()),
            ([1., 0., 1.].as_slice(), second.as_slice())
        );
        assert_eq!(out.retrieved, [[0, 0]]);
    }
}

#[test]
fn oracle_6_hinge() {
    let loss = |gold: f64, negative: f64| {
        let (g, f) = (
            Var::new(&[gold], &Device::Cpu).unwrap(),
            Var::new(&[negative], &Device::Cpu).unwrap(),
        );
        let loss = margin_ranking(&g, &f, 0.1, Reduction::Sum).unwrap();
        let grads = loss.backward().unwrap();
        let grad = |v: &Var| grads.get(v).unwrap().to_vec1::<f64>().unwrap()[0];
        (loss.to_scalar::<f64>().unwrap(), grad(&g), grad(&f))
    };
    let (value, gold, negative) = loss(0.30, 0.25);
    assert!((value - 0.05).abs() < 1e-12);
    assert_eq!((gold, negative), (-1., 1.));
    assert_eq!(loss(0.5, 0.25), (0., 0., 0.));
}

#[test]
fn the_loss_by_hand() {
    // One hop, gold "a b" (2) against "a" (0) and "b" (1), no time: scores 1, 0 and 1, margin 0.1;
    // mean over negatives.
    let (store, model) = identity(Config { temporal: false, ..small() });
    for block in ["question", "support", "candidate"] {
        set(&store, &format!("u_r.{block}.weight"), &[0., 0., 1., 0., 0., 1.]);
    }
    let retrieval = (0.1 + 0.) / 2.;
    // Response to "a" with support "a b": (2, 1). Answer a: null 0 and b 1 are wrong, both below by
    // more than 0.1. Answer b: null 0 is fine, a is above by 1.
    let loss = |answer| {
        let loss = model.loss(&letters(), &[answer], &Context::eval()).unwrap();
        loss.to_scalar::<f64>().unwrap()
    };
    assert!((loss(1) - retrieval).abs() < 1e-12);
    assert!((loss(2) - retrieval - (0. + 1.1) / 2.).abs() < 1e-12);
}

#[test]
fn sampled_negatives_average_to_the_evaluation_loss() {
    for config in variants() {
        let (_, model) = build(&config, DType::F64);
        let (batch, answers) = stories(4, 3);
        let value =
            |ctx: Context| model.loss(&batch, &answers, &ctx).unwrap().to_scalar::<f64>().unwrap();
        let mean = (0..1500).map(|k| value(Context::train(7, k))).sum::<f64>() / 1500.;
        let all = value(Context::eval());
        assert!((mean - all).abs() < 0.05 * all, "{mean} and {all}");
    }
}

#[test]
fn oracle_7_finite_differences_through_the_hinges() {
    let (mut batch, answers) = stories(3, 7);
    batch.supports = vec![vec![1, 0]; 3];
    for config in variants() {
        let (store, model) = build(&config, DType::F64);
        for (name, _) in store.vars() {
            testing::check_differences(&store, &name, 25, || {
                model.loss(&batch, &answers, &Context::eval())
            });
        }
    }
}

#[test]
fn a_gradient_reaches_every_parameter() {
    let (mut batch, answers) = stories(8, 2);
    batch.supports = vec![vec![1, 0]; 8];
    for config in variants() {
        let (store, model) = build(&config, DType::F32);
        let loss = model.loss(&batch, &answers, &Context::eval()).unwrap();
        assert_eq!(testing::without_gradient(&store, &loss), Vec::<String>::new());
        assert_eq!(config.num_parameters(), store.num_parameters() as u128);
    }
}

#[test]
fn padding_changes_nothing() {
    for config in variants() {
        let (_, model) = build(&config, DType::F64);
        testing::check_padding(&model);
        testing::check_empty_story(&model);
    }
}

#[test]
fn indices_are_those_of_the_whole_story() {
    let (_, model) = identity(Config { memory_size: 2, temporal: false, ..small() });
    let (_, out) = gates(&model, &letters());
    assert_eq!(out.retrieved, [[2]]); // "a" is forgotten, "a b" is the best of the rest
}

#[test]
fn the_stop_memory_ends_the_hops() {
    let (store, model) = identity(Config::am(SIZES));
    set(&store, "u_o.newer", &[0.01, 0.]); // "a b" wins the tie with "a"
    set(&store, "u_o.stop", &[-9., -9.]);
    let (_, out) = gates(&model, &letters());
    assert_eq!(out.retrieved[0].len(), 10);
    // Against (1, 0) the stop memory has 0.5, less than 1; against (2, 1) it has 6, more than 3.
    set(&store, "u_o.stop", &[0.5, 5.]);
    let ctx = Context::eval().watching();
    let out = model.forward(&letters(), &ctx).unwrap();
    assert_eq!(out.retrieved, [[2]]);
    let trace = ctx.take_trace();
    assert_eq!(trace.len(), 1);
    assert_eq!(trace[0].value.to_vec2::<f32>().unwrap(), [[0., 0., 1.]]);
}

#[test]
fn seeds_give_the_same_bits() {
    testing::check_seeds(|seed| {
        let store = ParamStore::new(seed);
        let model = MemNN::new(&small(), store.builder(DType::F32, &Device::Cpu)).unwrap();
        let (batch, answers) = stories(4, 1);
        testing::train(&model, &store, (&batch, &answers), 0.01, 2);
        model.forward(&batch, &Context::eval()).unwrap().logits
    });
}

#[test]
fn oracle_8_learns_one_supporting_fact() {
    for config in [Config { hops: 1, ..Config::memnn(SIZES) }, Config::am_ng_nl(SIZES)] {
        let config =
            Config { embedding_dim: 20, ngram_buckets: config.ngram_buckets / 32, ..config };
        let (store, model) = build(&config, DType::F32);
        let (batch, answers) = stories(120, 11);
        testing::train(&model, &store, (&batch, &answers), 0.02, 200);
        let (unseen, unseen_answers) = stories(60, 12);
        assert!(testing::accuracy(&model, &batch, &answers) > 0.99);
        assert!(testing::accuracy(&model, &unseen, &unseen_answers) > 0.9);
        let out = model.forward(&batch, &Context::eval()).unwrap();
        let (right, all) = support_accuracy(&out.retrieved, &batch.supports);
        assert!(all == 120 && right >= 119, "{right} of {all}");
    }
}

#[test]
fn wrong_input_is_named() {
    let (_, model) = build(&small(), DType::F32);
    let (mut batch, answers) = stories(2, 1);
    let error = |batch: &StoryBatch, answers: &[u32]| {
        model.loss(batch, answers, &Context::eval()).unwrap_err().to_string()
    };
    assert!(error(&batch, &answers[..1]).contains("2 rows but 1 answers"));
    assert!(error(&batch, &[1, 99]).contains("answer 99"));
    batch.supports.clear();
    assert!(error(&batch, &answers).contains("needs the supports"));
    let bad = Config { ngrams: 2, ..small() }.validate().unwrap_err().to_string();
    assert!(bad.contains("ngram_buckets"));
    for name in Config::PRESETS {
        Config::preset(name, SIZES).unwrap().validate().unwrap();
    }
}
