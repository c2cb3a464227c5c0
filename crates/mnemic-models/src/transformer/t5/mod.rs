//! T5: C. Raffel, N. Shazeer, A. Roberts, K. Lee, S. Narang, M. Matena, Y. Zhou, W. Li, P. J. Liu, JMLR 21, 2020, arXiv 1910.10683; the gated form
//! of its version 1.1: N. Shazeer 2020, arXiv 2002.05202.
//!
//! A Transformer that reads a text and writes one, of pre-norm layers `x = x + f(RMSNorm(x))` without any bias, and an RMSNorm at the end
//! of each stack. `f` is self-attention, in the decoder then attention to the encoder's output, then `W_o max(0, W_i x)`, or
//! `W_o (gelu(W_0 x) ∘ W_1 x)` in version 1.1. There are no positions but in self-attention: its weights are
//! `softmax(q_i·k_j + bias[bucket(j - i)])`, not scaled, with a learned bias of each head for each class of distances (see
//! [`mnemic_layers::relative_buckets`]) that all layers of a stack share; causal ones in the decoder. Scores of the next word are
//! `lm_head x`, or `word (x / √d)` where the table of word vectors is the output layer, too (version 1.0).
//!
//! Letters: b batch, s source tokens, t target tokens, d `d_model`, v `vocab_size`.
//!
//! Parameters have the names of the published checkpoints: `shared.weight`, `{encoder,decoder}.block.{i}.layer.{j}.*`,
//! `{encoder,decoder}.final_layer_norm.weight`, `lm_head.weight` where it is not tied.
//!
//! Differences from the paper: none in the forward pass.

mod config;
mod stack;
#[cfg(test)]
mod tests;

use candle_core::{IndexOp, Module, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{AttentionOptions, Context, Embedding, Linear, init, scale};
use serde_json::{Map, Value};

pub use config::{Config, FeedForward};
use stack::Stack;

use crate::autoregressive::Autoregressive;
use crate::error::Result;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::DecoderState;
use crate::transformer::seq2seq::causal;

/// The encoder alone, as `T5EncoderModel`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::t5::{Config, T5EncoderModel};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let config = Config { num_layers: 1, vocab_size: 50, ..Config::small() };
/// let store = ParamStore::new(0);
/// let model = T5EncoderModel::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = TextBatch::from_rows(&[vec![7, 3, 1], vec![3, 1]], 0, Padding::Right, &Device::Cpu)?;
/// assert_eq!(model.forward(&batch, &Context::eval())?.dims(), [2, 3, 512]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct T5EncoderModel {
    words: Embedding,
    encoder: Stack,
}

impl T5EncoderModel {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let init = init::normal(config.initializer_factor);
        let words = Embedding::new(config.vocab_size, config.d_model, init, None, vb.pp("shared"))?;
        Ok(Self { words, encoder: Stack::encoder(config, &vb.pp("encoder"))? })
    }

    /// The encoding `(b, s, d)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> candle_core::Result<Tensor> {
        let xs = self.words.forward(batch.input_ids())?;
        self.encoder.forward(&xs, &batch.options(), (0, None), None, ctx)
    }
}

/// The model that writes, as `T5ForConditionalGeneration`.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::t5::{Config, T5ForConditionalGeneration};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let config = Config { num_layers: 1, vocab_size: 50, ..Config::small_v1_1() };
/// let store = ParamStore::new(0);
/// let model = T5ForConditionalGeneration::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let source = TextBatch::from_rows(&[vec![7, 3, 1], vec![3, 1]], 0, Padding::Right, &Device::Cpu)?;
/// let target = TextBatch::from_rows(&[vec![0, 9], vec![0, 4]], 0, Padding::Right, &Device::Cpu)?;
/// assert_eq!(model.forward(&source, &target, &Context::eval())?.dims(), [2, 2, 50]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct T5ForConditionalGeneration {
    encoder: T5EncoderModel,
    decoder: Stack,
    head: Linear,
    output_scale: Option<f64>,
}

