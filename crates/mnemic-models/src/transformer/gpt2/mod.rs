//! GPT-2: A. Radford, J. Wu, R. Child, D. Luan, D. Amodei, I. Sutskever, Language Models are Unsupervised Multitask Learners, 2019.
//!
//! A decoder with norms before its sub-layers: `x_0 = wte[ids] + wpe[0..t]`; each layer is `x = x + attention(LN(x))`,
//! `x = x + W_o gelu(W_i LN(x) + b_i) + b_o`, with causal attention; then a last norm. The language model's scores are `LN(x) wteᵀ`.
//!
//! Letters: b batch, t tokens, d `n_embd`, v `vocab_size`.
//!
//! Parameters have the names of the published checkpoints: `wte`, `wpe`, `h.{i}.*`, `ln_f`, below `transformer.` in the model with a head;
//! checkpoints with or without that prefix are read, and mask buffers in them (`h.{i}.attn.bias`, `masked_bias`) are left. There, weights of
//! layers lie `(in, out)`; here `(out, in)`, as all linear maps do: they are turned in reading and writing.
//!
//! Differences from the paper: none in the forward pass. Positions count the tokens of a row, so that padding on either side changes
//! nothing. `reorder_and_upcast_attn` makes no difference to 32-bit numbers; cross-attention is not supported.

mod config;
mod layer;
#[cfg(test)]
mod tests;

use candle_core::{DType, Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Embedding, LayerNorm, Linear, add, init};
use serde_json::{Map, Value};

use crate::autoregressive::Autoregressive;
use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::causal::{CausalState, Pass, last};

pub use config::Config;
use layer::Layer;

/// The decoder without a head, as `GPT2Model`.
#[derive(Debug, Clone)]
pub struct Gpt2Model {
    wte: Embedding,
    wpe: Embedding,
    layers: Vec<Layer>,
    ln_f: LayerNorm,
    dropout: f64,
    n_positions: usize,
}

impl Gpt2Model {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let (d, std) = (config.n_embd, config.initializer_range);
        let table = |n, std, name| Embedding::new(n, d, init::normal(std), None, vb.pp(name));
        let layer = |i| Layer::new(config, i, vb.pp("h").pp(i));
        Ok(Self {
            wte: table(config.vocab_size, std, "wte")?,
            wpe: table(config.n_positions, std / 2., "wpe")?,
            layers: (0..config.n_layer).map(layer).collect::<Result<_>>()?,
            ln_f: LayerNorm::new(d, config.norm(), vb.pp("ln_f"))?,
            dropout: config.embd_pdrop,
            n_positions: config.n_positions,
        })
    }

    /// Hidden states after the last norm, `(b, t, d)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// When a row has more than `n_positions` tokens or an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let mut pass = Pass::whole(batch, Some(self.n_positions))?;
        let xs = self.ln_f.forward(&self.read(batch.input_ids(), &mut pass, ctx)?)?;
        ctx.watch("hidden_states", self.layers.len(), || Ok(xs.clone()))?;
        Ok(xs)
    }

    /// Hidden states before the last norm.
    fn read(&self, ids: &Tensor, pass: &mut Pass<'_>, ctx: &Context) -> Result<Tensor> {
        let places = self.wpe.forward(&pass.position_ids(ids.device())?)?;
        let mut xs = ctx.dropout(&add(&self.wte.forward(ids)?, &places)?, self.dropout)?;
        for (i, layer) in self.layers.iter().enumerate() {
            ctx.watch("hidden_states", i, || Ok(xs.clone()))?;
            xs = layer.forward(&xs, pass, ctx)?;
        }
        Ok(xs)
    }

    fn dtype(&self) -> DType {
        self.wte.weight().dtype()
    }
}

