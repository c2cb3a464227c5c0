use candle_core::{DType, Device};
use mnemic_testing::assert_close;

use super::*;
use crate::transformer::testing::{check_padding, check_target_steps, real_fixture};
use crate::{Context, Pretrained, TextBatch, save_pretrained};

#[test]
fn names_in_latin_letters_as_the_trained_model_writes_them() {
    let test = "opennmt::names_in_latin_letters";
    let Some(fixture) = real_fixture(test, "transliteration", "aren-transliteration") else {
        return;
    };
    let loaded: Pretrained<OpenNmtTransformer> = fixture.load();
    let (source, target) = (fixture.batch(), fixture.target());
    let ctx = Context::eval().watching();
    let logits = loaded.model.forward(&source, &target, &ctx).unwrap();
    assert_close("logits", &logits, fixture.get("logits"), 0., 1e-4);
    let trace = ctx.take_trace();
    let count = |name: &str| trace.iter().filter(|w| w.name == name).count();
    assert_eq!([count("attention"), count("cross_attention"), count("decoder_attention")], [6; 3]);
    assert_eq!([count("hidden_states"), count("decoder_hidden_states")], [7; 2]);
    let encode = |batch: &TextBatch, ctx: &Context| loaded.model.encode(batch, ctx).unwrap();
    let encoded = encode(&source, &Context::eval());
    fixture.close_at_tokens("encoder_output", &encoded, 1, source.attention_mask());
    check_padding(&source, true, encode);
    check_target_steps(&loaded.model, &source, &target, &logits);

    let grads = logits.sqr().unwrap().mean_all().unwrap().backward().unwrap();
    for (name, var) in loaded.store.vars() {
        let grad = grads.get(&var).unwrap_or_else(|| panic!("no gradient reaches {name}"));
        let sum = grad.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(sum > 0., "{name}");
    }
    let dir = tempfile::TempDir::new().unwrap();
    save_pretrained::<OpenNmtTransformer>(dir.path(), &loaded.config, &loaded.store, &[]).unwrap();
    let again: Pretrained<OpenNmtTransformer> =
        crate::from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(again.config.sources, loaded.config.sources);
    let again = again.model.forward(&source, &target, &Context::eval()).unwrap();
    assert_close("saved and read again", &again, &logits, 0., 0.);
}

#[test]
fn tokens_and_ids() {
    let tokens = |text: &str| text.split(' ').map(String::from).collect();
    let config = Config::base(tokens("_ ( ) a b"), tokens("_ ( ) x y"));
    assert_eq!(config.source_ids(["b", "?", "a"]), [4, 5, 3]);
    assert_eq!(config.target_tokens(&[4, 3, 5, 2, 3]), ["y", "x", "<unk>"]);
}

#[test]
fn what_makes_no_sense_is_named() {
    let tokens = || vec!["_".to_string(), "(".into(), ")".into()];
    let config = || Config::base(tokens(), tokens());
    config().validate().unwrap();
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { end: 3, ..config() }).contains("end must be one of 3 tokens"));
    assert!(error(Config { norm_first: false, ..config() }).contains("norm_first"));
    assert!(error(Config { nhead: 7, ..config() }).contains("7 heads"));
    assert!(error(Config { d_model: 9, nhead: 3, ..config() }).contains("d_model must be even"));
    assert!(error(Config { targets: vec![], ..config() }).contains("target_tokens"));
}
