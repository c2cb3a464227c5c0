//! Writes Hugging Face checkpoints with `save_pretrained`, one of every class, and beside each what it computes here, so that `transformers`
//! can be asked whether it knows the folder and computes the same (`cargo xtask interop`).
//!
//! `MNEMIC_DATA=… cargo run -p mnemic-models --example save_pretrained -- FOLDER`
//!
//! Each checkpoint of the stored fixtures goes into a folder of its own below FOLDER, read and written again through the parameters. Classes
//! that no fixture has get a new head on an encoder that one has. MNEMIC_MINILM, the folder of all-MiniLM-L6-v2, adds a sentence encoder.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mnemic_models::transformer::bert::{
    BertForMaskedLm, BertForSequenceClassification, BertForTokenClassification, BertModel,
};
use mnemic_models::transformer::distilbert::{
    DistilBertForMaskedLm, DistilBertForSequenceClassification, DistilBertForTokenClassification,
    DistilBertModel,
};
use mnemic_models::transformer::gpt2::{Gpt2LmHead, Gpt2Model};
use mnemic_models::transformer::roberta::{
    RobertaForMaskedLm, RobertaForSequenceClassification, RobertaForTokenClassification,
    RobertaModel,
};
use mnemic_models::transformer::sentence::SentenceEncoder;
use mnemic_models::transformer::t5::{T5EncoderModel, T5ForConditionalGeneration};
use mnemic_models::transformer::vit::{VitForImageClassification, VitModel};
use mnemic_models::transformer::{
    bart::BartForConditionalGeneration, llama::LlamaForCausalLm, marian::MarianMtModel,
};
use mnemic_models::{
    Context, LoadOptions, PretrainedModel, TextBatch, from_pretrained_with, load_tensors,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LOGITS: &str = "logits";
const STATES: &str = "last_hidden_state";
const POOLED: &str = "pooler_output";

fn main() -> Result<()> {
    let to = PathBuf::from(std::env::args().nth(1).ok_or("expected the folder to write to")?);
    let data = std::env::var_os("MNEMIC_DATA").ok_or("MNEMIC_DATA is not set")?;
    let run = Run { fixtures: PathBuf::from(data).join("fixtures"), to };
    let ctx = &Context::eval();
    encoders(&run, ctx)?;
    run.save("gpt2-lm", "gpt2-model", |m: &Gpt2Model, x| one(STATES, m.forward(&x.batch()?, ctx)))?;
    run.save("gpt2-lm", "gpt2-lm", |m: &Gpt2LmHead, x| one(LOGITS, m.forward(&x.batch()?, ctx)))?;
    run.save("llama-lm", "llama-lm", |m: &LlamaForCausalLm, x| {
        one(LOGITS, m.forward(&x.batch()?, ctx))
    })?;
    run.save("bart-generation", "bart-generation", |m: &BartForConditionalGeneration, x| {
        one(LOGITS, m.forward(&x.batch()?, &x.target()?, ctx))
    })?;
    run.save("marian-mt", "marian-mt", |m: &MarianMtModel, x| {
        one(LOGITS, m.forward(&x.batch()?, &x.target()?, ctx))
    })?;
    for name in ["t5", "t5-gated"] {
        run.save(name, name, |m: &T5ForConditionalGeneration, x| {
            one(LOGITS, m.forward(&x.batch()?, &x.target()?, ctx))
        })?;
    }
    run.save("t5", "t5-encoder", |m: &T5EncoderModel, x| one(STATES, m.forward(&x.batch()?, ctx)))?;
    run.save("vit-classifier", "vit-model", |m: &VitModel, x| {
        one(STATES, Ok(m.forward(x.get("pixel_values")?, ctx)?.last_hidden_state))
    })?;
    run.save("vit-classifier", "vit-classifier", |m: &VitForImageClassification, x| {
        one(LOGITS, m.forward(x.get("pixel_values")?, ctx))
    })?;
    match std::env::var_os("MNEMIC_MINILM") {
        Some(model) => run.sentences(Path::new(&model)),
        None => {
            println!("skipped: sentence-encoder: MNEMIC_MINILM is not set");
            Ok(())
        }
    }
}

/// BERT, RoBERTa and DistilBERT, bare and with every head.
fn encoders(run: &Run, ctx: &Context) -> Result<()> {
    run.save("bert-base-model", "bert-model", |m: &BertModel, x| {
        let out = m.forward(&x.batch()?, ctx)?;
        Ok([(STATES, out.last_hidden_state)]
            .into_iter()
            .chain(out.pooler_output.map(|pooled| (POOLED, pooled)))
            .collect())
    })?;
    run.save("roberta-mlm", "roberta-model", |m: &RobertaModel, x| {
        one(STATES, Ok(m.forward(&x.batch()?, ctx)?.last_hidden_state))
    })?;
    run.save("distilbert-classifier", "distilbert-model", |m: &DistilBertModel, x| {
        one(STATES, m.forward(&x.batch()?, ctx))
    })?;
    macro_rules! heads {
        ($($model:ident $from:literal $to:literal)+) => {$(
            run.save($from, $to, |m: &$model, x| one(LOGITS, m.forward(&x.batch()?, ctx)))?;
        )+};
    }
    heads! {
        BertForMaskedLm "bert-mlm" "bert-mlm"
        BertForSequenceClassification "bert-base-model" "bert-classifier"
        BertForTokenClassification "bert-base-model" "bert-tokens"
        RobertaForMaskedLm "roberta-mlm" "roberta-mlm"
        RobertaForSequenceClassification "roberta-mlm" "roberta-classifier"
        RobertaForTokenClassification "roberta-mlm" "roberta-tokens"
        DistilBertForMaskedLm "distilbert-classifier" "distilbert-mlm"
        DistilBertForSequenceClassification "distilbert-classifier" "distilbert-classifier"
        DistilBertForTokenClassification "distilbert-classifier" "distilbert-tokens"
    }
    Ok(())
}

type Outputs = Vec<(&'static str, Tensor)>;

fn one(name: &'static str, output: candle_core::Result<Tensor>) -> Result<Outputs> {
    Ok(vec![(name, output?)])
}

/// From where, and whereto.
struct Run {
    fixtures: PathBuf,
    to: PathBuf,
}

impl Run {
    /// Reads the fixture `from` as an `M`, writes it as `to`, and what it makes of the fixture's inputs.
    fn save<M: PretrainedModel>(
        &self,
        from: &str,
        to: &str,
        outputs: impl Fn(&M, &Inputs) -> Result<Outputs>,
    ) -> Result<()> {
        let (from, dir) = (self.fixtures.join("hf").join(from), self.to.join(to));
        let options = LoadOptions { new_head: Some(3), ..LoadOptions::default() };
        let loaded = from_pretrained_with::<M>(&from, &options)?;
        loaded.save(&dir, &[])?;
        let inputs = Inputs(load_tensors(from.join("fixture.safetensors"), &Device::Cpu)?);
        inputs.write(outputs(&loaded.model, &inputs)?, &dir)?;
        println!("{to}: {} parameters", loaded.store.num_parameters());
        Ok(())
    }

    /// all-MiniLM-L6-v2: its encoder written again, the files of the other steps as they are.
    fn sentences(&self, model: &Path) -> Result<()> {
        let dir = self.to.join("sentence-encoder");
        let loaded = from_pretrained_with::<BertModel>(model, &LoadOptions::default())?;
        loaded.save(&dir, &[])?;
        std::fs::create_dir_all(dir.join("1_Pooling"))?;
        for name in [
            "modules.json",
            "sentence_bert_config.json",
            "1_Pooling/config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.txt",
        ] {
            std::fs::copy(model.join(name), dir.join(name))?;
        }
        let file = self.fixtures.join("real/all-minilm-l6-v2/fixture.safetensors");
        let inputs = Inputs(load_tensors(file, &Device::Cpu)?);
        let encoder = SentenceEncoder::from_folder(&dir, DType::F32, &Device::Cpu)?;
        let outputs = one("sentence_embedding", encoder.encode(&inputs.batch()?))?;
        inputs.write(outputs, &dir)?;
        println!("sentence-encoder: {} parameters", loaded.store.num_parameters());
        Ok(())
    }
}

/// The tensors of a fixture.
struct Inputs(HashMap<String, Tensor>);

impl Inputs {
    /// Those that a model takes.
    const NAMES: [&str; 5] =
        ["input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "pixel_values"];

    fn get(&self, name: &str) -> Result<&Tensor> {
        Ok(self.0.get(name).ok_or_else(|| format!("the fixture lacks {name}"))?)
    }

    fn batch(&self) -> Result<TextBatch> {
        let ids = self.get("input_ids")?.to_dtype(DType::U32)?;
        let mask = match self.0.get("attention_mask") {
            Some(mask) => mask.to_dtype(DType::U8)?,
            None => ids.ones_like()?.to_dtype(DType::U8)?,
        };
        let batch = TextBatch::with_mask(ids, mask.to_vec2::<u8>()?)?;
        match self.0.get("token_type_ids") {
            Some(types) => Ok(batch.with_token_types(types.to_dtype(DType::U32)?)?),
            None => Ok(batch),
        }
    }

    fn target(&self) -> Result<TextBatch> {
        let ids = self.get("decoder_input_ids")?.to_dtype(DType::U32)?;
        let (b, t) = ids.dims2()?;
        Ok(TextBatch::with_mask(ids, vec![vec![1; t]; b])?)
    }

    /// Inputs and outputs, into the folder.
    fn write(&self, outputs: Outputs, dir: &Path) -> Result<()> {
        let inputs =
            Self::NAMES.iter().filter_map(|name| Some((*name, self.0.get(*name)?.clone())));
        let all: HashMap<&str, Tensor> = inputs.chain(outputs).collect();
        Ok(candle_core::safetensors::save(&all, dir.join("outputs.safetensors"))?)
    }
}
