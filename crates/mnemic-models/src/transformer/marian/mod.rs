//! Marian: M. Junczys-Dowmunt et al., ACL 2018 (system demonstrations), arXiv 1804.00344; the translation models of OPUS-MT, J. Tiedemann and
//! S. Thottingal, EAMT 2020.
//!
//! The Transformer of Vaswani et al. 2017 with post-norm layers: as [BART](super::bart), but `x_i = √d word[id_i] + P[i]` without a norm,
//! where `P[i] = (sin(i ω_0), sin(i ω_1), …, cos(i ω_0), cos(i ω_1), …)` and `ω_k = 10000^{-2k/d}`; the activation is `x σ(x)`; and
//! `final_logits_bias` holds the biases of the scores. Decoding starts with the pad token, which must then never be written
//! (`bad_words_ids` of `generation_config.json`).
//!
//! Letters: b batch, s source tokens, t target tokens, d `d_model`, v the target's vocabulary.
//!
//! Parameters have the names of the published checkpoints: `model.shared.weight`, or `model.{encoder,decoder}.embed_tokens.weight` where
//! `share_encoder_decoder_embeddings` is false, `model.{encoder,decoder}.layers.{i}.*` and `final_logits_bias (1, v)`, which is not trained.
//! Stored positions (`embed_positions.weight`) are not read: they are the numbers above.
//!
//! The vector of the pad token is read but, as in `transformers`, gets no gradient from being read; only from the output layer.
//!
//! Differences from the paper: none in the forward pass.

mod config;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_nn::VarBuilder;
use mnemic_layers::{Embedding, SinusoidLayout};
use serde_json::{Map, Value};

pub use config::Config;

use super::bart::{decoder, encoder, head, table};
use crate::error::Result;
use crate::pretrained::{Place, PretrainedModel};
use crate::transformer::seq2seq::{Embedder, Positions, Seq2Seq, seq2seq};

/// The model that translates, as `MarianMTModel`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::marian::{Config, MarianMtModel};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let mut config = Config::opus_mt(50);
/// (config.bart.encoder_layers, config.bart.decoder_layers) = (1, 1);
/// let store = ParamStore::new(0);
/// let model = MarianMtModel::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let source = TextBatch::from_rows(&[vec![7, 3, 0], vec![3, 0]], 49, Padding::Right, &Device::Cpu)?;
/// let target = TextBatch::from_rows(&[vec![49, 9], vec![49, 4]], 49, Padding::Right, &Device::Cpu)?;
/// let logits = model.forward(&source, &target, &Context::eval())?;
/// assert_eq!(logits.dims(), [2, 2, 50]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MarianMtModel {
    inner: Seq2Seq,
}

seq2seq!(MarianMtModel, "marian");

impl MarianMtModel {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (bart, model) = (&config.bart, vb.pp("model"));
        let words = |rows, name| table(bart, rows, model.pp(name));
        let (sources, targets) = match config.share_encoder_decoder_embeddings {
            true => {
                let shared = words(bart.vocab_size, "shared")?;
                (shared.clone(), shared)
            }
            false => (
                words(bart.vocab_size, "encoder.embed_tokens")?,
                words(config.target_vocab_size(), "decoder.embed_tokens")?,
            ),
        };
        let inner = Seq2Seq {
            encoder: encoder(bart, &model.pp("encoder"))?,
            decoder: decoder(bart, &model.pp("decoder"))?,
            head: head(bart, &targets, &vb)?,
            source: embedder(config, sources),
            target: embedder(config, targets),
        };
        Ok(Self { inner })
    }
}

fn embedder(config: &Config, words: Embedding) -> Embedder {
    let rows = words.weight().dims().first().copied().unwrap_or(0);
    Embedder {
        words,
        fixed: config.pad_token_id().filter(|&pad| (pad as usize) < rows),
        scale: config.bart.scale(),
        positions: Positions::Sinusoids { layout: SinusoidLayout::Halves, first: 0 },
        max_positions: Some(config.bart.max_position_embeddings),
        norm: None,
        dropout: config.bart.dropout,
    }
}

impl PretrainedModel for MarianMtModel {
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
        let (tied, shared) =
            (config.bart.tie_word_embeddings, config.share_encoder_decoder_embeddings);
        let inner = name.strip_prefix("model.").unwrap_or(name);
        match inner {
            "final_logits_bias" => Place::As(name.into()),
            "lm_head.weight" if !tied => Place::As(name.into()),
            "encoder.embed_tokens.weight" | "decoder.embed_tokens.weight" if !shared => {
                Place::As(format!("model.{inner}"))
            }
            "shared.weight" if shared => Place::As("model.shared.weight".into()),
            "lm_head.weight" | "shared.weight" => Place::Nowhere,
            "encoder.embed_tokens.weight" | "decoder.embed_tokens.weight" => Place::Nowhere,
            "encoder.embed_positions.weight" | "decoder.embed_positions.weight" => Place::Nowhere,
            _ => Place::As(format!("model.{inner}")),
        }
    }

    fn adapt(config: &mut Config, found: &BTreeMap<String, Vec<usize>>) {
        config.bart.final_logits_bias = found.contains_key("final_logits_bias");
    }

    fn is_head(name: &str) -> bool {
        name == "lm_head.weight"
    }
}
