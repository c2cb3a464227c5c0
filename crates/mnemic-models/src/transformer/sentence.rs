//! Sentence embeddings: N. Reimers and I. Gurevych, EMNLP 2019, arXiv 1908.10084, as `sentence-transformers` stores them.
//!
//! An encoder gives a state for every token; pooling makes one vector of them (the mean, in most models), which may go through dense layers
//! and is often brought to length 1.
//!
//! | file of the folder | what it says |
//! | --- | --- |
//! | `modules.json` | the steps and their folders; without it, the mean over the tokens |
//! | `sentence_bert_config.json` | `max_seq_length`, `do_lower_case` |
//! | `config.json`, `model.safetensors` | the encoder: BERT, RoBERTa or DistilBERT |
//! | `1_Pooling/config.json` | how states are pooled; several ways give longer vectors |
//! | `2_Dense/config.json`, `2_Dense/model.safetensors` | `f(W x + b)` |
//!
//! Letters: b batch, t tokens, d width.

mod pooling;
mod steps;
#[cfg(test)]
mod tests;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mnemic_layers::Context;
use serde_json::Value;

use super::bert::BertModel;
use super::distilbert::DistilBertModel;
use super::roberta::RobertaModel;
use crate::any::MODEL_TYPE;
use crate::error::{Error, Result, unknown};
use crate::pretrained::{PretrainedModel, from_pretrained, read_keys};
use crate::text::TextBatch;
use steps::{Step, read_steps};

pub use pooling::Pooling;
pub(crate) use steps::normalize;

/// A model of sentences, for inference.
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::sentence::SentenceEncoder;
/// let encoder = SentenceEncoder::from_folder("all-MiniLM-L6-v2", DType::F32, &Device::Cpu)?;
/// # #[cfg(feature = "tokenizers")] {
/// let embeddings = encoder.embed(&["A man is eating food.", "Someone eats."])?; // (2, 384)
/// println!("{}", embeddings.matmul(&embeddings.t()?)?); // cosines, as vectors have length 1
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SentenceEncoder {
    encoder: Encoder,
    steps: Vec<Step>,
    max_length: Option<usize>,
    #[cfg(feature = "tokenizers")]
    texts: Texts,
}

/// How texts become batches.
#[cfg(feature = "tokenizers")]
#[derive(Debug, Clone)]
struct Texts {
    tokenizer: Option<crate::pretrained::Tokenizer>,
    lower_case: bool,
    place: String,
    device: Device,
}

/// The encoders there are.
#[derive(Debug, Clone)]
enum Encoder {
    Bert(BertModel),
    Roberta(RobertaModel),
    DistilBert(DistilBertModel),
}

impl SentenceEncoder {
    /// Reads a folder, with parameters of type `dtype` on `device`.
    ///
    /// # Errors
    /// As [`from_pretrained`], and when a step is not one of those above.
    pub fn from_folder(dir: impl AsRef<Path>, dtype: DType, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let (below, steps) = read_steps(dir, dtype, device)?;
        let below = dir.join(below);
        let (encoder, positions) = Encoder::read(&below, dtype, device)?;
        let path = below.join("sentence_bert_config.json");
        let settings = if path.is_file() { read_keys(&path)? } else { Default::default() };
        let limit = settings.get("max_seq_length").and_then(Value::as_u64);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        #[cfg(feature = "tokenizers")]
        let (texts, limit) = {
            let lower_case = settings.get("do_lower_case").and_then(Value::as_bool) == Some(true);
            let texts = Texts::read(&below, lower_case, device)?;
            let limit = limit.or_else(|| texts.tokenizer.as_ref()?.model_max_length());
            let limit = Some(limit.unwrap_or(positions).min(positions));
            (texts.with_limit(limit)?, limit)
        };
        #[cfg(not(feature = "tokenizers"))]
        let limit = Some(limit.unwrap_or(positions).min(positions));
        Ok(Self {
            encoder,
            steps,
            max_length: limit,
            #[cfg(feature = "tokenizers")]
            texts,
        })
    }

    /// The most tokens of a sentence: longer ones are cut by `embed` (feature `tokenizers`).
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The vectors of a batch, `(b, d)`.
    ///
    /// # Errors
    /// When a row is too long for the encoder or an id is not in the vocabulary.
    pub fn encode(&self, batch: &TextBatch) -> candle_core::Result<Tensor> {
        let forward = || self.forward(batch, &Context::eval());
        // Elsewhere it is the device that works.
        if batch.input_ids().device().is_cpu() { mnemic_layers::awake(forward) } else { forward() }
    }

    /// [`encode`](Self::encode) with a context, which may be watching.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> candle_core::Result<Tensor> {
        let states = self.encoder.forward(batch, ctx)?; // (b, t, d)
        let mut xs = states;
        for step in &self.steps {
            xs = step.forward(&xs, batch)?;
        }
        Ok(xs)
    }
}

#[cfg(feature = "tokenizers")]
impl SentenceEncoder {
    /// The most sentences that go through the encoder together.
    const BATCH: usize = 64;

    /// Tokens, padding included, with which a batch is large enough for full speed.
    const TOKENS: usize = 256;

