use candle_core::{DType, Device};
use mnemic_testing::assert_close;

use super::*;
use crate::transformer::testing::{check_round_trip, fixture};

#[test]
fn classes_as_transformers_has_them() {
    let Some(fixture) = fixture("classes_as_transformers_has_them", "vit-classifier") else {
        return;
    };
    let loaded = fixture.load::<VitForImageClassification>();
    let (pixels, ctx) = (fixture.get("pixel_values"), Context::eval().watching());
    let logits = loaded.model.forward(pixels, &ctx).unwrap();
    assert_close("logits", &logits, fixture.get("logits"), 0., 1e-5);
    let names = [("attention", "attentions"), ("hidden_states", "hidden_states")];
    fixture.check_trace(&ctx.take_trace(), &names, &vec![vec![1; 17]; 3]);
    fixture.check_gradients(&loaded, &fixture.loss(&logits));
    check_round_trip::<VitForImageClassification>(&fixture);

    let encoder = fixture.load::<VitModel>();
    let output = encoder.model.forward(pixels, &Context::eval()).unwrap();
    assert_close("last", &output.last_hidden_state, fixture.get("last_hidden_state"), 0., 1e-5);
    assert!(output.pooler_output.is_none());
    let wrong = Tensor::zeros((1, 3, 32, 24), DType::F32, &Device::Cpu).unwrap();
    let error = encoder.model.forward(&wrong, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("(b, 3, 32, 32)"), "{error}");
}

#[test]
fn the_names_of_transformers_5_are_understood() {
    let place = |name: &str| VitForImageClassification::place(&Config::base(), name);
    let is = |name: &str, own: &str| assert_eq!(place(name), Place::As(own.into()));
    is("vit.layers.3.attention.q_proj.bias", "vit.encoder.layer.3.attention.attention.query.bias");
    is("layers.3.attention.o_proj.weight", "vit.encoder.layer.3.attention.output.dense.weight");
    is("vit.layers.11.mlp.fc2.weight", "vit.encoder.layer.11.output.dense.weight");
    is("vit.layers.0.layernorm_before.weight", "vit.encoder.layer.0.layernorm_before.weight");
    is("classifier.weight", "classifier.weight");
    assert_eq!(place("vit.pooler.dense.weight"), Place::Nowhere);
    let place = |name: &str| VitModel::place(&Config::base(), name);
    assert_eq!(place("vit.pooler.dense.weight"), Place::As("pooler.dense.weight".into()));
    assert_eq!(place("classifier.weight"), Place::Nowhere);
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { patch_size: 15, ..Config::base() }).contains("patch_size 15"));
    assert!(error(Config { image_size: 0, ..Config::base() }).contains("image_size"));
}
