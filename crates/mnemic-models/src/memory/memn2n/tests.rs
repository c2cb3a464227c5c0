use candle_core::{DType, Device, Var};
use candle_nn::VarBuilder;
use mnemic_layers::ParamStore;
use mnemic_testing::assert_close;

use super::*;
use crate::config::Sizes;
use crate::testing::{self, VOCAB, rows, stories};

const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 4, memory_size: 8 };

fn small() -> Config {
    Config { embedding_dim: 5, init_std: 0.3, ..Config::pe_ls_rn(SIZES) }
}

fn build(config: &Config, dtype: DType) -> (ParamStore, MemN2N) {
    let store = ParamStore::new(2);
    let model = MemN2N::new(config, store.builder(dtype, &Device::Cpu)).unwrap();
    (store, model)
}

fn variants() -> Vec<Config> {
    let lw = Config { tying: Tying::LayerWise, relu: true, ..small() };
    let bow = Config { encoding: Encoding::BagOfWords, mask_empty: true, ..small() };
    let plain =
        Config { temporal: false, temporal_noise: 0., encoding: Encoding::Position, ..small() };
    vec![small(), lw, bow, plain]
}

/// A model of d = 2 whose words have given vectors in every table; one hop.
fn with_words(config: &Config, tables: &[Vec<f64>]) -> MemN2N {
    let (store, model) = build(config, DType::F64);
    for (k, values) in tables.iter().enumerate() {
        let var = store.get(&format!("words.{k}.weight")).unwrap();
        var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    model
}

fn plain_hop(mask_empty: bool, memory_size: usize) -> Config {
    Config {
        embedding_dim: 2,
        hops: 1,
        temporal: false,
        temporal_noise: 0.,
        encoding: Encoding::BagOfWords,
        mask_empty,
        ..Config::bow(Sizes { vocab_size: 5, sentence_len: 1, memory_size })
    }
}

/// Words 1-3 are the memories of oracle 2, word 4 the question.
fn oracle_tables() -> [Vec<f64>; 2] {
    let a = vec![0., 0., 1., 0., 0., 1., 1., 1., 1., 0.5];
    let c = vec![0., 0., 2., 0., 0., 2., 1., -1., 0., 0.];
    [a, c]
}

fn attention(model: &MemN2N, batch: &StoryBatch, linear: bool) -> (Vec<f64>, StoryOutput) {
    let ctx = Context::eval().watching();
    let out = model.forward_with(batch, &ctx, linear).unwrap();
    let p = ctx.take_trace()[0].value.clone();
    (p.flatten_all().unwrap().to_vec1().unwrap(), out)
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{found:?} and {expected:?}");
    }
}

#[test]
fn oracle_1_order_matters_only_where_it_should() {
    let logits = |config: &Config, story: &[Vec<u32>]| {
        let (_, model) = build(config, DType::F64);
        let batch =
            StoryBatch::from_rows(&[story.to_vec()], &[vec![11, 1]], vec![], &Device::Cpu).unwrap();
        model.forward(&batch, &Context::eval()).unwrap().logits.flatten_all().unwrap()
    };
    let differ = |a: &Tensor, b: &Tensor| {
        let (a, b) = (a.to_vec1::<f64>().unwrap(), b.to_vec1::<f64>().unwrap());
        a.iter().zip(&b).any(|(x, y)| (x - y).abs() > 1e-6)
    };
    let story = [vec![1, 5, 7], vec![2, 6, 8], vec![3, 5, 9]];
    let shuffled = [story[2].clone(), story[0].clone(), story[1].clone()];
    let words = [vec![7, 5, 1], story[1].clone(), story[2].clone()];
    let bow =
        Config { encoding: Encoding::BagOfWords, temporal: false, temporal_noise: 0., ..small() };
    assert_close("sentences", &logits(&bow, &story), &logits(&bow, &shuffled), 1e-12, 1e-12);
    assert_close("words", &logits(&bow, &story), &logits(&bow, &words), 1e-12, 1e-12);
    let pe = Config { encoding: Encoding::Position, ..bow.clone() };
    assert_close("sentences", &logits(&pe, &story), &logits(&pe, &shuffled), 1e-12, 1e-12);
    assert!(differ(&logits(&pe, &story), &logits(&pe, &words)));
    let temporal = Config { temporal: true, ..bow };
    assert!(differ(&logits(&temporal, &story), &logits(&temporal, &shuffled)));
}

