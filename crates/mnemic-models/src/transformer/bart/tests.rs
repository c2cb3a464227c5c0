use super::*;
use crate::transformer::testing::{Fixture, check_round_trip, check_seq2seq, fixture};
use crate::{Context, Pretrained, TextBatch};

fn loaded(test: &str) -> Option<(Fixture, Pretrained<BartForConditionalGeneration>)> {
    let fixture = fixture(test, "bart-generation")?;
    let loaded = fixture.load();
    Some((fixture, loaded))
}

#[test]
fn scores_attention_and_gradients_as_transformers_has_them() {
    let Some((fixture, loaded)) = loaded("bart::scores_attention_and_gradients") else { return };
    let forward = |s: &TextBatch, t: &TextBatch, ctx: &Context| loaded.model.forward(s, t, ctx);
    let encode = |s: &TextBatch, ctx: &Context| loaded.model.encode(s, ctx);
    check_seq2seq(&fixture, &loaded, forward, encode);
    check_round_trip::<BartForConditionalGeneration>(&fixture);
}

#[test]
fn copies_prefixes_and_foreign_heads_are_understood() {
    let place = |name: &str| BartForConditionalGeneration::place(&Config::base(), name);
    assert_eq!(place("shared.weight"), Place::As("model.shared.weight".into()));
    assert_eq!(place("model.shared.weight"), Place::As("model.shared.weight".into()));
    assert_eq!(place("model.decoder.embed_tokens.weight"), Place::Nowhere);
    assert_eq!(place("lm_head.weight"), Place::Nowhere);
    assert_eq!(place("classification_head.dense.bias"), Place::Nowhere);
    let untied = Config { tie_word_embeddings: false, ..Config::base() };
    let place = BartForConditionalGeneration::place(&untied, "lm_head.weight");
    assert_eq!(place, Place::As("lm_head.weight".into()));
}

#[test]
fn a_missing_bias_of_the_scores_is_none() {
    let Some((fixture, loaded)) = loaded("bart::a_missing_bias_of_the_scores_is_none") else {
        return;
    };
    let mut config = loaded.config.clone();
    let names = BTreeMap::from([("model.shared.weight".to_string(), vec![101, 32])]);
    BartForConditionalGeneration::adapt(&mut config, &names);
    let store = loaded.store.frozen(candle_core::DType::F32, &candle_core::Device::Cpu);
    let without = BartForConditionalGeneration::new(&config, store).unwrap();
    let (source, target) = (fixture.batch(), fixture.target());
    let bias = loaded.store.get("final_logits_bias").unwrap();
    let with = loaded.model.forward(&source, &target, &Context::eval()).unwrap();
    let without = without.forward(&source, &target, &Context::eval()).unwrap();
    let sum = without.broadcast_add(&bias.as_detached_tensor()).unwrap();
    mnemic_testing::assert_close("with its bias", &sum, &with, 0., 1e-5);
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { decoder_attention_heads: 7, ..Config::base() }).contains("7 heads"));
    assert!(error(Config { encoder_layers: 0, ..Config::base() }).contains("encoder_layers"));
    let mut config = Config::base();
    config.other.insert("normalize_before".into(), true.into());
    assert!(error(config).contains("normalize_before must be false"));
    let Some((fixture, loaded)) = loaded("bart::what_makes_no_sense_is_named") else { return };
    let ids =
        candle_core::Tensor::zeros((1, 41), candle_core::DType::U32, &candle_core::Device::Cpu);
    let long = TextBatch::with_mask(ids.unwrap(), vec![vec![1; 41]]).unwrap();
    let error = loaded.model.forward(&long, &fixture.target(), &Context::eval()).unwrap_err();
    assert!(error.to_string().contains("41 tokens, but there are 40 positions"), "{error}");
}
