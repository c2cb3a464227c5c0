use candle_core::{DType, Device};
use mnemic_testing::{assert_close, shared_data};

use super::*;
use crate::transformer::gpt2::Gpt2LmHead;
use crate::{
    Autoregressive, Context, Padding, Pretrained, PretrainedModel, TextBatch, from_pretrained,
    save_pretrained,
};

fn keys(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn unknown_architectures_are_told_what_is_known() {
    let error = |json| AutoCausalLm::read_config(keys(json)).unwrap_err().to_string();
    let rwkv = error(r#"{"architectures": ["RwkvForCausalLM"], "model_type": "gpt2"}"#);
    assert!(rwkv.contains("GPT2LMHeadModel, LlamaForCausalLM") && rwkv.contains("Rwkv"), "{rwkv}");
    let t5 = error(r#"{"model_type": "t5"}"#);
    assert!(t5.contains("causal language model") && t5.contains("model_type t5"), "{t5}");
    assert!(error("{}").contains("got neither"));
    let error = AutoSeq2SeqLm::read_config(keys(r#"{"d_model": 3}"#)).unwrap_err().to_string();
    assert!(error.contains("marian, t5, mt5, opennmt, gru-seq2seq"), "{error}");
}

#[test]
fn the_architecture_is_chosen_and_computes_what_it_does_alone() {
    let Some(dir) = shared_data("auto::the_architecture_is_chosen", "fixtures/hf") else { return };
    let (device, ctx) = (&Device::Cpu, &Context::eval());
    let batch =
        TextBatch::from_rows(&[vec![5, 6, 7], vec![8, 9]], 0, Padding::Left, device).unwrap();
    for (name, architecture) in [("gpt2-lm", "gpt2"), ("llama-lm", "llama")] {
        let loaded: Pretrained<AutoCausalLm> =
            from_pretrained(dir.join(name), DType::F32, device).unwrap();
        assert_eq!(loaded.model.architecture(), architecture);
        assert!(!loaded.model.is_encoder_decoder());
        let logits = loaded.model.forward(&batch, ctx).unwrap();
        if architecture == "gpt2" {
            let alone: Pretrained<Gpt2LmHead> =
                from_pretrained(dir.join(name), DType::F32, device).unwrap();
            assert_close(name, &logits, &alone.model.forward(&batch, ctx).unwrap(), 0., 0.);
        }
        let mut state = loaded.model.start(&batch, ctx).unwrap();
        let step = loaded.model.step(batch.input_ids(), &mut state, ctx).unwrap();
        let last = logits.narrow(1, 2, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
        assert_close(name, &step, &last, 0., 1e-5);
        let folder = tempfile::TempDir::new().unwrap();
        save_pretrained::<AutoCausalLm>(folder.path(), &loaded.config, &loaded.store, &[]).unwrap();
        let again: Pretrained<AutoCausalLm> =
            from_pretrained(folder.path(), DType::F32, device).unwrap();
        assert_close(name, &again.model.forward(&batch, ctx).unwrap(), &logits, 0., 0.);
    }
}

#[test]
fn encoder_decoders_step_as_they_run() {
    let Some(dir) = shared_data("auto::encoder_decoders", "") else { return };
    let (device, ctx) = (&Device::Cpu, &Context::eval());
    let rows = |rows: &[Vec<u32>]| TextBatch::from_rows(rows, 0, Padding::Right, device).unwrap();
    let source = rows(&[vec![5, 6, 7], vec![8, 9]]);
    let target = rows(&[vec![2, 9, 4], vec![2, 7, 7]]);
    for (name, architecture) in [
        ("fixtures/hf/bart-generation", "bart"),
        ("fixtures/hf/marian-mt", "marian"),
        ("fixtures/hf/t5", "t5"),
        ("fixtures/hf/t5-gated", "t5"),
        ("weights/aren-transliteration", "opennmt"),
        ("weights/g2p-en", "gru-seq2seq"),
    ] {
        let loaded: Pretrained<AutoSeq2SeqLm> =
            from_pretrained(dir.join(name), DType::F32, device).unwrap();
        assert_eq!(loaded.model.architecture(), architecture, "{name}");
        assert!(loaded.model.is_encoder_decoder());
        assert_eq!(loaded.config.own_vocabulary().is_some(), name.starts_with("weights"));
        let logits = loaded.model.forward(&source, &target, ctx).unwrap();
        assert_eq!(logits.dims()[2], loaded.model.vocab_size());
        let mut state = loaded.model.start(&source, ctx).unwrap();
        loaded.model.select(&mut state, &[1, 0]).unwrap();
        let ids = target.select(&[1, 0]).unwrap();
        let step = loaded.model.step(ids.input_ids(), &mut state, ctx).unwrap();
        let last = logits.narrow(1, 2, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
        let last = last.index_select(&candle_core::Tensor::new(&[1u32, 0], device).unwrap(), 0);
        assert_close(name, &step, &last.unwrap(), 0., 1e-4);
    }
}

#[test]
fn another_models_state_is_refused() {
    let Some(dir) = shared_data("auto::another_models_state", "fixtures/hf") else { return };
    let load = |name: &str| -> AutoCausalLm {
        from_pretrained(dir.join(name), DType::F32, &Device::Cpu).unwrap().model
    };
    let (gpt2, llama) = (load("gpt2-lm"), load("llama-lm"));
    let batch = TextBatch::from_rows(&[vec![5]], 0, Padding::Left, &Device::Cpu).unwrap();
    let mut state = gpt2.start(&batch, &Context::eval()).unwrap();
    let error = llama.step(batch.input_ids(), &mut state, &Context::eval()).unwrap_err();
    assert!(error.to_string().contains("not one of llama"), "{error}");
}
