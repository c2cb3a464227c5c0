//! BART: M. Lewis, Y. Liu, N. Goyal, M. Ghazvininejad, A. Mohamed, O. Levy, V. Stoyanov, L. Zettlemoyer, ACL 2020, arXiv 1910.13461.
//!
//! A Transformer that reads a text and writes one: encoder and decoder of post-norm layers `x = LN(x + f(x))`, where `f` is self-attention
//! (causal in the decoder), then, in the decoder, attention to the encoder's output, then `W_2 gelu(W_1 x + b_1) + b_2`. Both begin with
//! `x_i = LN(word[id_i] + position[i + 2])`; scores of the next word are `x word^T + final_logits_bias`.
//!
//! Letters: b batch, s source tokens, t target tokens, d `d_model`, v `vocab_size`.
//!
//! Parameters have the names of the published checkpoints: `model.shared.weight` for the word vectors of both sides and the output,
//! `model.{encoder,decoder}.embed_positions.weight (max + 2, d)`, `….layernorm_embedding.*`, `….layers.{i}.*`, and `final_logits_bias (1, v)`,
//! which may be missing and is not trained. Checkpoints with or without `model.` are read.
//!
//! Differences from the paper: none in the forward pass. Whole layers are not dropped in training (`encoder_layerdrop`), and heads for
//! classes are not read.

mod config;
mod stacks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_nn::VarBuilder;
use mnemic_layers::{Embedding, LayerNorm, LayerNormConfig};
use serde_json::{Map, Value};

pub use config::Config;
pub(super) use config::yes;
pub(super) use stacks::{decoder, encoder, head, table};

use crate::error::Result;
use crate::pretrained::{Place, PretrainedModel};
use crate::transformer::seq2seq::{Embedder, Positions, Seq2Seq, seq2seq};

/// The rows of the table of positions before that of position 0.
const OFFSET: usize = 2;

/// The model that writes, as `BartForConditionalGeneration`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::bart::{BartForConditionalGeneration, Config};
/// use mnemic_models::{Autoregressive, Context, Padding, ParamStore, TextBatch};
/// let config = Config { encoder_layers: 1, decoder_layers: 2, vocab_size: 50, ..Config::base() };
/// let store = ParamStore::new(0);
/// let model = BartForConditionalGeneration::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let (device, ctx) = (Device::Cpu, Context::eval());
/// let source = TextBatch::from_rows(&[vec![0, 7, 3, 2], vec![0, 3, 2]], 1, Padding::Right, &device)?;
/// let target = TextBatch::from_rows(&[vec![2, 0, 9], vec![2, 0, 4]], 1, Padding::Right, &device)?;
/// let logits = model.forward(&source, &target, &ctx)?;
/// assert_eq!(logits.dims(), [2, 3, 50]);
///
/// let mut state = model.start(&source, &ctx)?;
/// assert_eq!(model.step(target.input_ids(), &mut state, &ctx)?.dims(), [2, 50]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BartForConditionalGeneration {
    inner: Seq2Seq,
}

seq2seq!(BartForConditionalGeneration, "bart");

impl BartForConditionalGeneration {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let model = vb.pp("model");
        let words = table(config, config.vocab_size, model.pp("shared"))?;
        let embedder = |side: &str| embedder(config, &words, model.pp(side));
        let inner = Seq2Seq {
            source: embedder("encoder")?,
            encoder: encoder(config, &model.pp("encoder"))?,
            target: embedder("decoder")?,
            decoder: decoder(config, &model.pp("decoder"))?,
            head: head(config, &words, &vb)?,
        };
        Ok(Self { inner })
    }
}

fn embedder(config: &Config, words: &Embedding, vb: VarBuilder<'_>) -> Result<Embedder> {
    let rows = config.max_position_embeddings + OFFSET;
    let positions = Positions::Learned {
        table: table(config, rows, vb.pp("embed_positions"))?,
        offset: OFFSET,
    };
    let norm =
        LayerNorm::new(config.d_model, LayerNormConfig::default(), vb.pp("layernorm_embedding"))?;
    Ok(Embedder {
        words: words.clone(),
        fixed: None,
        scale: config.scale(),
        positions,
        max_positions: Some(config.max_position_embeddings),
        norm: Some(norm),
        dropout: config.dropout,
    })
}

impl PretrainedModel for BartForConditionalGeneration {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> Result<Map<String, Value>> {
        config.keys()
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(config, vb)
    }

    fn place(config: &Config, name: &str) -> Place {
        let inner = name.strip_prefix("model.").unwrap_or(name);
        match inner {
            "final_logits_bias" => Place::As(name.into()),
            "lm_head.weight" if !config.tie_word_embeddings => Place::As(name.into()),
            "lm_head.weight" | "encoder.embed_tokens.weight" | "decoder.embed_tokens.weight" => {
                Place::Nowhere
            }
            "encoder.version" | "decoder.version" => Place::Nowhere,
            _ if inner.starts_with("classification_head.") => Place::Nowhere,
            _ => Place::As(format!("model.{inner}")),
        }
    }

    fn adapt(config: &mut Config, found: &BTreeMap<String, Vec<usize>>) {
        config.final_logits_bias = found.contains_key("final_logits_bias");
    }

    fn is_head(name: &str) -> bool {
        name == "lm_head.weight"
    }
}
