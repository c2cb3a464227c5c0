use candle_core::Device;

use super::*;
use crate::text::Padding;
use crate::transformer::testing::{check_padding, check_round_trip, fixture};

#[test]
fn masked_words_as_transformers_has_them() {
    let Some(fixture) = fixture("masked_words_as_transformers_has_them", "roberta-mlm") else {
        return;
    };
    let loaded = fixture.load::<RobertaForMaskedLm>();
    let (batch, ctx) = (fixture.batch(), Context::eval().watching());
    let logits = loaded.model.forward(&batch, &ctx).unwrap();
    fixture.close_at_tokens("logits", &logits, 1, batch.attention_mask());
    let names = [("attention", "attentions"), ("hidden_states", "hidden_states")];
    fixture.check_trace(&ctx.take_trace(), &names, batch.attention_mask());

    fixture.check_gradients(&loaded, &fixture.loss(&logits));
    check_round_trip::<RobertaForMaskedLm>(&fixture);
    check_padding(&batch, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
}

#[test]
fn padding_on_the_left_moves_no_position() {
    let Some(fixture) = fixture("padding_on_the_left_moves_no_position", "roberta-mlm") else {
        return;
    };
    let loaded = fixture.load::<RobertaForMaskedLm>();
    let rows = [vec![0, 7, 8, 9, 2], vec![0, 5, 2]];
    let left = TextBatch::from_rows(&rows, 1, Padding::Left, &Device::Cpu).unwrap();
    check_padding(&left, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
}

#[test]
fn the_encoder_and_new_heads_load_from_the_same_file() {
    let Some(fixture) = fixture("the_encoder_and_new_heads_load", "roberta-mlm") else { return };
    let ctx = Context::eval();
    let encoder = fixture.load::<RobertaModel>();
    assert!(encoder.left.iter().all(|name| name.starts_with("lm_head.")), "{:?}", encoder.left);
    let output = encoder.model.forward(&fixture.batch(), &ctx).unwrap();
    assert!(output.pooler_output.is_none());
    let mask = fixture.batch().attention_mask().to_vec();
    fixture.close_at_tokens("hidden_states.2", &output.last_hidden_state, 1, &mask);

    let options = crate::LoadOptions { new_head: Some(1), ..Default::default() };
    let whole = crate::from_pretrained_with::<RobertaForSequenceClassification>;
    let loaded = whole(&fixture.dir, &options).unwrap();
    assert_eq!(loaded.new.len(), 4, "{:?}", loaded.new);
    assert_eq!(loaded.model.forward(&fixture.batch(), &ctx).unwrap().dims(), [3, 2]);
    let tokens = crate::from_pretrained_with::<RobertaForTokenClassification>;
    let loaded = tokens(&fixture.dir, &options).unwrap();
    assert_eq!(loaded.model.forward(&fixture.batch(), &ctx).unwrap().dims(), [3, 12, 2]);
}

#[test]
fn families_keep_their_names_and_limits_are_named() {
    let mut config = Config::base();
    assert_eq!(config.max_tokens(), 512);
    config.bert.other.insert("model_type".into(), "xlm-roberta".into());
    let keys = RobertaForMaskedLm::config_keys(&config).unwrap();
    assert_eq!(keys["architectures"][0], "XLMRobertaForMaskedLM");
    assert_eq!(Config::read(keys).unwrap().pad_token_id, 1);
    config.pad_token_id = u32::MAX;
    assert!(config.validate().unwrap_err().to_string().contains("pad_token_id"));

    let mut config = Config::base();
    (config.bert.num_hidden_layers, config.bert.max_position_embeddings) = (1, 4);
    (config.bert.vocab_size, config.bert.hidden_size) = (9, 12);
    let store = mnemic_layers::ParamStore::new(0);
    let model =
        RobertaModel::new(&config, store.builder(candle_core::DType::F32, &Device::Cpu)).unwrap();
    let rows = [vec![0, 3, 2], vec![2]];
    let batch = TextBatch::from_rows(&rows, 1, Padding::Right, &Device::Cpu).unwrap();
    let error = model.forward(&batch, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("3 tokens, but there are 2 positions"), "{error}");
}
