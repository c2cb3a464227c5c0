//! Folders of small models, one of each architecture, of which one file is mutated.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mnemic_models::recurrent::gru_seq2seq::GruSeq2Seq;
use mnemic_models::transformer::sentence::SentenceEncoder;
use mnemic_models::transformer::{
    bart, bert, distilbert, gpt2, llama, marian, opennmt, roberta, t5, vit,
};
use mnemic_models::word_vectors::model2vec::Model2Vec;
use mnemic_models::{
    AnyStoryModel, Context, ModelConfig, ParamStore, PretrainedModel, Sizes, TextBatch,
    from_pretrained, save_pretrained,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// Whether a folder is accepted; what is accepted is run, too.
type Load = Box<dyn Fn(&Path) -> bool + Send + Sync>;

/// A folder of a small model, of which one file is to be mutated.
pub(crate) struct Checkpoint {
    dir: TempDir,
    file: &'static str,
    seed: Vec<u8>,
    load: Load,
}

impl Checkpoint {
    /// Whether the folder is accepted with these bytes for its file.
    pub(crate) fn accepts(&self, bytes: &[u8]) -> bool {
        fs::write(self.dir.path().join(self.file), bytes).unwrap();
        (self.load)(self.dir.path())
    }

    /// The file as it was.
    pub(crate) fn seed(&self) -> &[u8] {
        &self.seed
    }

    fn new(dir: TempDir, file: &'static str, load: Load) -> Self {
        let seed = fs::read(dir.path().join(file)).unwrap();
        Self { dir, file, seed, load }
    }

    /// A new model of this config.
    fn saved<M: PretrainedModel + 'static>(
        config: &M::Config,
        file: &'static str,
        run: Run<M>,
    ) -> Self {
        let load = move |dir: &Path| match from_pretrained::<M>(dir, DType::F32, &Device::Cpu) {
            Ok(loaded) => {
                // An error is an answer.
                let _ = run(&loaded.model);
                true
            }
            Err(_) => false,
        };
        Self::new(folder::<M>(config), file, Box::new(load))
    }
}

/// Computes something, so that a config that makes no sense there is met.
type Run<M> = fn(&M) -> candle_core::Result<Tensor>;

fn folder<M: PretrainedModel>(config: &M::Config) -> TempDir {
    let store = ParamStore::new(5);
    M::build(config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    let dir = TempDir::new().unwrap();
    save_pretrained::<M>(dir.path(), config, &store, &[]).unwrap();
    let path = dir.path().join(WEIGHTS);
    let file = zeroed(fs::read(&path).unwrap());
    fs::write(path, file).unwrap();
    dir
}

/// A safetensors file with zeros for its numbers, so that its last brace ends the header.
fn zeroed(mut file: Vec<u8>) -> Vec<u8> {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    file[8 + header..].fill(0);
    file
}

/// One checkpoint of each architecture, to mutate this file of: config or weights.
pub(crate) fn families(file: &'static str) -> Vec<Checkpoint> {
    let sizes = Sizes { vocab_size: 12, sentence_len: 4, memory_size: 6 };
    let story = |architecture: &str| {
        let preset = ModelConfig::presets(architecture).unwrap()[0];
        let config = ModelConfig::preset(architecture, preset, sizes).unwrap();
        let run: Run<AnyStoryModel> = |_| Tensor::zeros((), DType::F32, &Device::Cpu);
        Checkpoint::saved::<AnyStoryModel>(&narrow(config), file, run)
    };
    let mut all: Vec<_> = ModelConfig::architectures().into_iter().map(story).collect();
    all.extend(encoders(file));
    all.extend(generators(file));
    all.push(vision(file));
    all.push(model2vec(file));
    all
}

/// The same model with layers of three units.
fn narrow(config: ModelConfig) -> ModelConfig {
    let keys = serde_json::to_value(&config).unwrap();
    let wanted = ["hidden_size", "embedding_dim", "ngram_buckets"];
    let there = wanted.iter().filter(|key| keys.get(**key).is_some_and(|v| *v != 0));
    let overrides = there.map(|key| (key.to_string(), 3.into())).collect();
    config.with_overrides(overrides).unwrap()
}

fn read<M: PretrainedModel>(keys: Value) -> M::Config {
    M::read_config(keys.as_object().unwrap().clone()).unwrap()
}

/// Two rows, of which the second is padded.
fn text() -> candle_core::Result<TextBatch> {
    let ids = Tensor::new(&[[2u32, 3, 4], [5, 1, 1]], &Device::Cpu)?;
    TextBatch::with_mask(ids, vec![vec![1, 1, 1], vec![1, 0, 0]])
}

fn bert_config() -> Value {
    json!({
        "model_type": "bert", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 6, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
        "layer_norm_eps": 1e-12, "pad_token_id": 0, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1},
    })
}