/// The language model, as `GPT2LMHeadModel`: for training by [`forward`](Self::forward), and for writing as [`Autoregressive`].
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::gpt2::{Config, Gpt2LmHead};
/// use mnemic_models::{Autoregressive, Context, Padding, ParamStore, TextBatch};
/// let config = Config { n_layer: 2, n_embd: 24, vocab_size: 50, ..Config::small() };
/// let store = ParamStore::new(0);
/// let model = Gpt2LmHead::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = TextBatch::from_rows(&[vec![2, 7, 3], vec![4, 3]], 0, Padding::Left, &Device::Cpu)?;
/// let logits = model.forward(&batch, &Context::eval())?;
/// assert_eq!(logits.dims(), [2, 3, 50]);
/// let mut state = model.start(&batch, &Context::eval())?;
/// let next = model.step(batch.input_ids(), &mut state, &Context::eval())?;
/// assert_eq!(next.dims(), [2, 50]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gpt2LmHead {
    transformer: Gpt2Model,
    lm_head: Linear,
}

impl Gpt2LmHead {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        let transformer = Gpt2Model::new(config, vb.pp("transformer"))?;
        let lm_head = match config.tie_word_embeddings {
            true => transformer.wte.weight().clone(),
            false => {
                let init = init::normal(config.initializer_range);
                vb.get_with_hints((config.vocab_size, config.n_embd), "lm_head.weight", init)?
            }
        };
        Ok(Self { transformer, lm_head: Linear::new(lm_head, None) })
    }

    /// Scores (logits) of the token after each, `(b, t, v)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// As [`Gpt2Model::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        self.lm_head.forward(&self.transformer.forward(batch, ctx)?)
    }
}

impl Autoregressive for Gpt2LmHead {
    type State = CausalState;

    fn vocab_size(&self) -> usize {
        self.lm_head.weight().dims().first().copied().unwrap_or(0)
    }

    fn is_encoder_decoder(&self) -> bool {
        false
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.transformer.n_positions)
    }

    fn start(&self, batch: &TextBatch, _: &Context) -> Result<CausalState> {
        Ok(CausalState::new(batch, self.transformer.layers.len()))
    }

    fn step(&self, ids: &Tensor, state: &mut CausalState, ctx: &Context) -> Result<Tensor> {
        let model = &self.transformer;
        let mut pass = state.pass(ids, Some(model.n_positions), model.dtype())?;
        let xs = last(&model.read(ids, &mut pass, ctx)?)?; // (b, d)
        self.lm_head.forward(&model.ln_f.forward(&xs)?)
    }

    fn select(&self, state: &mut CausalState, rows: &[u32]) -> Result<()> {
        state.select(rows)
    }
}

/// Whether the tensor is a weight that checkpoints hold `(in, out)`.
fn is_turned(name: &str) -> bool {
    ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|end| name.ends_with(end))
}

/// Where the tensor `name` belongs in a model whose decoder is called `base`.
fn place(base: &str, name: &str) -> Place {
    let inner = name.strip_prefix("transformer.").unwrap_or(name);
    if inner.ends_with(".attn.bias") || inner.ends_with(".attn.masked_bias") {
        return Place::Nowhere;
    }
    let name = format!("{base}{inner}");
    if is_turned(inner) { Place::Transposed(name) } else { Place::As(name) }
}

fn stored(name: &str) -> Place {
    let name = name.to_string();
    if is_turned(&name) { Place::Transposed(name) } else { Place::As(name) }
}

impl PretrainedModel for Gpt2Model {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<Map<String, Value>> {
        config.keys("GPT2Model")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        if name == "lm_head.weight" { Place::Nowhere } else { place("", name) }
    }

    fn stored(_: &Config, name: &str) -> Place {
        stored(name)
    }
}

impl PretrainedModel for Gpt2LmHead {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<Map<String, Value>> {
        config.keys("GPT2LMHeadModel")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(config: &Config, name: &str) -> Place {
        match name {
            "lm_head.weight" if config.tie_word_embeddings => Place::Nowhere,
            "lm_head.weight" => Place::As(name.to_string()),
            _ => place("transformer.", name),
        }
    }

    fn stored(_: &Config, name: &str) -> Place {
        stored(name)
    }

    fn is_head(name: &str) -> bool {
        name.starts_with("lm_head.")
    }
}
