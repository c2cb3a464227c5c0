use candle_core::{Device, IndexOp};
use mnemic_testing::assert_close;

use super::*;
use crate::Padding;
use crate::transformer::testing::{
    check_padding, check_round_trip, check_steps, fixture, left_padded,
};

#[test]
fn gpt2_as_transformers_has_it() {
    let Some(fixture) = fixture("gpt2_as_transformers_has_it", "gpt2-lm") else { return };
    let loaded = fixture.load::<Gpt2LmHead>();
    let (batch, ctx) = (fixture.batch(), Context::eval().watching());
    let logits = loaded.model.forward(&batch, &ctx).unwrap();
    let mask = batch.attention_mask();
    fixture.close_at_tokens("logits", &logits, 1, mask);
    let names = [("attention", "attentions"), ("hidden_states", "hidden_states")];
    fixture.check_trace(&ctx.take_trace(), &names, mask);
    fixture.check_gradients(&loaded, &fixture.next_loss(&logits));
    check_round_trip::<Gpt2LmHead>(&fixture);
    check_padding(&batch, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
    let left = left_padded(&batch);
    check_padding(&left, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
    let frozen = loaded.inference_model(DType::F32, &Device::Cpu).unwrap();
    check_steps(&frozen, &left, |batch, ctx| frozen.forward(batch, ctx).unwrap());
    assert!(!frozen.forward(&batch, &Context::eval()).unwrap().track_op());
}

#[test]
fn the_model_without_a_head_reads_the_same_checkpoint() {
    let Some(fixture) = fixture("the_model_without_a_head", "gpt2-lm") else { return };
    let loaded = fixture.load::<Gpt2Model>();
    let batch = fixture.batch();
    let xs = loaded.model.forward(&batch, &Context::eval()).unwrap();
    fixture.close_at_tokens("hidden_states.2", &xs, 1, batch.attention_mask());
    // Saved without a prefix, as on the hub; with it again in the model with a head.
    let dir = tempfile::TempDir::new().unwrap();
    loaded.save(dir.path(), &[]).unwrap();
    let again: crate::Pretrained<Gpt2LmHead> =
        crate::from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
    let logits = again.model.forward(&batch, &Context::eval()).unwrap();
    fixture.close_at_tokens("logits", &logits, 1, batch.attention_mask());
}

#[test]
fn buffers_of_the_hub_are_left_and_weights_turned() {
    let config = Config::small();
    let place = |name: &str| Gpt2LmHead::place(&config, name);
    assert_eq!(place("h.0.attn.bias"), Place::Nowhere);
    assert_eq!(place("transformer.h.11.attn.masked_bias"), Place::Nowhere);
    assert_eq!(place("lm_head.weight"), Place::Nowhere);
    assert_eq!(place("wte.weight"), Place::As("transformer.wte.weight".into()));
    assert_eq!(place("h.0.attn.c_attn.bias"), Place::As("transformer.h.0.attn.c_attn.bias".into()));
    assert_eq!(
        place("transformer.h.0.mlp.c_proj.weight"),
        Place::Transposed("transformer.h.0.mlp.c_proj.weight".into())
    );
    let untied = Config { tie_word_embeddings: false, ..config };
    assert_eq!(Gpt2LmHead::place(&untied, "lm_head.weight"), Place::As("lm_head.weight".into()));
    assert_eq!(Gpt2Model::place(&untied, "transformer.ln_f.bias"), Place::As("ln_f.bias".into()));
}

#[test]
fn the_parameters_are_those_of_gpt2() {
    let store = mnemic_layers::ParamStore::new(0);
    let config = Config { n_layer: 1, ..Config::small() };
    Gpt2LmHead::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    let layer = 12 * 768 * 768 + 13 * 768;
    assert_eq!(store.num_parameters() - layer + 12 * layer, 124_439_808);
}

fn tiny(config: Config) -> (Gpt2LmHead, TextBatch) {
    let config =
        Config { n_layer: 2, n_embd: 8, n_head: 2, vocab_size: 11, n_positions: 4, ..config };
    let store = mnemic_layers::ParamStore::new(3);
    let vb = store.builder(DType::F32, &Device::Cpu);
    let rows = [vec![1, 2, 3], vec![4]];
    let batch = TextBatch::from_rows(&rows, 0, Padding::Left, &Device::Cpu).unwrap();
    (Gpt2LmHead::new(&config, vb).unwrap(), batch)
}

#[test]
fn scores_are_scaled_as_the_config_says() {
    let config = Config { initializer_range: 1., ..Config::small() };
    let logits = |config| {
        let (model, batch) = tiny(config);
        model
            .forward(&batch, &Context::eval())
            .unwrap()
            .i((0, 2))
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    let inverse = Config { scale_attn_by_inverse_layer_idx: true, ..config.clone() };
    let plain = Config { scale_attn_weights: false, ..config.clone() };
    assert_eq!((inverse.scale(2), plain.scale(2)), (1. / 24., 1.));
    assert_ne!(logits(inverse), logits(config.clone()));
    assert_ne!(logits(plain), logits(config));
}

#[test]
fn rows_that_grow_too_long_are_refused() {
    let (model, batch) = tiny(Config::small());
    let ctx = Context::eval();
    let mut state = model.start(&batch, &ctx).unwrap();
    model.step(batch.input_ids(), &mut state, &ctx).unwrap();
    let ids = Tensor::new(&[[1u32], [1]], &Device::Cpu).unwrap();
    model.step(&ids, &mut state, &ctx).unwrap();
    let error = model.step(&ids, &mut state.clone(), &ctx).unwrap_err().to_string();
    assert!(error.contains("5 tokens in a row, but there are 4 positions"), "{error}");
    // The other row has room for two more.
    model.select(&mut state, &[1]).unwrap();
    let one = ids.narrow(0, 0, 1).unwrap();
    assert_eq!(model.step(&one, &mut state, &ctx).unwrap().dims(), [1, 11]);
    assert!(model.step(&ids, &mut state, &ctx).unwrap_err().to_string().contains("1 rows"));
    assert!(model.select(&mut state, &[1]).unwrap_err().to_string().contains("no row 1 of 1"));
}

#[test]
fn untied_heads_have_weights_of_their_own() {
    let (model, batch) = tiny(Config { tie_word_embeddings: false, ..Config::small() });
    assert_ne!(model.lm_head.weight().id(), model.transformer.wte.weight().id());
    let logits = model.forward(&batch, &Context::eval()).unwrap();
    assert_close("repeated", &logits, &model.forward(&batch, &Context::eval()).unwrap(), 0., 0.);
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { n_head: 7, ..Config::small() }).contains("7 heads"));
    assert!(error(Config { n_layer: 0, ..Config::small() }).contains("n_layer"));
    assert!(error(Config { attn_pdrop: 2., ..Config::small() }).contains("attn_pdrop"));
    let mut config = Config::small();
    config.other.insert("add_cross_attention".into(), true.into());
    assert!(error(config).contains("add_cross_attention"));
}
