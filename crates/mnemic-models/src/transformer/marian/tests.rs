use candle_core::{DType, Device, Tensor};
use mnemic_layers::ParamStore;

use super::*;
use crate::transformer::testing::{check_round_trip, check_seq2seq, fixture};
use crate::{Autoregressive, Context, Padding, TextBatch};

#[test]
fn scores_attention_and_gradients_as_transformers_has_them() {
    let Some(fixture) = fixture("marian::scores_attention_and_gradients", "marian-mt") else {
        return;
    };
    let loaded = fixture.load::<MarianMtModel>();
    let forward = |s: &TextBatch, t: &TextBatch, ctx: &Context| loaded.model.forward(s, t, ctx);
    let encode = |s: &TextBatch, ctx: &Context| loaded.model.encode(s, ctx);
    check_seq2seq(&fixture, &loaded, forward, encode);
    check_round_trip::<MarianMtModel>(&fixture);
}

fn small() -> Config {
    let mut config = Config::opus_mt(12);
    (config.bart.encoder_layers, config.bart.decoder_layers) = (1, 1);
    (config.bart.d_model, config.bart.encoder_ffn_dim, config.bart.decoder_ffn_dim) = (16, 8, 8);
    config
}

#[test]
fn separate_tables_are_separate() {
    let config =
        Config { share_encoder_decoder_embeddings: false, decoder_vocab_size: Some(20), ..small() };
    let store = ParamStore::new(0);
    let model = MarianMtModel::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    assert_eq!(store.get("model.encoder.embed_tokens.weight").unwrap().dims(), [12, 16]);
    assert_eq!(store.get("model.decoder.embed_tokens.weight").unwrap().dims(), [20, 16]);
    assert!(store.get("model.shared.weight").is_none());
    assert_eq!(store.get("final_logits_bias").unwrap().dims(), [1, 20]);
    let batch = |ids| TextBatch::from_rows(&[ids], 11, Padding::Right, &Device::Cpu).unwrap();
    let (source, target) = (batch(vec![5, 11, 0]), batch(vec![11, 19]));
    let logits = model.forward(&source, &target, &Context::eval()).unwrap();
    assert_eq!((logits.dims(), model.vocab_size()), (&[1, 2, 20][..], 20));

    let place = |name: &str| MarianMtModel::place(&config, name);
    let encoder = "model.encoder.embed_tokens.weight";
    assert_eq!(place(encoder), Place::As(encoder.into()));
    assert_eq!(place("model.shared.weight"), Place::Nowhere);
    assert_eq!(MarianMtModel::place(&small(), encoder), Place::Nowhere);
    assert_eq!(place("model.encoder.embed_positions.weight"), Place::Nowhere);
}

#[test]
fn the_pad_token_is_read_but_not_trained_by_reading() {
    let mut config = small();
    config.bart.tie_word_embeddings = false;
    let store = ParamStore::new(0);
    let model = MarianMtModel::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    let batch = |ids| TextBatch::from_rows(&[ids], 11, Padding::Right, &Device::Cpu).unwrap();
    let forward =
        || model.forward(&batch(vec![5, 0]), &batch(vec![11, 4]), &Context::eval()).unwrap();
    let (words, before) = (store.get("model.shared.weight").unwrap(), forward());
    let grads = before.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let grad = grads.get(&words).unwrap().abs().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
    let trained: Vec<usize> = (0..12).filter(|&i| grad[i] > 0.).collect();
    assert_eq!(trained, [0, 4, 5]);
    let ones = Tensor::ones((12, 16), DType::F32, &Device::Cpu).unwrap();
    let pad = ones.narrow(0, 11, 1).unwrap().pad_with_zeros(0, 11, 0).unwrap();
    let alternating: Vec<f32> = (0..16).map(|i| (i % 3) as f32).collect();
    let change = pad.broadcast_mul(&Tensor::new(alternating, &Device::Cpu).unwrap()).unwrap();
    words.set(&(words.as_detached_tensor() + change).unwrap()).unwrap();
    let after = MarianMtModel::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    let after = after.forward(&batch(vec![5, 0]), &batch(vec![11, 4]), &Context::eval()).unwrap();
    let moved = (after - before).unwrap().abs().unwrap().max_all().unwrap();
    assert!(moved.to_scalar::<f32>().unwrap() > 1e-3);
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    let config = Config { decoder_vocab_size: Some(11), ..small() };
    assert!(error(config).contains("decoder_vocab_size 11 must be vocab_size 12"));
    let mut config = small();
    (config.bart.d_model, config.bart.encoder_attention_heads) = (15, 5);
    config.bart.decoder_attention_heads = 5;
    assert!(error(config).contains("d_model must be even"));
}
