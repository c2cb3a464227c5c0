use candle_core::{DType, Device};
use mnemic_layers::ParamStore;
use serde_json::json;

use super::*;
use crate::testing::{VOCAB, stories};

const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 5, memory_size: 9 };

fn overridden(architecture: &str, preset: &str, changes: Value) -> Result<ModelConfig> {
    let changes = changes.as_object().unwrap().clone();
    ModelConfig::preset(architecture, preset, SIZES)?.with_overrides(changes)
}

#[test]
fn every_preset_is_made_by_name_and_goes_through_json() {
    assert_eq!(
        ModelConfig::architectures(),
        ["memn2n", "memnn", "dmn", "dmn-plus", "entnet", "dnc-reader", "lstm"]
    );
    for architecture in ModelConfig::architectures() {
        for preset in ModelConfig::presets(architecture).unwrap() {
            let config = ModelConfig::preset(architecture, preset, SIZES).unwrap();
            assert_eq!(config.architecture(), architecture);
            assert_eq!((config.vocab_size(), config.memory_size()), (VOCAB, 9));
            let limited = ["memn2n", "dmn-plus", "entnet"].contains(&architecture);
            assert_eq!(config.sentence_len(), limited.then_some(5));
            let text = serde_json::to_string(&config).unwrap();
            assert!(text.contains(&format!("\"model_type\":\"{architecture}\"")));
            assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config);
            assert!(config.num_parameters().unwrap() > 0);
        }
    }
}

#[test]
fn wrong_names_are_answered_with_the_known_ones() {
    let text = |r: Result<ModelConfig>| r.unwrap_err().to_string();
    let error = text(ModelConfig::preset("dmn_plus", "dmn_plus", SIZES));
    assert!(error.contains("unknown architecture `dmn_plus`, did you mean `dmn-plus`?"));
    assert!(error.contains("known: memn2n, memnn, dmn, dmn-plus, entnet, dnc-reader, lstm"));
    let error = text(ModelConfig::preset("dmn-plus", "dmn1", SIZES));
    assert!(error.contains("dmn-plus preset: unknown preset `dmn1`"), "{error}");
    assert!(error.contains("known: dmn2, dmn3, dmn_plus"), "{error}");
    assert!(ModelConfig::presets("lstms").unwrap_err().to_string().contains("`lstm`"));
}

#[test]
fn overrides_are_checked_one_by_one() {
    let changed = overridden("dmn-plus", "dmn_plus", json!({ "passes": 5, "context": "soft" }));
    let ModelConfig::DmnPlus(config) = changed.unwrap() else { panic!("another model") };
    assert_eq!((config.passes, config.context), (5, dmn_plus::ContextKind::Soft));
    let error = |changes| overridden("dmn-plus", "dmn_plus", changes).unwrap_err().to_string();
    let text = error(json!({ "hops": 3 }));
    assert!(text.contains("dmn-plus config: unknown key `hops`"), "{text}");
    assert!(text.contains("known: context, dropout, hidden_size"), "{text}");
    assert!(error(json!({ "model_type": "lstm" })).contains("unknown key `model_type`"));
    assert!(error(json!({ "pases": 3 })).contains("did you mean `passes`?"));
    let text = error(json!({ "context": "hard" }));
    assert!(text.contains("context: unknown variant `hard`, expected `soft` or"), "{text}");
    assert!(error(json!({ "passes": 2.5 })).contains("passes: invalid type: floating point"));
    assert!(error(json!({ "passes": 5000 })).contains("passes must be at most 1024, got 5000"));
    assert!(error(json!({ "dropout": 1.5 })).contains("dropout must lie in [0, 1]"));
    assert!(overridden("dmn-plus", "dmn_plus", json!({ "dropout": 0 })).is_ok());
}

#[test]
fn models_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<AnyStoryModel>();
    shared::<ModelConfig>();
}

#[test]
fn does_what_the_model_inside_does() {
    let build = |architecture: &str, preset: &str| {
        let config = ModelConfig::preset(architecture, preset, SIZES).unwrap();
        config.build(ParamStore::new(1).builder(DType::F64, &Device::Cpu)).unwrap()
    };
    let (batch, answers) = stories(3, 2);
    let ctx = Context::eval();
    let loss = |model: &dyn StoryModel, phase| {
        let loss = model.loss_in(phase, &batch, &answers, &ctx);
        loss.unwrap().to_scalar::<f64>().unwrap()
    };
    for architecture in ModelConfig::architectures() {
        for preset in ModelConfig::presets(architecture).unwrap() {
            let any = build(architecture, preset);
            let model = any.inner();
            assert_eq!(any.vocab_size(), VOCAB);
            assert_eq!(any.has_start_phase(), model.has_start_phase());
            assert_eq!(any.needs_supports(), model.needs_supports());
            assert_eq!(any.null_rows(), model.null_rows());
            let main = any.loss(&batch, &answers, &ctx).unwrap().to_scalar::<f64>().unwrap();
            assert_eq!(main, loss(model, Phase::Main));
            if model.has_start_phase() {
                assert_eq!(loss(&any, Phase::Start), loss(model, Phase::Start));
                assert_ne!(loss(&any, Phase::Start), main);
            }
        }
    }
    assert!(build("memn2n", "pe_ls").has_start_phase());
    assert!(build("memnn", "memnn").needs_supports());
    assert!(!build("memn2n", "pe_ls").null_rows().is_empty());
    assert!(!build("lstm", "lstm").needs_supports());
}
