use candle_core::{DType, Device, IndexOp};
use mnemic_testing::{assert_close, shared_data};
use serde_json::json;

use super::*;
use crate::transformer::testing::{
    check_padding, check_round_trip, check_steps, fixture, left_padded,
};
use crate::{Padding, Pretrained, from_pretrained, load_tensors};

#[test]
fn llama_as_transformers_has_it() {
    let Some(fixture) = fixture("llama_as_transformers_has_it", "llama-lm") else { return };
    let loaded = fixture.load::<LlamaForCausalLm>();
    let (batch, ctx) = (fixture.batch(), Context::eval().watching());
    let logits = loaded.model.forward(&batch, &ctx).unwrap();
    let mask = batch.attention_mask();
    fixture.close_at_tokens("logits", &logits, 1, mask);
    let names = [("attention", "attentions"), ("hidden_states", "hidden_states")];
    fixture.check_trace(&ctx.take_trace(), &names, mask);
    fixture.check_gradients(&loaded, &fixture.next_loss(&logits));
    check_round_trip::<LlamaForCausalLm>(&fixture);
    check_padding(&batch, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
    let left = left_padded(&batch);
    check_padding(&left, true, |batch, ctx| loaded.model.forward(batch, ctx).unwrap());
    let frozen = loaded.inference_model(DType::F32, &Device::Cpu).unwrap();
    check_steps(&frozen, &left, |batch, ctx| frozen.forward(batch, ctx).unwrap());
}

#[test]
fn a_real_model_of_stories() {
    let test = "a_real_model_of_stories";
    let Some(folder) = shared_data(test, "weights/stories260K") else { return };
    let Some(file) = shared_data(test, "fixtures/real/stories260k/fixture.safetensors") else {
        return;
    };
    let loaded: Pretrained<LlamaForCausalLm> =
        from_pretrained(&folder, DType::F32, &Device::Cpu).unwrap();
    let expected = load_tensors(file, &Device::Cpu).unwrap();
    for prompt in 0..3 {
        let get = |name: &str| &expected[&format!("{prompt}.{name}")];
        let ids = get("input_ids").to_dtype(DType::U32).unwrap();
        let t = ids.dim(1).unwrap();
        let batch = TextBatch::with_mask(ids.clone(), vec![vec![1; t]]).unwrap();
        let ctx = Context::eval().watching();
        let logits = loaded.model.forward(&batch, &ctx).unwrap();
        assert_close("logits", &logits, get("logits"), 0., 1e-4);
        for watched in ctx.take_trace().iter().filter(|w| w.name == "attention") {
            let name = format!("attentions.{}", watched.step);
            assert_close(&name, &watched.value, get(&name), 0., 1e-4);
        }
        let labels = ids.i((0, 1..)).unwrap().to_vec1::<u32>().unwrap();
        let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
        let before = logits.i((0, ..t - 1)).unwrap();
        let loss = mnemic_layers::losses::cross_entropy(&before, &labels, &Default::default());
        assert_close("loss", &loss.unwrap(), get("loss"), 0., 1e-4);
    }
}

fn tiny(changes: &Value) -> crate::Result<LlamaForCausalLm> {
    let small = Config {
        vocab_size: 11,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        initializer_range: 1.,
        ..Config::llama_7b()
    };
    let mut keys = LlamaForCausalLm::config_keys(&small)?;
    keys.extend(changes.as_object().unwrap().clone());
    let store = mnemic_layers::ParamStore::new(3);
    LlamaForCausalLm::build(
        &LlamaForCausalLm::read_config(keys)?,
        store.builder(DType::F32, &Device::Cpu),
    )
}

#[test]
fn a_window_hides_what_is_far() {
    let model = tiny(&json!({ "model_type": "mistral", "sliding_window": 3 })).unwrap();
    let logits = |ids: Vec<u32>| {
        let batch = TextBatch::from_rows(&[ids], 0, Padding::Right, &Device::Cpu).unwrap();
        model
            .forward(&batch, &Context::eval())
            .unwrap()
            .i((0, 5))
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    // Two layers see two windows: places 1 to 5.
    assert_eq!(logits(vec![1, 2, 3, 4, 5, 6]), logits(vec![9, 2, 3, 4, 5, 6]));
    assert_ne!(logits(vec![1, 2, 3, 4, 5, 6]), logits(vec![1, 9, 3, 4, 5, 6]));
    let rows = [vec![1, 2, 3, 4, 5, 6, 7], vec![3, 4, 5, 6]];
    let batch = TextBatch::from_rows(&rows, 0, Padding::Left, &Device::Cpu).unwrap();
    check_padding(&batch, true, |batch, ctx| model.forward(batch, ctx).unwrap());
    check_steps(&model, &batch, |batch, ctx| model.forward(batch, ctx).unwrap());
}

#[test]
fn qwen_has_biases_on_queries_keys_and_values() {
    let store = mnemic_layers::ParamStore::new(0);
    let mut config =
        Config { num_hidden_layers: 1, vocab_size: 9, hidden_size: 8, ..Config::llama_7b() };
    config =
        Config { num_attention_heads: 2, intermediate_size: 8, sliding_window: Some(4), ..config };
    config.other.insert("model_type".into(), "qwen2".into());
    assert_eq!(config.window(), None);
    LlamaForCausalLm::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    let biases = store.vars().into_iter().filter(|(name, _)| name.ends_with("bias"));
    let names: Vec<String> = biases.map(|(name, _)| name).collect();
    let name = |part| format!("model.layers.0.self_attn.{part}_proj.bias");
    assert_eq!(names, [name("k"), name("q"), name("v")]);
}

/// Frequencies of `transformers` 5.23.0 (`ROPE_INIT_FUNCTIONS`), for heads of 8 and θ = 10,000.
#[test]
fn frequencies_for_longer_texts() {
    let frequencies = |keys: Value| {
        let rope = rope::Rope::new(Some(10_000.), keys.as_object(), 8).unwrap();
        rope.rotary().unwrap().frequencies().to_vec()
    };
    let check = |found: Vec<f64>, expected: [f64; 4]| {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-6 * b, "{found:?} and {expected:?}");
        }
    };
    check(frequencies(json!({ "rope_type": "default" })), [1., 0.1, 0.01, 0.001]);
    check(frequencies(json!({ "type": "linear", "factor": 4.0 })), [0.25, 0.025, 0.0025, 0.00025]);
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024
    });
    check(frequencies(llama3), LLAMA3);
}

