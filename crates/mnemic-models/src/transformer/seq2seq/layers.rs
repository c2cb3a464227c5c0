//! The layers of encoder and decoder.

use candle_core::{Module, Result, Tensor, bail};
use mnemic_layers::{
    Activation, AttentionOptions, Context, KvCache, LayerNorm, Linear, MultiHeadAttention, add,
};

use super::state::KeysValues;
use crate::text::TextBatch;

/// A layer: self-attention, in decoders attention to the source, and `W_2 φ(W_1 x + b_1) + b_2`. A sub-layer `f` is wrapped as
/// `LN(x + f(x))` or, with `norm_first`, as `x + f(LN(x))`.
#[derive(Debug, Clone)]
pub(in crate::transformer) struct Layer {
    pub(in crate::transformer) attention: (MultiHeadAttention, LayerNorm),
    pub(in crate::transformer) cross: Option<(MultiHeadAttention, LayerNorm)>,
    pub(in crate::transformer) inner: Linear,
    pub(in crate::transformer) activation: Activation,
    pub(in crate::transformer) outer: (Linear, LayerNorm),
    pub(in crate::transformer) norm_first: bool,
    pub(in crate::transformer) dropout: f64,
    pub(in crate::transformer) activation_dropout: f64,
}

/// What a decoder's layer attends to beside its input.
pub(in crate::transformer) struct Source<'a> {
    pub(in crate::transformer) keys_values: &'a KeysValues,
    pub(in crate::transformer) options: &'a AttentionOptions<'a>,
}

impl Layer {
    fn forward(
        &self,
        xs: &Tensor,
        own: &AttentionOptions<'_>,
        cache: Option<&mut KvCache>,
        source: Option<&Source<'_>>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let (attention, norm) = &self.attention;
        let xs = self.wrap(xs, norm, ctx, |xs| match cache {
            Some(cache) => attention.attend_cached(xs, cache, own, ctx),
            None => attention.forward(xs, xs, xs, own, ctx),
        })?;
        let xs = match (&self.cross, source) {
            (Some((attention, norm)), Some(source)) => self.wrap(&xs, norm, ctx, |xs| {
                let (k, v) = source.keys_values;
                attention.attend(xs, (k, v), source.options, ctx)
            })?,
            _ => xs,
        };
        let (outer, norm) = &self.outer;
        self.wrap(&xs, norm, ctx, |xs| {
            let inner = self.activation.forward(&self.inner.forward(xs)?)?; // (b, t, f)
            outer.forward(&ctx.dropout(&inner, self.activation_dropout)?)
        })
    }

    fn wrap(
        &self,
        xs: &Tensor,
        norm: &LayerNorm,
        ctx: &Context,
        f: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        match self.norm_first {
            true => add(xs, &ctx.dropout(&f(&norm.forward(xs)?)?, self.dropout)?),
            false => norm.forward(&add(xs, &ctx.dropout(&f(xs)?, self.dropout)?)?),
        }
    }
}

/// The layers of an encoder or decoder and, after pre-norm layers, the last norm.
#[derive(Debug, Clone)]
pub(in crate::transformer) struct Stack {
    pub(in crate::transformer) layers: Vec<Layer>,
    pub(in crate::transformer) norm: Option<LayerNorm>,
}

impl Stack {
    /// The encoding of `xs (b, s, d)`, of that shape.
    pub(in crate::transformer) fn encode(
        &self,
        xs: &Tensor,
        batch: &TextBatch,
        ctx: &Context,
    ) -> Result<Tensor> {
        let options = batch.options();
        self.run(xs, "hidden_states", ctx, |_, layer, xs| {
            layer.forward(xs, &options, None, None, ctx)
        })
    }

    /// The keys and values of the encoding `memory (b, s, d)`, one pair a layer of this decoder.
    pub(in crate::transformer) fn keys_values(&self, memory: &Tensor) -> Result<Vec<KeysValues>> {
        let cross = self.layers.iter().filter_map(|layer| layer.cross.as_ref());
        cross.map(|(attention, _)| attention.keys_values(memory)).collect()
    }

    /// What the decoder makes of `xs (b, t, d)`, of that shape: one self-attention `own` over them or, with caches, over what was read
    /// before as well.
    pub(in crate::transformer) fn decode(
        &self,
        xs: &Tensor,
        own: &AttentionOptions<'_>,
        mut caches: Option<&mut [KvCache]>,
        (source, cross): (&TextBatch, &[KeysValues]),
        ctx: &Context,
    ) -> Result<Tensor> {
        let options = source.options();
        self.run(xs, "decoder_hidden_states", ctx, |i, layer, xs| {
            let Some(keys_values) = cross.get(i) else { bail!("no source for layer {i}") };
            let source = Source { keys_values, options: &options };
            let cache = caches.as_mut().and_then(|caches| caches.get_mut(i));
            layer.forward(xs, own, cache, Some(&source), ctx)
        })
    }

    fn run(
        &self,
        xs: &Tensor,
        name: &str,
        ctx: &Context,
        mut layer: impl FnMut(usize, &Layer, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut xs = xs.clone();
        for (i, each) in self.layers.iter().enumerate() {
            ctx.watch(name, i, || Ok(xs.clone()))?;
            xs = layer(i, each, &xs)?;
        }
        let xs = match &self.norm {
            Some(norm) => norm.forward(&xs)?,
            None => xs,
        };
        ctx.watch(name, self.layers.len(), || Ok(xs.clone()))?;
        Ok(xs)
    }
}