impl T5ForConditionalGeneration {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        let encoder = T5EncoderModel::new(config, vb.clone())?;
        let weight = match config.tie_word_embeddings {
            true => encoder.words.weight().clone(),
            false => {
                let init = init::normal(config.initializer_factor);
                let shape = (config.vocab_size, config.d_model);
                vb.pp("lm_head").get_with_hints(shape, "weight", init)?
            }
        };
        Ok(Self {
            encoder,
            decoder: Stack::decoder(config, &vb.pp("decoder"))?,
            head: Linear::new(weight, None),
            output_scale: config.output_scale(),
        })
    }

    /// The encoder's output, `(b, s, d)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn encode(&self, source: &TextBatch, ctx: &Context) -> candle_core::Result<Tensor> {
        self.encoder.forward(source, ctx)
    }

    /// Scores of the token that follows each of the target's, `(b, t, v)`. The target begins with the start token; for training it is what
    /// is to be written, moved by one place.
    ///
    /// # Errors
    /// When the batches do not fit together or an id is not in the vocabulary.
    pub fn forward(
        &self,
        source: &TextBatch,
        target: &TextBatch,
        ctx: &Context,
    ) -> candle_core::Result<Tensor> {
        let cross = self.decoder.keys_values(&self.encode(source, ctx)?)?;
        let xs = self.encoder.words.forward(target.input_ids())?;
        let source = Some((source, cross.as_slice()));
        self.scores(&self.decoder.forward(&xs, &causal(target), (0, None), source, ctx)?)
    }

    fn scores(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        match self.output_scale {
            Some(factor) => self.head.forward(&scale(xs, factor)?),
            None => self.head.forward(xs),
        }
    }
}

impl Autoregressive for T5ForConditionalGeneration {
    type State = DecoderState;

    fn vocab_size(&self) -> usize {
        self.head.weight().dims().first().copied().unwrap_or(0)
    }

    fn is_encoder_decoder(&self) -> bool {
        true
    }

    fn max_positions(&self) -> Option<usize> {
        None
    }

    fn start(&self, batch: &TextBatch, ctx: &Context) -> candle_core::Result<DecoderState> {
        DecoderState::new(batch, self.decoder.keys_values(&self.encode(batch, ctx)?)?)
    }

    fn step(
        &self,
        ids: &Tensor,
        state: &mut DecoderState,
        ctx: &Context,
    ) -> candle_core::Result<Tensor> {
        state.check(ids)?;
        let xs = self.encoder.words.forward(ids)?;
        let source = Some((&state.source, state.cross.as_slice()));
        let own = AttentionOptions::causal();
        let caches = (state.read, Some(state.caches.as_mut_slice()));
        let xs = self.decoder.forward(&xs, &own, caches, source, ctx)?;
        let t = ids.dim(1)?;
        state.read += t;
        self.scores(&xs.i((.., t - 1))?.contiguous()?)
    }

    fn select(&self, state: &mut DecoderState, rows: &[u32]) -> candle_core::Result<()> {
        state.select(rows)
    }
}

/// Copies of the table of word vectors.
const COPIES: &[&str] = &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// A table of distances that the first checkpoints hold and nothing reads.
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

impl PretrainedModel for T5ForConditionalGeneration {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> Result<Map<String, Value>> {
        config.keys("T5ForConditionalGeneration")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(config, vb)
    }

    fn place(config: &Config, name: &str) -> Place {
        let tied = config.tie_word_embeddings && name == "lm_head.weight";
        match tied || COPIES.contains(&name) || name == UNUSED {
            true => Place::Nowhere,
            false => Place::As(name.into()),
        }
    }

    fn is_head(name: &str) -> bool {
        name == "lm_head.weight"
    }
}

impl PretrainedModel for T5EncoderModel {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> Result<Map<String, Value>> {
        config.keys("T5EncoderModel")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        let foreign = name.starts_with("decoder.") || name == "lm_head.weight";
        match foreign || COPIES.contains(&name) {
            true => Place::Nowhere,
            false => Place::As(name.into()),
        }
    }
}