#[test]
fn oracle_2_one_hop_by_hand() {
    let config = plain_hop(true, 3);
    let model = with_words(&config, &oracle_tables());
    let story = [vec![vec![1], vec![2], vec![3]]];
    let batch = StoryBatch::from_rows(&story, &[vec![4]], vec![], &Device::Cpu).unwrap();
    let (p, out) = attention(&model, &batch, false);
    near(&p, &[0.307196, 0.186324, 0.506480]);
    // W = C: the logit of word 1 is 2 u_x, that of word 2 is 2 u_y, with u = question + o.
    let logits = out.logits.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    near(&[logits[1] / 2. - 1., logits[2] / 2. - 0.5], &[1.120872, -0.133833]);
    let (p, out) = attention(&model, &batch, true);
    near(&p, &[1., 0.5, 1.5]);
    let logits = out.logits.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    near(&[logits[1] / 2. - 1., logits[2] / 2. - 0.5], &[3.5, -0.5]);
}

#[test]
fn oracle_3_presets_use_the_position_encodings() {
    let weights = |encoding| {
        let config = Config {
            encoding,
            embedding_dim: 4,
            ..Config::bow(Sizes { sentence_len: 3, ..SIZES })
        };
        let (_, model) = build(&config, DType::F64);
        model.position.unwrap().to_vec2::<f64>().unwrap()
    };
    near(&weights(Encoding::Position)[0], &[0.583333, 0.5, 0.416667, 0.333333]);
    near(&weights(Encoding::PositionCode)[0], &[1.5, 7. / 6., 5. / 6., 0.5]);
    near(&weights(Encoding::PositionCode)[1], &[1.; 4]);
    assert_eq!(Config::pe(SIZES).encoding, Encoding::PositionCode);
}

#[test]
fn oracle_4_tying() {
    let (store, model) = build(&small(), DType::F32);
    let names: Vec<String> = store.vars().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|n| n.starts_with("words.")).count(), small().hops + 1);
    testing::train(&model, &store, (&stories(3, 1).0, &stories(3, 1).1), 0.01, 1);
    // B is table 0 and W the last table, also after a step.
    let last = store.get(&format!("words.{}.weight", small().hops)).unwrap();
    assert_eq!(model.answer.id(), last.as_tensor().id());
    assert_eq!(model.question.weight().id(), store.get("words.0.weight").unwrap().as_tensor().id());
    assert_close("W", &model.answer, last.as_tensor(), 0., 0.);
}

#[test]
fn oracle_4_layer_wise_with_identity_equals_untied_copies() {
    let lw = Config { tying: Tying::LayerWise, temporal_noise: 0., ..small() };
    let (lw_store, lw_model) = build(&lw, DType::F64);
    let identity = Tensor::eye(5, DType::F64, &Device::Cpu).unwrap();
    lw_store.get("h.weight").unwrap().set(&identity).unwrap();
    let (a, c) = (lw_store.get("a.weight").unwrap(), lw_store.get("c.weight").unwrap());
    // Adjacent tying reads A^1 C^1, C^1 C^2: with A = C = B = W all tables are copies of one.
    c.set(a.as_tensor()).unwrap();
    lw_store
        .get("temporal_c")
        .unwrap()
        .set(lw_store.get("temporal_a").unwrap().as_tensor())
        .unwrap();
    for name in ["b.weight", "w.weight"] {
        lw_store.get(name).unwrap().set(a.as_tensor()).unwrap();
    }
    let (store, model) = build(&Config { tying: Tying::Adjacent, ..lw }, DType::F64);
    let time = lw_store.get("temporal_a").unwrap();
    for (name, var) in store.vars() {
        let source = if name.starts_with("words") { &a } else { &time };
        var.set(source.as_tensor()).unwrap();
    }
    let batch = stories(4, 1).0;
    let run = |m: &MemN2N| m.forward(&batch, &Context::eval()).unwrap().logits;
    assert_close("logits", &run(&lw_model), &run(&model), 1e-12, 1e-12);
}

