//! Encoder and decoder, which Marian shares.

use candle_core::Result;
use candle_nn::VarBuilder;
use mnemic_layers::{
    Embedding, LayerNorm, LayerNormConfig, Linear, MultiHeadAttention, MultiHeadConfig, init,
    linear,
};

use super::Config;
use crate::transformer::seq2seq::{Layer, Stack};

/// `layers.{i}` of the encoder.
pub(in crate::transformer) fn encoder(config: &Config, vb: &VarBuilder<'_>) -> Result<Stack> {
    let parts = Parts {
        config,
        heads: config.encoder_attention_heads,
        inner: config.encoder_ffn_dim,
        watch: "attention",
        cross: false,
    };
    parts.stack(config.encoder_layers, &vb.pp("layers"))
}

/// `layers.{i}` of the decoder.
pub(in crate::transformer) fn decoder(config: &Config, vb: &VarBuilder<'_>) -> Result<Stack> {
    let parts = Parts {
        config,
        heads: config.decoder_attention_heads,
        inner: config.decoder_ffn_dim,
        watch: "decoder_attention",
        cross: true,
    };
    parts.stack(config.decoder_layers, &vb.pp("layers"))
}

/// A table of word vectors or positions.
pub(in crate::transformer) fn table(
    config: &Config,
    rows: usize,
    vb: VarBuilder<'_>,
) -> Result<Embedding> {
    Embedding::new(rows, config.d_model, init::normal(config.init_std), None, vb)
}

/// The output layer with its tied weight and the `final_logits_bias`, which is added but not trained.
pub(in crate::transformer) fn head(
    config: &Config,
    words: &Embedding,
    vb: &VarBuilder<'_>,
) -> Result<Linear> {
    let (v, d) = words.weight().dims2()?;
    let bias = match config.final_logits_bias {
        true => {
            let bias = vb.get_with_hints((1, v), "final_logits_bias", init::constant(0.))?;
            Some(bias.detach().flatten_all()?)
        }
        false => None,
    };
    let weight = match config.tie_word_embeddings {
        true => words.weight().clone(),
        false => {
            vb.pp("lm_head").get_with_hints((v, d), "weight", init::normal(config.init_std))?
        }
    };
    Ok(Linear::new(weight, bias))
}

/// What the layers of a stack are made of.
struct Parts<'a> {
    config: &'a Config,
    heads: usize,
    inner: usize,
    watch: &'static str,
    cross: bool,
}

impl Parts<'_> {
    fn stack(&self, layers: usize, vb: &VarBuilder<'_>) -> Result<Stack> {
        let layers = (0..layers).map(|i| self.layer(i, &vb.pp(i))).collect::<Result<_>>()?;
        Ok(Stack { layers, norm: None })
    }

    fn layer(&self, i: usize, vb: &VarBuilder<'_>) -> Result<Layer> {
        let (config, d) = (self.config, self.config.d_model);
        let norm = |name| LayerNorm::new(d, LayerNormConfig::default(), vb.pp(name));
        let attention = |name, watch| self.attention(&vb.pp(name), watch, i);
        let cross = match self.cross {
            true => Some((
                attention("encoder_attn", "cross_attention")?,
                norm("encoder_attn_layer_norm")?,
            )),
            false => None,
        };
        Ok(Layer {
            attention: (attention("self_attn", self.watch)?, norm("self_attn_layer_norm")?),
            cross,
            inner: self.map(d, self.inner, vb.pp("fc1"))?,
            activation: config.activation_function.activation(),
            outer: (self.map(self.inner, d, vb.pp("fc2"))?, norm("final_layer_norm")?),
            norm_first: false,
            dropout: config.dropout,
            activation_dropout: config.activation_dropout,
        })
    }

    fn attention(
        &self,
        vb: &VarBuilder<'_>,
        watch: &'static str,
        i: usize,
    ) -> Result<MultiHeadAttention> {
        let d = self.config.d_model;
        let config = MultiHeadConfig {
            dropout: self.config.attention_dropout,
            ..MultiHeadConfig::new(d, self.heads)
        };
        let map = |name| self.map(d, d, vb.pp(name));
        let maps = [map("q_proj")?, map("k_proj")?, map("v_proj")?];
        let attention = MultiHeadAttention::from_projections(config, maps, map("out_proj")?)?;
        Ok(attention.watched_as(watch, i))
    }

    fn map(&self, n: usize, m: usize, vb: VarBuilder<'_>) -> Result<Linear> {
        linear(n, m, true, init::normal(self.config.init_std), vb)
    }
}
