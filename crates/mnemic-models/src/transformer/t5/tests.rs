use candle_core::{DType, Device};
use mnemic_layers::ParamStore;
use mnemic_testing::assert_close;

use super::*;
use crate::Padding;
use crate::transformer::testing::{check_round_trip, check_seq2seq, fixture};

fn check(test: &str, name: &str) {
    let Some(fixture) = fixture(test, name) else { return };
    let loaded = fixture.load::<T5ForConditionalGeneration>();
    let forward = |s: &TextBatch, t: &TextBatch, ctx: &Context| loaded.model.forward(s, t, ctx);
    let encode = |s: &TextBatch, ctx: &Context| loaded.model.encode(s, ctx);
    check_seq2seq(&fixture, &loaded, forward, encode);
    check_round_trip::<T5ForConditionalGeneration>(&fixture);
    let source = fixture.batch();
    let alone = fixture.load::<T5EncoderModel>();
    let encoded = alone.model.forward(&source, &Context::eval()).unwrap();
    fixture.close_at_tokens("encoder_last_hidden_state", &encoded, 1, source.attention_mask());
    assert!(alone.left.iter().all(|name| name.starts_with("decoder.") || name == "lm_head.weight"));
}

#[test]
fn version_1_0_as_transformers_has_it() {
    check("t5::version_1_0_as_transformers_has_it", "t5");
}

#[test]
fn version_1_1_as_transformers_has_it() {
    check("t5::version_1_1_as_transformers_has_it", "t5-gated");
}

fn small() -> Config {
    Config {
        vocab_size: 20,
        d_model: 16,
        d_kv: 6,
        d_ff: 24,
        num_layers: 2,
        num_heads: 3,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 10,
        ..Config::small_v1_1()
    }
}

#[test]
fn padding_on_the_left_changes_nothing() {
    let store = ParamStore::new(3);
    let vb = store.builder(DType::F64, &Device::Cpu);
    let model = T5ForConditionalGeneration::new(&small(), vb).unwrap();
    let ctx = Context::eval();
    let rows = [vec![4, 7, 9, 12, 3, 1], vec![5, 1]];
    let batch = |side| TextBatch::from_rows(&rows, 0, side, &Device::Cpu).unwrap();
    let targets = [vec![0, 8, 4], vec![0, 5, 7]];
    let target = TextBatch::from_rows(&targets, 0, Padding::Right, &Device::Cpu).unwrap();
    let right = model.forward(&batch(Padding::Right), &target, &ctx).unwrap();
    let left = model.forward(&batch(Padding::Left), &target, &ctx).unwrap();
    assert_close("scores", &left, &right, 1e-12, 1e-12);
}

#[test]
fn parameters_are_as_many_as_published() {
    let count = |config: &Config| {
        let store = ParamStore::new(0);
        T5ForConditionalGeneration::new(config, store.builder(DType::F32, &Device::Cpu)).unwrap();
        store.num_parameters()
    };
    assert_eq!(count(&Config::small()), 60_506_624);
}

#[test]
fn copies_and_unread_tables_are_left() {
    let place = |config: &Config, name: &str| T5ForConditionalGeneration::place(config, name);
    assert_eq!(place(&Config::small(), "lm_head.weight"), Place::Nowhere);
    let own = Place::As("lm_head.weight".into());
    assert_eq!(place(&Config::small_v1_1(), "lm_head.weight"), own);
    assert_eq!(place(&Config::small(), "decoder.embed_tokens.weight"), Place::Nowhere);
    assert_eq!(place(&Config::small(), UNUSED), Place::Nowhere);
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { relative_attention_num_buckets: 3, ..small() }).contains("buckets"));
    assert!(error(Config { relative_attention_max_distance: 1, ..small() }).contains("distance"));
    assert!(error(Config { d_kv: 0, ..small() }).contains("d_kv"));
    assert!(error(Config { dropout_rate: 2., ..small() }).contains("dropout_rate"));
    let huge = Config { d_kv: 1 << 31, num_heads: 1 << 31, ..small() };
    assert!(error(huge).contains("d_kv times num_heads"));
}