#[test]
fn oracle_5_single_and_empty_memories() {
    let batch = StoryBatch::from_rows(&[vec![vec![3]]], &[vec![4]], vec![], &Device::Cpu).unwrap();
    let p = |mask, size| {
        let model = with_words(&plain_hop(mask, size), &oracle_tables());
        attention(&model, &batch, false).0
    };
    near(&p(false, 1), &[1.]);
    let z = 1.5f64.exp();
    near(&p(false, 2), &[z / (z + 1.)]);
    near(&p(false, 7), &[z / (z + 6.)]);
    near(&p(true, 7), &[1.]);
}

#[test]
fn oracle_6_linear_start_is_linear_in_the_memories() {
    // Doubling A, which holds memories and question, multiplies p by 4 without the softmax.
    let [a, c] = oracle_tables();
    let doubled = a.iter().map(|v| 2. * v).collect::<Vec<_>>();
    let story = [vec![vec![1], vec![2], vec![3]]];
    let batch = StoryBatch::from_rows(&story, &[vec![4]], vec![], &Device::Cpu).unwrap();
    let p =
        |a: Vec<f64>| attention(&with_words(&plain_hop(true, 3), &[a, c.clone()]), &batch, true).0;
    let (once, twice) = (p(a.clone()), p(doubled));
    near(&twice, &once.iter().map(|v| 4. * v).collect::<Vec<_>>());
}

#[test]
fn oracle_6_noise_draws_sorted_ages_in_training_only() {
    let config = Config { temporal_noise: 0.5, memory_size: 12, ..small() };
    let (_, model) = build(&config, DType::F32);
    let plain = model.ages(&[3, 0, 8], 8, &Context::eval());
    assert_eq!(plain[..3], [2, 1, 0]);
    assert_eq!(plain[16..], [7, 6, 5, 4, 3, 2, 1, 0]);
    let (quiet_store, quiet) = build(&Config { temporal_noise: 0., ..config.clone() }, DType::F32);
    assert_eq!(quiet.ages(&[3, 0, 8], 8, &Context::train(1, 1)), plain);
    assert!(quiet_store.num_parameters() > 0);
    let mut seen_gap = false;
    let mut largest = 0;
    for step in 0..200 {
        let ages = model.ages(&[3, 0, 8], 8, &Context::train(1, step));
        assert_eq!(ages, model.ages(&[3, 0, 8], 8, &Context::train(1, step)));
        assert!(ages[16..].windows(2).all(|w| w[0] > w[1]), "{ages:?}");
        assert!(ages[..3].windows(2).all(|w| w[0] > w[1]) && ages[0] <= 4, "{ages:?}");
        seen_gap |= ages != plain;
        largest = largest.max(ages[16]);
    }
    assert!(seen_gap);
    assert_eq!(largest, 11); // 8 sentences and up to 4 blanks
}

#[test]
fn oracle_6_finite_differences_on_all_tables() {
    let (batch, answers) = stories(3, 7);
    for config in variants() {
        let (store, model) = build(&config, DType::F64);
        for phase in [Phase::Main, Phase::Start] {
            for (name, _) in store.vars() {
                testing::check_differences(&store, &name, 12, || {
                    model.loss_in(phase, &batch, &answers, &Context::train(3, 1))
                });
            }
        }
    }
}

