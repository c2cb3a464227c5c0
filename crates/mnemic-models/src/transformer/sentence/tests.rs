use std::fs;

use mnemic_layers::Context;
use mnemic_testing::assert_close;
use tempfile::TempDir;

use super::*;
use crate::text::Padding;
use crate::transformer::testing::{Fixture, minilm};

fn real(test: &str) -> Option<Fixture> {
    let dir = mnemic_testing::shared_data(test, "fixtures/real/all-minilm-l6-v2")?;
    let tensors = crate::load_tensors(dir.join("fixture.safetensors"), &Device::Cpu).unwrap();
    Some(Fixture { dir, tensors })
}

#[test]
fn minilm_as_transformers_has_it() {
    let test = "minilm_as_transformers_has_it";
    let (Some(dir), Some(fixture)) = (minilm(test), real(test)) else { return };
    let batch = fixture.batch();
    let mask = batch.attention_mask();
    let loaded = from_pretrained::<BertModel>(&dir, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(loaded.left, ["embeddings.position_ids"]);
    let ctx = Context::eval().watching();
    let output = loaded.model.forward(&batch, &ctx).unwrap();
    let trace = ctx.take_trace();
    let watched = |name: &str| &trace.iter().find(|w| w.name == name && w.step == 0).unwrap().value;
    fixture.close_at_tokens("embedding_output", watched("hidden_states"), 1, mask);
    fixture.close_at_tokens("attentions.0", watched("attention"), 2, mask);
    fixture.close_at_tokens("last_hidden_state", &output.last_hidden_state, 1, mask);
    let pooled = output.pooler_output.unwrap();
    assert_close("pooler_output", &pooled, fixture.get("pooler_output"), 0., 1e-5);

    let encoder = SentenceEncoder::from_folder(&dir, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(encoder.max_length(), Some(256));
    let embeddings = encoder.encode(&batch).unwrap();
    assert!(!embeddings.track_op());
    assert_close("embeddings", &embeddings, fixture.get("embeddings"), 0., 1e-5);
    let cosine = embeddings.matmul(&embeddings.t().unwrap()).unwrap();
    assert_close("cosine", &cosine, fixture.get("cosine"), 0., 1e-5);

    // The encoder alone, without `modules.json`: the mean.
    let bare = TempDir::new().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(dir.join(name), bare.path().join(name)).unwrap();
    }
    let encoder = SentenceEncoder::from_folder(bare.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(encoder.max_length(), Some(512));
    let mean = encoder.encode(&batch).unwrap();
    assert_close("mean_pooled", &mean, fixture.get("mean_pooled"), 0., 1e-5);
}

#[cfg(feature = "tokenizers")]
#[test]
fn texts_keep_their_order() {
    let test = "texts_keep_their_order";
    let (Some(dir), Some(fixture)) = (minilm(test), real(test)) else { return };
    let encoder = SentenceEncoder::from_folder(&dir, DType::F32, &Device::Cpu).unwrap();
    let json = fs::read_to_string(fixture.dir.join("sentences.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let texts: Vec<&str> =
        json.as_array().unwrap().iter().map(|row| row["text"].as_str().unwrap()).collect();
    // More than a batch.
    let many: Vec<&str> = texts.iter().copied().cycle().take(40).collect();
    let all = encoder.embed(&many).unwrap();
    for i in 0..5 {
        let part = all.narrow(0, i * 8, 8).unwrap();
        assert_close("embeddings", &part, fixture.get("embeddings"), 0., 1e-5);
    }
    let long = "word ".repeat(1000);
    assert_eq!(encoder.embed(&[&long]).unwrap().dims(), [1, 384]);
    assert!(encoder.embed(&[]).is_err());
}

#[test]
fn pooling_counts_tokens_only() {
    let states = Tensor::new(
        &[[[1f32, -2.], [3., -4.], [50., 60.]], [[1., 1.], [2., 2.], [6., -3.]]],
        &Device::Cpu,
    )
    .unwrap();
    let rows = [vec![1, 2], vec![1, 2, 3]];
    let batch = TextBatch::from_rows(&rows, 0, Padding::Right, &Device::Cpu).unwrap();
    let pooled = |way: Pooling| way.forward(&states, &batch).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(pooled(Pooling::Cls), [[1., -2.], [1., 1.]]);
    assert_eq!(pooled(Pooling::LastToken), [[3., -4.], [6., -3.]]);
    assert_eq!(pooled(Pooling::Max), [[3., -2.], [6., 2.]]);
    assert_eq!(pooled(Pooling::Mean)[0], [2., -3.]);
    assert!((pooled(Pooling::MeanSqrtLen)[0][0] - 4. / 2f32.sqrt()).abs() < 1e-6);
    assert!((pooled(Pooling::WeightedMean)[0][0] - 7. / 3.).abs() < 1e-6);
    assert!((pooled(Pooling::WeightedMean)[1][0] - 23. / 6.).abs() < 1e-6);

    let read = |json: &str| Pooling::read(&serde_json::from_str(json).unwrap());
    let json = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#;
    assert_eq!(read(json), [Pooling::Cls, Pooling::Mean]);
    assert_eq!(read(r#"{"pooling_mode": "mean"}"#), [Pooling::Mean]);
    assert_eq!(read(r#"{"pooling_mode": ["cls", "max"]}"#), [Pooling::Cls, Pooling::Max]);
}

/// A folder with an encoder of one layer and these modules.
fn folder(modules: &str, files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let config = super::super::bert::Config {
        num_hidden_layers: 1,
        hidden_size: 4,
        num_attention_heads: 2,
        intermediate_size: 3,
        vocab_size: 9,
        max_position_embeddings: 7,
        add_pooling_layer: false,
        ..super::super::bert::Config::base()
    };
    let store = mnemic_layers::ParamStore::new(3);
    BertModel::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    crate::save_pretrained::<BertModel>(dir.path(), &config, &store, &[]).unwrap();
    fs::write(dir.path().join("modules.json"), modules).unwrap();
    for (name, text) in files {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn a_dense_layer_is_applied_and_what_is_unknown_is_named() {
    let modules = r#"[{"idx": 0, "name": "0", "path": "", "type": "a.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "a.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "a.Dense"}]"#;
    let pooling = ("1_Pooling/config.json", r#"{"pooling_mode_max_tokens": true}"#);
    let dense = r#"{"in_features": 4, "out_features": 2, "bias": true, "activation_function": "torch.nn.Tanh"}"#;
    let dir = folder(modules, &[pooling, ("2_Dense/config.json", dense)]);
    let weight = Tensor::new(&[[1f32, 0., 0., 0.], [0., 0., 0., 2.]], &Device::Cpu).unwrap();
    let bias = Tensor::new(&[0.5f32, 0.], &Device::Cpu).unwrap();
    let tensors = [("linear.weight".to_string(), weight), ("linear.bias".to_string(), bias)].into();
    let file = dir.path().join("2_Dense/model.safetensors");
    candle_core::safetensors::save(&tensors, file).unwrap();
    let load = |dir: &TempDir| SentenceEncoder::from_folder(dir.path(), DType::F32, &Device::Cpu);
    let encoder = load(&dir).unwrap();
    let batch =
        TextBatch::from_rows(&[vec![1, 2], vec![3]], 0, Padding::Right, &Device::Cpu).unwrap();
    let got = encoder.encode(&batch).unwrap().to_vec2::<f32>().unwrap();
    let states = encoder.encoder.forward(&batch, &Context::eval()).unwrap();
    let max = Pooling::Max.forward(&states, &batch).unwrap().to_vec2::<f32>().unwrap();
    for (got, max) in got.iter().zip(&max) {
        assert!((got[0] - (max[0] + 0.5).tanh()).abs() < 1e-6);
        assert!((got[1] - (max[3] * 2.).tanh()).abs() < 1e-6);
    }

    let error = |modules: &str| load(&folder(modules, &[pooling])).unwrap_err().to_string();
    assert!(error(&modules.replace("a.Dense", "a.Densse")).contains("did you mean `Dense`?"));
    assert!(error(&modules.replace("2_Dense", "../x")).contains("a folder below"));
    assert!(error("[]").contains("expected a Transformer, then a Pooling"));
    assert!(error("{").contains("modules.json"));
}