fn distilbert_config() -> Value {
    json!({
        "model_type": "distilbert", "vocab_size": 12, "dim": 4, "n_layers": 2, "n_heads": 2, "hidden_dim": 6,
        "max_position_embeddings": 8, "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1,
        "seq_classif_dropout": 0.2, "initializer_range": 0.02, "pad_token_id": 0, "sinusoidal_pos_embds": false,
        "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1},
    })
}

fn roberta_config() -> Value {
    let mut keys = bert_config();
    keys["model_type"] = "roberta".into();
    keys["pad_token_id"] = 1.into();
    keys["type_vocab_size"] = 1.into();
    keys
}

fn encoders(file: &'static str) -> Vec<Checkpoint> {
    macro_rules! heads {
        ($keys:ident: $($model:path),+) => {
            [$(Checkpoint::saved::<$model>(&read::<$model>($keys()), file, |m| m.forward(&text()?, &Context::eval()))),+]
        };
    }
    let mut all = vec![
        Checkpoint::saved::<bert::BertModel>(&read::<bert::BertModel>(bert_config()), file, |m| {
            Ok(m.forward(&text()?, &Context::eval())?.last_hidden_state)
        }),
        Checkpoint::saved::<roberta::RobertaModel>(
            &read::<roberta::RobertaModel>(roberta_config()),
            file,
            |m| Ok(m.forward(&text()?, &Context::eval())?.last_hidden_state),
        ),
    ];
    all.extend(heads!(bert_config: bert::BertForMaskedLm, bert::BertForSequenceClassification, bert::BertForTokenClassification));
    all.extend(heads!(roberta_config: roberta::RobertaForMaskedLm, roberta::RobertaForSequenceClassification, roberta::RobertaForTokenClassification));
    all.extend(heads!(distilbert_config: distilbert::DistilBertModel, distilbert::DistilBertForMaskedLm,
        distilbert::DistilBertForSequenceClassification, distilbert::DistilBertForTokenClassification));
    all
}

fn generators(file: &'static str) -> Vec<Checkpoint> {
    macro_rules! causal {
        ($model:ty, $keys:expr) => {
            Checkpoint::saved::<$model>(&read::<$model>($keys), file, |m| {
                m.forward(&text()?, &Context::eval())
            })
        };
    }
    macro_rules! seq2seq {
        ($model:ty, $keys:expr) => {
            Checkpoint::saved::<$model>(&read::<$model>($keys), file, |m| {
                m.forward(&text()?, &text()?, &Context::eval())
            })
        };
    }
    let bart = json!({
        "model_type": "bart", "vocab_size": 12, "d_model": 4, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 6, "decoder_ffn_dim": 6,
        "max_position_embeddings": 8, "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "init_std": 0.02, "scale_embedding": false, "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2, "tie_word_embeddings": true,
    });
    let mut marian = bart.clone();
    marian["model_type"] = "marian".into();
    marian["decoder_vocab_size"] = 12.into();
    marian["scale_embedding"] = true.into();
    marian["share_encoder_decoder_embeddings"] = true.into();
    let t5 = |form: &str| {
        json!({
            "model_type": "t5", "vocab_size": 12, "d_model": 4, "d_kv": 2, "d_ff": 6, "num_layers": 1,
            "num_decoder_layers": 1, "num_heads": 2, "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16, "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6,
            "initializer_factor": 1.0, "feed_forward_proj": form, "tie_word_embeddings": form == "relu",
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "is_encoder_decoder": true,
        })
    };
    let tokens: Vec<String> = (0..12).map(|i| format!("t{i}")).collect();
    let gru = json!({
        "model_type": "gru-seq2seq", "source_tokens": tokens, "target_tokens": tokens, "hidden_size": 3,
        "num_layers": 1, "dropout": 0.1, "start": 1, "end": 2,
    });
    let opennmt = json!({
        "model_type": "opennmt", "d_model": 4, "nhead": 2, "num_layers": 1, "dim_feedforward": 6,
        "activation": "relu", "dropout": 0.1, "norm_first": true, "layer_norm_eps": 1e-5, "scale_embedding": true,
        "first_position": 1, "blank": 0, "start": 1, "end": 2, "source_tokens": tokens, "target_tokens": tokens,
    });
    let llama = json!({
        "model_type": "llama", "vocab_size": 12, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "hidden_act": "silu",
        "max_position_embeddings": 8, "initializer_range": 0.02, "rms_norm_eps": 1e-6, "attention_bias": false,
        "mlp_bias": false, "tie_word_embeddings": false, "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8},
    });
    let gpt2 = json!({
        "model_type": "gpt2", "vocab_size": 12, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 2,
        "n_inner": 6, "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false, "tie_word_embeddings": true,
    });
    vec![
        causal!(gpt2::Gpt2Model, gpt2.clone()),
        causal!(gpt2::Gpt2LmHead, gpt2),
        causal!(llama::LlamaForCausalLm, llama),
        causal!(t5::T5EncoderModel, t5("relu")),
        seq2seq!(t5::T5ForConditionalGeneration, t5("relu")),
        seq2seq!(t5::T5ForConditionalGeneration, t5("gated-gelu")),
        seq2seq!(bart::BartForConditionalGeneration, bart),
        seq2seq!(marian::MarianMtModel, marian),
        seq2seq!(opennmt::OpenNmtTransformer, opennmt),
        seq2seq!(GruSeq2Seq, gru),
    ]
}

