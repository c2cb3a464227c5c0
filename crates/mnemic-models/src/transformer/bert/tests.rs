use candle_core::{DType, Device};
use mnemic_testing::assert_close;

use super::*;
use crate::transformer::testing::{check_padding, check_round_trip, fixture};

#[test]
fn masked_words_as_transformers_has_them() {
    let Some(fixture) = fixture("masked_words_as_transformers_has_them", "bert-mlm") else {
        return;
    };
    let loaded = fixture.load::<BertForMaskedLm>();
    let (batch, ctx) = (fixture.batch(), Context::eval().watching());
    let logits = loaded.model.forward(&batch, &ctx).unwrap();
    fixture.close_at_tokens("logits", &logits, 1, batch.attention_mask());
    let names = [("attention", "attentions"), ("hidden_states", "hidden_states")];
    fixture.check_trace(&ctx.take_trace(), &names, batch.attention_mask());

    fixture.check_gradients(&loaded, &fixture.loss(&logits));
    check_round_trip::<BertForMaskedLm>(&fixture);
    check_padding(&batch, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
    let frozen = loaded.inference_model(DType::F32, &Device::Cpu).unwrap();
    let again = frozen.forward(&batch, &Context::eval()).unwrap();
    // Weights that stay are laid out in another order, and so are the sums.
    fixture.close_at_tokens("logits", &again, 1, batch.attention_mask());
    assert_close("inference", &again, &logits, 0., 1e-5);
    assert!(!again.track_op());
}

#[test]
fn the_pooler_as_transformers_has_it() {
    let Some(fixture) = fixture("the_pooler_as_transformers_has_it", "bert-base-model") else {
        return;
    };
    let loaded = fixture.load::<BertModel>();
    let (batch, ctx) = (fixture.batch(), Context::eval().watching());
    let output = loaded.model.forward(&batch, &ctx).unwrap();
    let pooled = output.pooler_output.unwrap();
    assert_close("pooler_output", &pooled, fixture.get("pooler_output"), 0., 1e-5);
    let mask = batch.attention_mask();
    fixture.close_at_tokens("last_hidden_state", &output.last_hidden_state, 1, mask);
    let loss = pooled.sqr().unwrap().mean_all().unwrap();
    fixture.check_gradients(&loaded, &loss);
    check_round_trip::<BertModel>(&fixture);
}

#[test]
fn prefixes_old_names_and_foreign_heads_are_understood() {
    let place = |name: &str| BertModel::place(&Config::base(), name);
    assert_eq!(
        place("bert.embeddings.LayerNorm.gamma"),
        Place::As("embeddings.LayerNorm.weight".into())
    );
    assert_eq!(place("cls.predictions.bias"), Place::Nowhere);
    assert_eq!(place("embeddings.position_ids"), Place::Nowhere);
    let place = |name: &str| BertForTokenClassification::place(&Config::base(), name);
    assert_eq!(
        place("embeddings.LayerNorm.beta"),
        Place::As("bert.embeddings.LayerNorm.bias".into())
    );
    assert_eq!(place("classifier.weight"), Place::As("classifier.weight".into()));
    assert_eq!(place("cls.predictions.bias"), Place::Nowhere);
}

#[test]
fn a_classifier_is_made_on_an_encoder_when_asked_for() {
    let Some(fixture) = fixture("a_classifier_is_made_on_an_encoder", "bert-base-model") else {
        return;
    };
    let load = |new_head| {
        let options = crate::LoadOptions { new_head, ..Default::default() };
        crate::from_pretrained_with::<BertForSequenceClassification>(&fixture.dir, &options)
    };
    let error = load(None).unwrap_err().to_string();
    assert!(error.contains("classifier.weight"), "{error}");
    let loaded = load(Some(1)).unwrap();
    assert_eq!(loaded.new, ["classifier.bias", "classifier.weight"]);
    let logits = loaded.model.forward(&fixture.batch(), &Context::eval()).unwrap();
    assert_eq!(logits.dims()[1], 2);
}

#[test]
fn a_new_classifier_has_the_labels_that_are_asked_for() {
    let small = Config {
        vocab_size: 9,
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 4,
        ..Config::base()
    };
    let dir = tempfile::TempDir::new().unwrap();
    let store = crate::ParamStore::new(1);
    BertModel::new(&small, store.builder(DType::F32, &Device::Cpu)).unwrap();
    crate::save_pretrained::<BertModel>(dir.path(), &small, &store, &[]).unwrap();
    let load = |labels: &[&str]| {
        let labels = Some(labels.iter().map(ToString::to_string).collect());
        let options = crate::LoadOptions { new_head: Some(1), labels, ..Default::default() };
        crate::from_pretrained_with::<BertForTokenClassification>(dir.path(), &options)
    };
    let loaded = load(&["O", "B-x", "I-x"]).unwrap();
    assert_eq!(loaded.config.labels(), ["O", "B-x", "I-x"]);
    assert_eq!(loaded.store.get("classifier.weight").unwrap().dims(), [3, 4]);
    loaded.save(dir.path(), &[]).unwrap();
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&keys["id2label"]["2"], &keys["label2id"]["I-x"]), (&"I-x".into(), &2.into()));
    assert_eq!(keys["num_labels"], 3);
    assert!(load(&["a", "a"]).unwrap_err().to_string().contains("`a` stands twice"));
    // The head that is there now has another size.
    assert!(load(&["a", "b"]).unwrap_err().to_string().contains("classifier.weight"));
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { num_attention_heads: 7, ..Config::base() }).contains("7 heads"));
    assert!(
        error(Config { hidden_dropout_prob: f64::NAN, ..Config::base() })
            .contains("hidden_dropout_prob")
    );
    let mut config = Config::base();
    config.other.insert("position_embedding_type".into(), "relative_key".into());
    assert!(error(config).contains("position_embedding_type"));
    let error =
        Config::read(serde_json::from_str(r#"{"model_type": "gpt2"}"#).unwrap()).unwrap_err();
    assert!(error.to_string().contains("expected bert, got `gpt2`"), "{error}");
}