#[test]
fn a_gradient_reaches_every_parameter() {
    let (batch, answers) = stories(6, 2);
    for config in variants() {
        let (store, model) = build(&config, DType::F32);
        let loss = model.loss(&batch, &answers, &Context::train(0, 0)).unwrap();
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
fn long_stories_keep_the_most_recent_sentences() {
    let config = Config { memory_size: 2, ..small() };
    let (_, model) = build(&config, DType::F64);
    let (batch, _) = stories(4, 5);
    let ctx = Context::eval().watching();
    let logits = model.forward(&batch, &ctx).unwrap().logits;
    assert_eq!(ctx.take_trace()[0].value.dims(), [4, 2]);
    let row = batch.story_lengths.iter().position(|&l| l > 2).unwrap();
    let one = rows(&batch, row..row + 1);
    let words = one.story.squeeze(0).unwrap().to_vec2::<u32>().unwrap();
    let first = one.story_lengths[0] - 2;
    let kept = (first..first + 2)
        .map(|i| words[i][..one.sentence_lengths[i]].to_vec())
        .collect::<Vec<_>>();
    let question = one.question.to_vec2::<u32>().unwrap()[0][..one.question_lengths[0]].to_vec();
    let short = StoryBatch::from_rows(&[kept], &[question], vec![], &Device::Cpu).unwrap();
    let again = model.forward(&short, &Context::eval()).unwrap().logits;
    assert_close("logits", &again, &logits.narrow(0, row, 1).unwrap(), 1e-12, 1e-12);
}

#[test]
fn null_rows_start_at_zero_and_exist() {
    for config in variants() {
        let (store, model) = build(&config, DType::F32);
        for name in model.null_rows() {
            let row = store.get(&name).unwrap().as_tensor().get(0).unwrap();
            assert_eq!(row.to_vec1::<f32>().unwrap(), vec![0.; 5], "{name}");
        }
    }
}

#[test]
fn seeds_give_the_same_bits() {
    testing::check_seeds(|seed| {
        let store = ParamStore::new(seed);
        let model = MemN2N::new(&small(), store.builder(DType::F32, &Device::Cpu)).unwrap();
        let (batch, answers) = stories(4, 1);
        testing::train(&model, &store, (&batch, &answers), 0.01, 2);
        model.forward(&batch, &Context::eval()).unwrap().logits
    });
}

#[test]
fn memorises_twenty_stories() {
    let config = Config { embedding_dim: 20, ..Config::pe(SIZES) };
    let (store, model) = build(&config, DType::F32);
    let (batch, answers) = stories(20, 11);
    assert!(testing::accuracy(&model, &batch, &answers) < 0.6);
    testing::train(&model, &store, (&batch, &answers), 0.02, 150);
    assert_eq!(testing::accuracy(&model, &batch, &answers), 1.);
}

#[test]
fn wrong_configs_are_named() {
    let message = |config: Config| {
        let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
        MemN2N::new(&config, vb).unwrap_err().to_string()
    };
    assert!(message(Config { hops: 0, ..small() }).contains("hops must be positive"));
    assert!(message(Config { temporal_noise: 2., ..small() }).contains("temporal_noise"));
    assert!(message(Config { temporal: false, ..small() }).contains("needs temporal"));
    assert!(message(Config { vocab_size: 1, ..small() }).contains("vocab_size"));
    let (_, model) = build(&Config { linear_start: false, ..small() }, DType::F32);
    let (batch, answers) = stories(2, 1);
    let ctx = Context::eval();
    assert!(model.loss_in(Phase::Start, &batch, &answers, &ctx).is_err());
    assert!(model.loss(&batch, &answers[..1], &ctx).is_err());
    assert!(model.loss(&batch, &[99, 1], &ctx).unwrap_err().to_string().contains("99"));
}

#[test]
fn presets_are_all_known() {
    for name in Config::PRESETS {
        Config::preset(name, SIZES).unwrap().validate().unwrap();
    }
    assert!(Config::preset("pe_rn", SIZES).is_none());
    let var: Option<Var> = build(&Config::pe_ls_lw_joint(SIZES), DType::F32).0.get("h.weight");
    assert_eq!(var.unwrap().dims(), [50, 50]);
}