fn vision(file: &'static str) -> Checkpoint {
    let keys = json!({
        "model_type": "vit", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 6, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "image_size": 4, "patch_size": 2, "num_channels": 3,
        "qkv_bias": true, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1},
    });
    type Model = vit::VitForImageClassification;
    Checkpoint::saved::<Model>(&read::<Model>(keys), file, |m| {
        m.forward(&Tensor::zeros((1, 3, 4, 4), DType::F32, &Device::Cpu)?, &Context::eval())
    })
}

/// A tokenizer of twelve words.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,"model":{"type":"WordLevel",
"vocab":{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7,"i":8,"j":9,"k":10,"[UNK]":11},"unk_token":"[UNK]"}}"#;

fn model2vec(file: &'static str) -> Checkpoint {
    let dir = TempDir::new().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put(
        CONFIG,
        r#"{"model_type":"model2vec","architectures":["StaticModel"],"normalize":true,"hidden_dim":2}"#,
    );
    put("tokenizer.json", TOKENIZER);
    let table = Tensor::zeros((12, 2), DType::F32, &Device::Cpu).unwrap();
    table.save_safetensors("embeddings", dir.path().join(WEIGHTS)).unwrap();
    let load = |dir: &Path| match Model2Vec::from_folder(dir, &Device::Cpu) {
        Ok(model) => {
            let _ = model.encode(&[vec![1, 2], vec![]]);
            true
        }
        Err(_) => false,
    };
    Checkpoint::new(dir, file, Box::new(load))
}

/// The files that only sentence encoders have.
pub(crate) fn sentence_files() -> Vec<Checkpoint> {
    let modules = ["Transformer", "Pooling", "Dense", "Normalize"];
    let paths = ["", "1_Pooling", "2_Dense", "3_Normalize"];
    let module = |(i, (kind, path)): (usize, (&str, &str))| json!({"idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")});
    let modules: Vec<_> = modules.into_iter().zip(paths).enumerate().map(module).collect();
    let pooling = json!({
        "word_embedding_dimension": 4, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true,
        "pooling_mode_max_tokens": true, "pooling_mode_mean_sqrt_len_tokens": false,
    });
    let dense = json!({
        "in_features": 8, "out_features": 2, "bias": true,
        "activation_function": "torch.nn.modules.activation.Tanh",
    });
    let settings = json!({"max_seq_length": 6, "do_lower_case": true});
    let checkpoint = |file: &'static str| {
        let dir = folder::<bert::BertModel>(&read::<bert::BertModel>(bert_config()));
        for below in paths {
            fs::create_dir_all(dir.path().join(below)).unwrap();
        }
        let put = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
        put("modules.json", json!(modules).to_string());
        put("sentence_bert_config.json", settings.to_string());
        put("1_Pooling/config.json", pooling.to_string());
        put("2_Dense/config.json", dense.to_string());
        put("tokenizer.json", TOKENIZER.to_string());
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let map = [("linear.weight", zeros(&[2, 8])), ("linear.bias", zeros(&[2]))];
        let map = std::collections::HashMap::from(map);
        candle_core::safetensors::save(&map, dir.path().join("2_Dense").join(WEIGHTS)).unwrap();
        let load = |dir: &Path| match SentenceEncoder::from_folder(dir, DType::F32, &Device::Cpu) {
            Ok(encoder) => {
                let _ = text().and_then(|batch| encoder.encode(&batch));
                true
            }
            Err(_) => false,
        };
        Checkpoint::new(dir, file, Box::new(load))
    };
    [
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    ]
    .map(checkpoint)
    .into()
}