const LLAMA3: [f64; 4] = [1., 0.1, 0.003_086_760_640_144_348, 0.000_125];

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let error = |changes: Value| tiny(&changes).unwrap_err().to_string();
    for kind in ["dynamic", "yarn", "longrope"] {
        let error = error(json!({ "rope_scaling": { "rope_type": kind, "factor": 2.0 } }));
        assert!(error.contains(&format!("got `{kind}`")), "{error}");
    }
    let none = error(json!({ "rope_parameters": { "rope_type": "linear" } }));
    assert!(none.contains("positive factor"), "{none}");
    let part = error(json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }));
    assert!(part.contains("partial_rotary_factor"), "{part}");
    assert!(error(json!({ "num_key_value_heads": 3 })).contains("3 key-value heads"));
    assert!(error(json!({ "head_dim": 3 })).contains("even head_dim"));
    assert!(error(json!({ "model_type": "gemma" })).contains("got `gemma`"));
    let mixed = json!({ "layer_types": ["full_attention", "sliding_attention"] });
    assert!(error(mixed).contains("sliding_attention"));
    let place = |name: &str| LlamaForCausalLm::place(&Config::llama_7b(), name);
    assert_eq!(place("model.layers.0.self_attn.rotary_emb.inv_freq"), Place::Nowhere);
    assert_eq!(place("norm.weight"), Place::As("model.norm.weight".into()));
}
