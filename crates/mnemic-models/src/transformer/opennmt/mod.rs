//! The Transformer of OpenNMT: G. Klein, Y. Kim, Y. Deng, J. Senellart, A. Rush, ACL 2017 (system demonstrations), arXiv 1701.02810, for the toolkit;
//! A. Vaswani et al., NeurIPS 2017, arXiv 1706.03762, for the model.
//!
//! An encoder and a decoder of pre-norm layers `x = x + f(LN(x))`, with a norm after each stack. `f` is self-attention (causal in the decoder),
//! then, in the decoder, attention to the encoder's output, then `W_2 max(0, W_1 x + b_1) + b_2`. Both begin with
//! `x_i = √d word[id_i] + P[i + first_position]`, where `P[i] = (sin(i ω_0), sin(i ω_1), …, cos(i ω_0), cos(i ω_1), …)` and
//! `ω_k = 10000^{-k/(d/2 - 1)}`; scores of the next token are `W x + b`.
//!
//! Letters: b batch, s source tokens, t target tokens, d `d_model`, v target tokens that there are.
//!
//! Parameters have the names of PyTorch's `nn.Transformer`: `{encoder,decoder}.layers.{i}.*`, `{encoder,decoder}.norm.*`; beside them
//! `source_embedding.weight`, `target_embedding.weight`, `output.{weight,bias}`. The vocabularies stand in `config.json`; each table has one row
//! more, the last, for tokens that are not listed.
//!
//! Differences from the paper: norms stand before the sub-layers, positions count from `first_position` (1) and have the authors' program's
//! frequencies, word vectors and output are not tied.

mod config;
#[cfg(test)]
mod tests;

use candle_nn::VarBuilder;
use mnemic_layers::{
    Embedding, LayerNorm, LayerNormConfig, MultiHeadAttention, MultiHeadConfig, SinusoidLayout,
    init, linear,
};
use serde_json::{Map, Value};

pub use config::Config;

use crate::error::Result;
use crate::pretrained::PretrainedModel;
use crate::transformer::seq2seq::{Embedder, Layer, Positions, Seq2Seq, Stack, seq2seq};

/// The model that writes.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::transformer::opennmt::{Config, OpenNmtTransformer};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let tokens = |text: &str| text.split(' ').map(String::from).collect();
/// let config = Config::base(tokens("<blank> <s> </s> ein Haus"), tokens("<blank> <s> </s> a house"));
/// let config = Config { num_layers: 1, ..config };
/// let store = ParamStore::new(0);
/// let model = OpenNmtTransformer::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let batch = |ids| TextBatch::from_rows(&[ids], 0, Padding::Right, &Device::Cpu);
/// let source = batch(config.source_ids(["ein", "Haus"]))?;
/// let logits = model.forward(&source, &batch(vec![config.start, 3])?, &Context::eval())?;
/// assert_eq!(logits.dims(), [1, 2, 6]);
/// assert_eq!(config.target_tokens(&[3, 4, 2]), ["a", "house"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenNmtTransformer {
    inner: Seq2Seq,
}

seq2seq!(OpenNmtTransformer, "opennmt");

impl OpenNmtTransformer {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (d, v) = (config.d_model, config.target_vocab_size());
        let table = |rows, name| {
            let init = init::normal((d as f64).powf(-0.5));
            Embedding::new(rows, d, init, None, vb.pp(name))
        };
        let inner = Seq2Seq {
            source: embedder(config, table(config.source_vocab_size(), "source_embedding")?),
            encoder: stack(config, false, &vb.pp("encoder"))?,
            target: embedder(config, table(v, "target_embedding")?),
            decoder: stack(config, true, &vb.pp("decoder"))?,
            head: linear(d, v, true, init::xavier_uniform(d, v), vb.pp("output"))?,
        };
        Ok(Self { inner })
    }
}

fn embedder(config: &Config, words: Embedding) -> Embedder {
    let layout = SinusoidLayout::Tensor2Tensor;
    Embedder {
        words,
        fixed: None,
        scale: if config.scale_embedding { (config.d_model as f64).sqrt() } else { 1. },
        positions: Positions::Sinusoids { layout, first: config.first_position },
        max_positions: None,
        norm: None,
        dropout: config.dropout,
    }
}

fn stack(config: &Config, decodes: bool, vb: &VarBuilder<'_>) -> Result<Stack> {
    let layer = |i| layer(config, decodes, i, &vb.pp("layers").pp(i));
    let layers = (0..config.num_layers).map(layer).collect::<candle_core::Result<_>>()?;
    Ok(Stack { layers, norm: Some(norm(config, vb.pp("norm"))?) })
}

fn norm(config: &Config, vb: VarBuilder<'_>) -> candle_core::Result<LayerNorm> {
    let norm = LayerNormConfig { eps: config.layer_norm_eps, ..LayerNormConfig::default() };
    LayerNorm::new(config.d_model, norm, vb)
}

fn layer(
    config: &Config,
    decodes: bool,
    i: usize,
    vb: &VarBuilder<'_>,
) -> candle_core::Result<Layer> {
    let (d, f) = (config.d_model, config.dim_feedforward);
    let norm = |name| norm(config, vb.pp(name));
    let map = |n, m, name| linear(n, m, true, init::xavier_uniform(n, m), vb.pp(name));
    let attention = |name, watch| {
        let heads =
            MultiHeadConfig { dropout: config.dropout, ..MultiHeadConfig::new(d, config.nhead) };
        Ok::<_, candle_core::Error>(
            MultiHeadAttention::new(heads, vb.pp(name))?.watched_as(watch, i),
        )
    };
    let (watch, last) = match decodes {
        true => ("decoder_attention", "norm3"),
        false => ("attention", "norm2"),
    };
    let cross = match decodes {
        true => Some((attention("multihead_attn", "cross_attention")?, norm("norm2")?)),
        false => None,
    };
    Ok(Layer {
        attention: (attention("self_attn", watch)?, norm("norm1")?),
        cross,
        inner: map(d, f, "linear1")?,
        activation: config.activation.activation(),
        outer: (map(f, d, "linear2")?, norm(last)?),
        norm_first: true,
        dropout: config.dropout,
        activation_dropout: config.dropout,
    })
}

impl PretrainedModel for OpenNmtTransformer {
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
}
