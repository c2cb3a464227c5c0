use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mnemic_testing::{assert_close, shared_data};

use super::*;
use crate::{Context, Pretrained, PretrainedModel, TextBatch, from_pretrained};

fn load<M: PretrainedModel>(dir: &Path) -> Pretrained<M> {
    from_pretrained(dir, DType::F32, &Device::Cpu).unwrap()
}

/// The inputs of a fixture, and its outputs by name.
fn fixture(dir: &Path) -> (TextBatch, std::collections::HashMap<String, Tensor>) {
    let tensors =
        candle_core::safetensors::load(dir.join("fixture.safetensors"), &Device::Cpu).unwrap();
    let ids = tensors["input_ids"].to_dtype(DType::U32).unwrap();
    let mask = tensors["attention_mask"].to_dtype(DType::U8).unwrap().to_vec2().unwrap();
    let mut batch = TextBatch::with_mask(ids, mask).unwrap();
    if let Some(types) = tensors.get("token_type_ids") {
        batch = batch.with_token_types(types.to_dtype(DType::U32).unwrap()).unwrap();
    }
    (batch, tensors)
}

/// Compares the rows of `axis` at tokens, row by row of the batch.
fn close_at_tokens(name: &str, got: &Tensor, want: &Tensor, axis: usize, batch: &TextBatch) {
    for (i, mask) in batch.attention_mask().iter().enumerate() {
        let n = mask.iter().filter(|&&m| m != 0).count();
        let row = |t: &Tensor| {
            t.narrow(0, i, 1).unwrap().narrow(axis, 0, n).unwrap().contiguous().unwrap()
        };
        assert_close(name, &row(got), &row(want), 0., 2e-5);
    }
}

#[test]
fn encoders_give_states_and_attention_of_any_checkpoint() {
    let Some(dir) = shared_data("auto::encoders_give_states", "fixtures/hf") else { return };
    for (name, architecture) in [
        ("bert-base-model", "bert"),
        ("bert-mlm", "bert"),
        ("roberta-mlm", "roberta"),
        ("distilbert-classifier", "distilbert"),
    ] {
        let loaded = load::<AutoEncoder>(&dir.join(name));
        assert_eq!(loaded.model.architecture(), architecture, "{name}");
        let (batch, tensors) = fixture(&dir.join(name));
        let states = loaded.model.states(&batch).unwrap();
        assert_eq!((states.hidden_states.len(), states.attentions.len()), (3, 2), "{name}");
        for (i, got) in states.hidden_states.iter().enumerate() {
            close_at_tokens(name, got, &tensors[&format!("hidden_states.{i}")], 1, &batch);
        }
        for (i, got) in states.attentions.iter().enumerate() {
            close_at_tokens(name, got, &tensors[&format!("attentions.{i}")], 2, &batch);
        }
        let last = loaded.model.forward(&batch, &Context::eval()).unwrap();
        close_at_tokens(name, &last, &tensors["hidden_states.2"], 1, &batch);
    }
}

#[test]
fn heads_give_the_fixtures_scores() {
    let Some(dir) = shared_data("auto::heads_give", "fixtures/hf") else { return };
    let ctx = &Context::eval();
    for name in ["bert-mlm", "roberta-mlm"] {
        let loaded = load::<AutoMaskedLm>(&dir.join(name));
        let (batch, tensors) = fixture(&dir.join(name));
        let logits = loaded.model.forward(&batch, ctx).unwrap();
        close_at_tokens(name, &logits, &tensors["logits"], 1, &batch);
        // Of 42 positions of RoBERTa two are spent below its first.
        assert_eq!(loaded.config.max_tokens(), 40, "{name}");
    }
    let name = "distilbert-classifier";
    let loaded = load::<AutoSequenceClassifier>(&dir.join(name));
    let (batch, tensors) = fixture(&dir.join(name));
    assert_close(name, &loaded.model.forward(&batch, ctx).unwrap(), &tensors["logits"], 0., 2e-5);
    assert_eq!(loaded.config.labels(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn a_head_is_not_taken_for_another() {
    let Some(dir) = shared_data("auto::a_head_is_not_taken", "fixtures/hf") else { return };
    let error = |name: &str| {
        from_pretrained::<AutoTokenClassifier>(dir.join(name), DType::F32, &Device::Cpu)
            .unwrap_err()
            .to_string()
    };
    let error1 = error("bert-mlm");
    assert!(
        error1.contains("a classifier of tokens") && error1.contains("BertForMaskedLM"),
        "{error1}"
    );
    assert!(error("gpt2-lm").contains("BertForTokenClassification"));
}