    /// The tokenizer, cutting at [`max_length`](Self::max_length), where the folder has one.
    pub fn tokenizer(&self) -> Option<&crate::pretrained::Tokenizer> {
        self.texts.tokenizer.as_ref()
    }

    /// How many of the first rows, the longest first, make a batch: more go in while it is small, or while less than a tenth of a row is
    /// padding.
    fn together(lengths: &[usize]) -> usize {
        let longest = lengths.first().copied().unwrap_or(0);
        let fits = |&(i, length): &(usize, &usize)| {
            i < Self::BATCH && (i * longest < Self::TOKENS || length * 10 >= longest * 9)
        };
        lengths.iter().enumerate().take_while(fits).count().max(1)
    }

    /// The vectors of texts, `(n, d)`, in their order. Texts of like length go together, so that there is little padding.
    ///
    /// # Errors
    /// When there is no text or no tokenizer, or a text cannot be encoded.
    pub fn embed(&self, texts: &[&str]) -> Result<Tensor> {
        let Some(tokenizer) = &self.texts.tokenizer else {
            let reason = "expected a tokenizer in the folder: tokenizer.json or vocab.txt";
            return Err(Error::config(self.texts.place.clone(), reason));
        };
        let lower: Vec<String>;
        let mut texts = texts.to_vec();
        if self.texts.lower_case {
            lower = texts.iter().map(|text| text.to_lowercase()).collect();
            texts = lower.iter().map(String::as_str).collect();
        }
        if texts.is_empty() {
            return Err(Error::config("sentence encoder", "expected at least one text"));
        }
        let rows = tokenizer.encode_rows(&texts)?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(rows[i].ids.len()));
        let embed = |part: &[usize]| -> Result<Tensor> {
            let rows: Vec<_> = part.iter().map(|&i| rows[i].clone()).collect();
            Ok(self.encode(&tokenizer.batch(&rows, &self.texts.device)?)?)
        };
        let lengths: Vec<usize> = order.iter().map(|&i| rows[i].ids.len()).collect();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < order.len() {
            let end = at + Self::together(&lengths[at..]);
            parts.push(embed(&order[at..end])?);
            at = end;
        }
        let mut back = vec![0u32; order.len()];
        order.iter().enumerate().for_each(|(at, &i)| back[i] = at as u32);
        let back = Tensor::new(back.as_slice(), &self.texts.device)?;
        Ok(Tensor::cat(&parts, 0)?.index_select(&back, 0)?)
    }
}

#[cfg(feature = "tokenizers")]
impl Texts {
    fn read(dir: &Path, lower_case: bool, device: &Device) -> Result<Self> {
        let files = ["tokenizer.json", "vocab.txt", "vocab.json"];
        let tokenizer = match files.iter().any(|name| dir.join(name).is_file()) {
            true => Some(crate::pretrained::Tokenizer::from_folder(dir)?),
            false => None,
        };
        let place = dir.display().to_string();
        Ok(Self { tokenizer, lower_case, place, device: device.clone() })
    }

    fn with_limit(mut self, limit: Option<usize>) -> Result<Self> {
        if let (Some(tokenizer), Some(limit)) = (self.tokenizer.take(), limit) {
            self.tokenizer = Some(tokenizer.with_max_length(limit)?);
        }
        Ok(self)
    }
}

impl Encoder {
    /// The encoder, cut from the graph, and the most tokens that it reads.
    fn read(dir: &Path, dtype: DType, device: &Device) -> Result<(Self, usize)> {
        fn load<M: PretrainedModel>(
            dir: &Path,
            dtype: DType,
            device: &Device,
        ) -> Result<(M, M::Config)> {
            let loaded = from_pretrained::<M>(dir, dtype, device)?;
            Ok((loaded.inference_model(dtype, device)?, loaded.config))
        }
        let keys = read_keys(&dir.join("config.json"))?;
        match keys.get(MODEL_TYPE).and_then(Value::as_str).unwrap_or("") {
            "bert" => {
                let (model, config) = load::<BertModel>(dir, dtype, device)?;
                Ok((Self::Bert(model), config.max_position_embeddings))
            }
            "roberta" | "xlm-roberta" | "camembert" => {
                let (model, config) = load::<RobertaModel>(dir, dtype, device)?;
                let positions = config.max_tokens();
                Ok((Self::Roberta(model), positions))
            }
            "distilbert" => {
                let (model, config) = load::<DistilBertModel>(dir, dtype, device)?;
                Ok((Self::DistilBert(model), config.max_position_embeddings))
            }
            other => {
                let known = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert"];
                let place = format!("{}: {MODEL_TYPE}", dir.display());
                Err(Error::config(place, unknown("encoder", other, &known)))
            }
        }
    }

    fn forward(&self, batch: &TextBatch, ctx: &Context) -> candle_core::Result<Tensor> {
        match self {
            Self::Bert(model) => model.states(batch, ctx),
            Self::Roberta(model) => model.states(batch, ctx),
            Self::DistilBert(model) => model.forward(batch, ctx),
        }
    }
}
