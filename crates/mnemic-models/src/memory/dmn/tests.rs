use candle_core::{Device, Var};
use mnemic_layers::ParamStore;
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::config::Sizes;
use crate::testing::{self, VOCAB, rows, stories};

const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 4, memory_size: 8 };

fn small() -> Config {
    Config { embedding_dim: 4, hidden_size: 5, dropout: 0., ..Config::dmn_supervised(SIZES) }
}

fn weak() -> Config {
    Config { passes: 2, end_of_passes: false, gate_weight: 0., ..small() }
}

fn variants() -> Vec<Config> {
    let binary = Config { gate_loss: GateLoss::Binary, end_of_sentence: false, ..small() };
    let no_end = Config { end_of_passes: false, passes: 2, ..small() };
    vec![small(), binary, no_end, weak(), Config { passes: 0, ..weak() }]
}

fn build(config: &Config, dtype: DType) -> (ParamStore, Dmn) {
    let store = ParamStore::new(2);
    let model = Dmn::new(config, store.builder(dtype, &Device::Cpu)).unwrap();
    (store, model)
}

fn set(store: &ParamStore, name: &str, values: &[f64]) {
    let var = store.get(name).unwrap();
    var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
}

/// Gates that are all `σ(bias)`.
fn constant_gates(store: &ParamStore, bias: f64) {
    set(store, "attention.w2.weight", &[0.; 5]);
    set(store, "attention.w2.bias", &[bias]);
}

fn logits(model: &Dmn, batch: &StoryBatch) -> Tensor {
    model.forward(batch, &Context::eval()).unwrap().logits
}

