//! Llama: H. Touvron et al., LLaMA: Open and Efficient Foundation Language Models, 2023, arXiv 2302.13971, and 2307.09288.
//!
//! A decoder with norms before its sub-layers: `x_0 = E[ids]`; each layer is `x = x + attention(RMS(x))`,
//! `x = x + W_down (silu(W_gate y) ∘ W_up y)` with `y = RMS(x)` (SwiGLU, Shazeer 2020); then a last norm and the output map. Queries and
//! keys are turned by rotary positions; several query heads may share a key-value head (Ainslie et al. 2023).
//!
//! Letters: b batch, t tokens, d `hidden_size`, v `vocab_size`.
//!
//! Parameters have the names of the published checkpoints: `model.embed_tokens`, `model.layers.{i}.*`, `model.norm`, and `lm_head` unless it
//! is tied; names without `model.` are read as well. Checkpoints of other families that differ in keys of the config alone are read
//! too: Mistral (`sliding_window`) and Qwen2 (biases on queries, keys and values).
//!
//! Of the ways to longer texts, `linear` and `llama3` are understood; others (`dynamic`, `yarn`, `longrope`) are refused by name.
//!
//! Differences from the paper: none in the forward pass. Positions count the tokens of a row, so that padding on either side changes
//! nothing. Windows are the same in all layers.

mod config;
mod layer;
mod rope;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Embedding, Linear, RmsNorm, Rotary, init};
use serde_json::{Map, Value};

use crate::autoregressive::Autoregressive;
use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::causal::{CausalState, Pass, last};

pub use config::Config;
use layer::Layer;

/// The language model, as `LlamaForCausalLM`: for training by [`forward`](Self::forward), and for writing as [`Autoregressive`].
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::llama::{Config, LlamaForCausalLm};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let config = Config {
///     num_hidden_layers: 2, hidden_size: 24, intermediate_size: 40, num_attention_heads: 4, num_key_value_heads: Some(2),
///     vocab_size: 50, ..Config::llama_7b()
/// };
/// let store = ParamStore::new(0);
/// let model = LlamaForCausalLm::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = TextBatch::from_rows(&[vec![2, 7, 3], vec![4, 3]], 0, Padding::Right, &Device::Cpu)?;
/// assert_eq!(model.forward(&batch, &Context::eval())?.dims(), [2, 3, 50]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LlamaForCausalLm {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    rotary: Rotary,
}

impl LlamaForCausalLm {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let (v, d) = (config.vocab_size, config.hidden_size);
        let init = init::normal(config.initializer_range);
        let model = vb.pp("model");
        let embed_tokens = Embedding::new(v, d, init, None, model.pp("embed_tokens"))?;
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens.weight().clone(),
            false => vb.get_with_hints((v, d), "lm_head.weight", init)?,
        };
        let layer = |i| Layer::new(config, i, model.pp("layers").pp(i));
        Ok(Self {
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: RmsNorm::new(d, config.rms_norm_eps, model.pp("norm"))?,
            lm_head: Linear::new(lm_head, None),
            rotary: config.rope()?.rotary()?,
            embed_tokens,
        })
    }

    /// Scores (logits) of the token after each, `(b, t, v)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let mut pass = Pass::whole(batch, None)?;
        let xs = self.norm.forward(&self.read(batch.input_ids(), &mut pass, ctx)?)?;
        ctx.watch("hidden_states", self.layers.len(), || Ok(xs.clone()))?;
        self.lm_head.forward(&xs)
    }

    /// Hidden states before the last norm.
    fn read(&self, ids: &Tensor, pass: &mut Pass<'_>, ctx: &Context) -> Result<Tensor> {
        let mut xs = self.embed_tokens.forward(ids)?;
        let tables = self.rotary.tables(&pass.positions, xs.dtype(), xs.device())?;
        for (i, layer) in self.layers.iter().enumerate() {
            ctx.watch("hidden_states", i, || Ok(xs.clone()))?;
            xs = layer.forward(&xs, &tables, pass, ctx)?;
        }
        Ok(xs)
    }
}

impl Autoregressive for LlamaForCausalLm {
    type State = CausalState;

    fn vocab_size(&self) -> usize {
        self.lm_head.weight().dims().first().copied().unwrap_or(0)
    }

    fn is_encoder_decoder(&self) -> bool {
        false
    }

    fn max_positions(&self) -> Option<usize> {
        None
    }

    fn start(&self, batch: &TextBatch, _: &Context) -> Result<CausalState> {
        Ok(CausalState::new(batch, self.layers.len()))
    }

    fn step(&self, ids: &Tensor, state: &mut CausalState, ctx: &Context) -> Result<Tensor> {
        let mut pass = state.pass(ids, None, self.embed_tokens.weight().dtype())?;
        let xs = last(&self.read(ids, &mut pass, ctx)?)?; // (b, d)
        self.lm_head.forward(&self.norm.forward(&xs)?)
    }

    fn select(&self, state: &mut CausalState, rows: &[u32]) -> Result<()> {
        state.select(rows)
    }
}

impl PretrainedModel for LlamaForCausalLm {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<Map<String, Value>> {
        config.keys()
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(config: &Config, name: &str) -> Place {
        match name {
            "lm_head.weight" if config.tie_word_embeddings => Place::Nowhere,
            _ if name.ends_with(".rotary_emb.inv_freq") => Place::Nowhere,
            _ if name.starts_with("model.") || name.starts_with("lm_head.") => {
                Place::As(name.into())
            }
            _ => Place::As(format!("model.{name}")),
        }
    }

    fn is_head(name: &str) -> bool {
        name.starts_with("lm_head.")
    }
}
