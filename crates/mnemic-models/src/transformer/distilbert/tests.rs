use super::*;
use crate::transformer::testing::{check_padding, check_round_trip, fixture};

#[test]
fn classes_as_transformers_has_them() {
    let Some(fixture) = fixture("classes_as_transformers_has_them", "distilbert-classifier") else {
        return;
    };
    let loaded = fixture.load::<DistilBertForSequenceClassification>();
    let (batch, ctx) = (fixture.batch(), Context::eval().watching());
    let logits = loaded.model.forward(&batch, &ctx).unwrap();
    mnemic_testing::assert_close("logits", &logits, fixture.get("logits"), 0., 1e-5);
    let names = [("attention", "attentions"), ("hidden_states", "hidden_states")];
    fixture.check_trace(&ctx.take_trace(), &names, batch.attention_mask());

    fixture.check_gradients(&loaded, &fixture.loss(&logits));
    check_round_trip::<DistilBertForSequenceClassification>(&fixture);
    check_padding(&batch, false, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
    assert_eq!(loaded.config.labels(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn the_encoder_and_new_heads_load_from_the_same_file() {
    let Some(fixture) = fixture("the_encoder_and_new_heads_load", "distilbert-classifier") else {
        return;
    };
    let (batch, ctx) = (fixture.batch(), Context::eval());
    let encoder = fixture.load::<DistilBertModel>();
    let states = encoder.model.forward(&batch, &ctx).unwrap();
    fixture.close_at_tokens("hidden_states.2", &states, 1, batch.attention_mask());

    let options = crate::LoadOptions { new_head: Some(1), ..Default::default() };
    let words = crate::from_pretrained_with::<DistilBertForMaskedLm>;
    let loaded = words(&fixture.dir, &options).unwrap();
    assert_eq!(loaded.new.len(), 5, "{:?}", loaded.new);
    assert_eq!(loaded.model.forward(&batch, &ctx).unwrap().dims(), [3, 12, 120]);
    // The classifier of tokens has the same name and shape as that of texts.
    let loaded = fixture.load::<DistilBertForTokenClassification>();
    assert_eq!(loaded.model.forward(&batch, &ctx).unwrap().dims(), [3, 12, 3]);
    assert_eq!(loaded.left, ["pre_classifier.bias", "pre_classifier.weight"]);
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { n_heads: 7, ..Config::base() }).contains("7 heads"));
    assert!(error(Config { dropout: 2., ..Config::base() }).contains("dropout"));
    assert!(error(Config { n_layers: 0, ..Config::base() }).contains("n_layers"));
}