fn f64s(shape: &[usize], seed: f64) -> Tensor {
    waves(shape, seed, 0.8, DType::F64)
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn oracle_1_gates_of_zero_and_of_one() {
    let (store, model) = build(&weak(), DType::F64);
    let (batch, _) = stories(4, 1);
    let other = StoryBatch { question: batch.question.clone(), ..stories(4, 2).0 };
    let other = StoryBatch { question_lengths: batch.question_lengths.clone(), ..other };
    constant_gates(&store, -1e4);
    // No fact gets through: the story makes no difference.
    assert_close("logits", &logits(&model, &batch), &logits(&model, &other), 1e-12, 1e-12);
    // All gates 1: the episode is a plain GRU over the facts.
    let facts = f64s(&[2, 3, 5], 1.);
    let episodes = model.episodes.as_ref().unwrap();
    let ones = Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap();
    let e = episodes.episode.forward(&facts, &ones, Some(&[3, 2])).unwrap();
    let plain = ParamStore::new(0);
    let vb = plain.builder(DType::F64, &Device::Cpu);
    let gru = Gru::new(RecurrentConfig::new(5, 5), vb).unwrap();
    for (name, var) in plain.vars() {
        let name = format!("episode.{}", name.trim_end_matches("_l0"));
        var.set(store.get(&name).unwrap().as_tensor()).unwrap();
    }
    let expected = gru.forward(&facts, None, Some(&[3, 2]), &Context::eval()).unwrap();
    assert_close("episode", &e, &expected.state.get(0).unwrap(), 1e-12, 1e-12);
    // And with all gates 0 it is zero.
    let e = episodes.episode.forward(&facts, &ones.zeros_like().unwrap(), None).unwrap();
    assert_eq!(flat(&e), vec![0.; 10]);
}

#[test]
fn oracles_2_and_3_only_gated_facts_count() {
    let (_, model) = build(&weak(), DType::F64);
    let episode = &model.episodes.as_ref().unwrap().episode;
    let facts = f64s(&[1, 4, 5], 2.);
    let gates = Tensor::new(&[[0., 0., 1., 0.]], &Device::Cpu).unwrap();
    let e = episode.forward(&facts, &gates, None).unwrap();
    let one = Tensor::new(&[[1f64]], &Device::Cpu).unwrap();
    let alone = episode.forward(&facts.narrow(1, 2, 1).unwrap(), &one, None).unwrap();
    assert_close("one gate", &e, &alone, 1e-12, 1e-12);
    let gates = Tensor::new(&[[0.3, 0., 0.9, 0.]], &Device::Cpu).unwrap();
    let kept = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
    let fewer = episode
        .forward(
            &facts.index_select(&kept, 1).unwrap(),
            &gates.index_select(&kept, 1).unwrap(),
            None,
        )
        .unwrap();
    let all = episode.forward(&facts, &gates, None).unwrap();
    assert_close("zero gates deleted", &fewer, &all, 1e-12, 1e-12);
}

#[test]
fn oracle_4_no_pass_sees_the_question_only() {
    let (_, model) = build(&Config { passes: 0, ..weak() }, DType::F64);
    let (batch, _) = stories(4, 1);
    let other = StoryBatch {
        question: batch.question.clone(),
        question_lengths: batch.question_lengths.clone(),
        ..stories(4, 2).0
    };
    assert_close("logits", &logits(&model, &batch), &logits(&model, &other), 1e-12, 1e-12);
}

#[test]
fn oracle_5_facts_are_the_states_at_the_markers() {
    let (_, model) = build(&weak(), DType::F64);
    let story = [vec![vec![1, 5, 7], vec![2, 6]], vec![vec![3, 5]]];
    let questions = [vec![11, 1], vec![11, 3]];
    let batch = StoryBatch::from_rows(&story, &questions, vec![], &Device::Cpu).unwrap();
    let gru = &model.episodes.as_ref().unwrap().story;
    let facts = model.read_story(gru, &model.prepare(&batch).unwrap(), &Context::eval()).unwrap();
    let marker = VOCAB as u32;
    let words = Tensor::new(&[[1, 5, 7, marker, 2, 6, marker]], &Device::Cpu).unwrap();
    let words = model.embedding.forward(&words).unwrap();
    let states = gru.forward(&words, None, None, &Context::eval()).unwrap().output;
    for (fact, at) in [(0, 3), (1, 6)] {
        let expected = states.narrow(1, at, 1).unwrap();
        let found = facts.narrow(0, 0, 1).unwrap().narrow(1, fact, 1).unwrap();
        assert_close("fact", &found, &expected, 1e-12, 1e-12);
    }
    assert_eq!(flat(&facts.get(1).unwrap().get(1).unwrap()), [0.; 5]); // padding
}

#[test]
fn oracle_6_features_and_their_symmetry() {
    let (store, model) = build(&weak(), DType::F64);
    let w1 = store.get("attention.w1.weight").unwrap();
    assert_eq!(w1.dims(), [5, 7 * 5 + 2]);
    let attention = &model.episodes.as_ref().unwrap().attention;
    let (facts, q, m) = (f64s(&[2, 3, 5], 1.), f64s(&[2, 5], 2.), f64s(&[2, 5], 3.));
    let scores = |q: &Tensor, m: &Tensor| {
        attention.scores(&attention.prepare(&facts, q).unwrap(), m).unwrap()
    };
    let before = scores(&q, &m);
    // c | m q | c∘q c∘m | |c-q| |c-m| | bilinear q, m: exchange the two of each pair.
    let blocks = [(0, 5), (10, 5), (5, 5), (20, 5), (15, 5), (30, 5), (25, 5), (36, 1), (35, 1)];
    let parts: Vec<Tensor> =
        blocks.iter().map(|&(at, len)| w1.narrow(1, at, len).unwrap()).collect();
    w1.set(&Tensor::cat(&parts, 1).unwrap()).unwrap();
    assert_close("scores", &scores(&m, &q), &before, 1e-12, 1e-12);
}

#[test]
fn oracle_7_gradients_of_the_gate_losses() {
    for gate_loss in [GateLoss::Binary, GateLoss::Softmax] {
        let (_, model) = build(&Config { gate_loss, ..small() }, DType::F64);
        let scores = [[0.3f64, -0.2, 0.9, 7.], [1., 2., 3., 4.]];
        let scores = Var::new(&scores, &Device::Cpu).unwrap();
        let passes = Passes {
            memory: f64s(&[2, 5], 0.),
            scores: vec![],
            mask: length_mask(&[3, 4], 4, &Device::Cpu).unwrap(),
        };
        let loss = model.gate_loss(&scores, &[Some(1), None], &passes).unwrap();
        let grads = loss.backward().unwrap();
        let grad = grads.get(&scores).unwrap().to_vec2::<f64>().unwrap();
        let total: f64 = [0.3f64, -0.2, 0.9].iter().map(|s| s.exp()).sum();
        let gate = |s: f64| match gate_loss {
            GateLoss::Binary => 1. / (1. + (-s).exp()),
            GateLoss::Softmax => s.exp() / total,
        };
        let expected = [gate(0.3), gate(-0.2) - 1., gate(0.9), 0.];
        for (a, b) in grad[0].iter().zip(expected) {
            assert!((a - b).abs() < 1e-9, "{gate_loss:?}: {:?} and {expected:?}", grad[0]);
        }
        assert_eq!(grad[1], [0.; 4]); // no target
    }
}

#[test]
fn oracle_8_worked_scalar_episode() {
    let store = ParamStore::new(0);
    let gru = GatedGru::new(1, 1, store.builder(DType::F64, &Device::Cpu)).unwrap();
    set(&store, "weight_ih", &[0.1, 0., 0.5]); // r z n
    set(&store, "weight_hh", &[0.2, 0., 0.25]);
    set(&store, "bias_ih", &[0., -1e4, 0.]); // z = 0: always replace
    set(&store, "bias_hh", &[0.; 3]);
    let facts = Tensor::new(&[[[1f64], [-1.], [2.]]], &Device::Cpu).unwrap();
    let gates = Tensor::new(&[[0.2, 0.5, 0.3]], &Device::Cpu).unwrap();
    for (n, expected) in [(1, 0.092423), (2, -0.180467), (3, 0.099019)] {
        let h = gru.forward(&facts, &gates, Some(&[n])).unwrap();
        assert!((flat(&h)[0] - expected).abs() < 1e-6, "{n}: {h}");
    }
}

#[test]
fn oracle_9_finite_differences_through_the_passes() {
    let (mut batch, answers) = stories(3, 7);
    batch.supports = vec![vec![1, 0]; 3];
    for config in variants() {
        let (store, model) = build(&config, DType::F64);
        for (name, _) in store.vars() {
            testing::check_differences(&store, &name, 6, || {
                model.loss(&batch, &answers, &Context::eval())
            });
        }
    }
}

#[test]
fn oracle_10_learns_one_supporting_fact() {
    let config = Config { embedding_dim: 16, hidden_size: 16, passes: 2, ..small() };
    let (store, model) = build(&config, DType::F32);
    let (batch, answers) = stories(120, 11);
    testing::train(&model, &store, (&batch, &answers), 0.01, 100);
    assert!(testing::accuracy(&model, &batch, &answers) > 0.99);
    let (unseen, unseen_answers) = stories(60, 12);
    let right = testing::accuracy(&model, &unseen, &unseen_answers);
    assert!(right > 0.8, "{right}");
    // The first pass finds the fact, the second the end.
    let ctx = Context::eval().watching();
    model.forward(&batch, &ctx).unwrap();
    let trace = ctx.take_trace();
    let first = trace[0].value.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let hits = first.iter().zip(&batch.supports).filter(|(f, s)| **f as usize == s[0]).count();
    assert!(hits >= 118, "{hits}");
    let second = trace[1].value.to_dtype(DType::F64).unwrap();
    assert!(flat(&second).iter().sum::<f64>() < 3.);
}

#[test]
fn the_start_phase_trains_the_gates_alone() {
    let (batch, answers) = stories(4, 3);
    let (store, model) = build(&small(), DType::F64);
    let loss = model.loss_in(Phase::Start, &batch, &answers, &Context::eval()).unwrap();
    let grads = loss.backward().unwrap();
    assert!(grads.get(&store.get("output.weight").unwrap()).is_none());
    assert!(grads.get(&store.get("attention.w_b").unwrap()).is_some());
    let weighted = |alpha, beta| {
        let loss = model.weighted_loss(&batch, &answers, (alpha, beta), &Context::eval());
        loss.unwrap().to_scalar::<f64>().unwrap()
    };
    // On the gold chain the terms add up.
    let (gates, both) = (weighted(1., 0.), weighted(1., 1.));
    assert!((weighted(2., 3.) - 2. * gates - 3. * (both - gates)).abs() < 1e-9);
    let (_, weak) = build(&weak(), DType::F64);
    assert!(weak.loss_in(Phase::Start, &batch, &answers, &Context::eval()).is_err());
}

#[test]
fn a_gradient_reaches_every_parameter() {
    let (mut batch, answers) = stories(8, 2);
    batch.supports = vec![vec![1, 0]; 8];
    for config in variants() {
        let (store, model) = build(&config, DType::F64);
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
fn a_chain_that_the_memory_cuts_off_is_not_taken_for_its_end() {
    let story = [vec![vec![1, 5, 7], vec![2, 6, 8], vec![3, 5, 9]]];
    let batch = |s| StoryBatch::from_rows(&story, &[vec![11, 1]], vec![s], &Device::Cpu).unwrap();
    let (_, model) = build(&Config { memory_size: 2, ..small() }, DType::F64);
    let loss = |supports| {
        let loss = model.loss_in(Phase::Start, &batch(supports), &[9], &Context::eval());
        loss.unwrap().to_scalar::<f64>().unwrap()
    };
    let (cut, ended) = (loss(vec![2, 0]), loss(vec![2]));
    assert!(cut < ended && cut > 0., "{cut} and {ended}");
}

#[test]
fn decoding_feeds_words_back() {
    let (_, model) = build(&weak(), DType::F64);
    let (batch, _) = stories(3, 4);
    let ctx = Context::eval();
    let greedy = model.decode(&batch, 3, None, &ctx).unwrap();
    assert_eq!(greedy.len(), 3);
    assert_close("first step", &greedy[0], &logits(&model, &batch), 1e-12, 1e-12);
    let best = |t: &Tensor| t.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let said: Vec<Vec<u32>> =
        best(&greedy[0]).iter().zip(best(&greedy[1])).map(|(a, b)| vec![*a, b]).collect();
    let taught = model.decode(&batch, 3, Some(&said), &ctx).unwrap();
    assert_close("own words", &taught[2], &greedy[2], 1e-12, 1e-12);
    let others = vec![vec![1, 2]; 3];
    let taught = model.decode(&batch, 3, Some(&others), &ctx).unwrap();
    assert_close("first step", &taught[0], &greedy[0], 1e-12, 1e-12);
    assert_ne!(flat(&taught[1]), flat(&greedy[1]));
    assert!(model.decode(&batch, 3, Some(&others[..1]), &ctx).is_err());
    assert!(model.decode(&batch, 2, Some(&vec![vec![99]; 3]), &ctx).is_err());
}

#[test]
fn seeds_give_the_same_bits() {
    testing::check_seeds(|seed| {
        let store = ParamStore::new(seed);
        let config = Config { dropout: 0.2, ..small() };
        let model = Dmn::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
        let (batch, answers) = stories(4, 1);
        testing::train(&model, &store, (&batch, &answers), 0.01, 2);
        logits(&model, &batch)
    });
}

#[test]
fn memorises_stories_without_supports() {
    let config = Config { embedding_dim: 16, hidden_size: 16, ..weak() };
    let (store, model) = build(&config, DType::F32);
    let (mut batch, answers) = stories(20, 11);
    batch.supports.clear();
    testing::train(&model, &store, (&batch, &answers), 0.02, 80);
    assert_eq!(testing::accuracy(&model, &batch, &answers), 1.);
}

#[test]
fn wrong_input_is_named() {
    let (batch, answers) = stories(2, 1);
    let (_, model) = build(&small(), DType::F32);
    let error = |batch: &StoryBatch, answers: &[u32]| {
        model.loss(batch, answers, &Context::eval()).unwrap_err().to_string()
    };
    assert!(error(&batch, &answers[..1]).contains("2 rows but 1 answers"));
    let unknown = StoryBatch { supports: vec![], ..rows(&batch, 0..2) };
    assert!(error(&unknown, &answers).contains("needs the supports"));
    assert!(Config { gate_weight: 0., ..small() }.validate().is_err());
    assert!(Config { passes: 0, ..small() }.validate().is_err());
    for name in Config::PRESETS {
        Config::preset(name, SIZES).unwrap().validate().unwrap();
    }
}
