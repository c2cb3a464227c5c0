//! The layers of encoder and decoder.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Activation, AttentionOptions, Bias, Context, Embedding, Heads, KvCache, Linear,
    RelativeBuckets, RmsNorm, add, init, linear, relative_buckets, split_heads,
};

use super::Config;
use crate::text::TextBatch;
use crate::transformer::seq2seq::KeysValues;

/// `block.{i}` and `final_layer_norm`.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    blocks: Vec<Block>,
    distances: Distances,
    norm: RmsNorm,
    dropout: f64,
    hidden_name: &'static str,
}

/// What a decoder attends to: the batch, for its mask, and keys and values for each block.
pub(super) type Source<'a> = (&'a TextBatch, &'a [KeysValues]);

impl Stack {
    pub(super) fn encoder(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::new(config, false, config.num_layers, vb)
    }

    pub(super) fn decoder(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::new(config, true, config.decoder_layers(), vb)
    }

    fn new(config: &Config, decodes: bool, n: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let block = |i| Block::new(config, decodes, i, &vb.pp("block").pp(i).pp("layer"));
        let table = vb.pp("block.0.layer.0.SelfAttention.relative_attention_bias");
        Ok(Self {
            blocks: (0..n).map(block).collect::<Result<_>>()?,
            distances: Distances::new(config, !decodes, table)?,
            norm: RmsNorm::new(
                config.d_model,
                config.layer_norm_epsilon,
                vb.pp("final_layer_norm"),
            )?,
            dropout: config.dropout_rate,
            hidden_name: if decodes { "decoder_hidden_states" } else { "hidden_states" },
        })
    }

    /// Keys and values of the encoding `memory (b, s, d)`, one pair a block of this decoder.
    pub(super) fn keys_values(&self, memory: &Tensor) -> Result<Vec<KeysValues>> {
        let cross = self.blocks.iter().filter_map(|block| block.cross.as_ref());
        cross.map(|(attention, _)| attention.keys_values(memory)).collect()
    }

    /// What the stack makes of `xs (b, t, d)`, of that shape: self-attention under `own` over them or, with caches that have seen `read`
    /// tokens, over what was read before as well.
    pub(super) fn forward(
        &self,
        xs: &Tensor,
        own: &AttentionOptions<'_>,
        (read, mut caches): (usize, Option<&mut [KvCache]>),
        source: Option<Source<'_>>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let t = xs.dim(1)?;
        let bias = self.distances.bias(t, read + t, own.key_mask.is_some())?;
        let own = AttentionOptions { bias: bias.borrow(), ..*own };
        let options = source.map(|(batch, _)| batch.options());
        let mut xs = ctx.dropout(xs, self.dropout)?;
        for (i, block) in self.blocks.iter().enumerate() {
            ctx.watch(self.hidden_name, i, || Ok(xs.clone()))?;
            let cache = caches.as_mut().and_then(|caches| caches.get_mut(i));
            let keys_values = source.and_then(|(_, all)| all.get(i));
            xs = block.forward(&xs, (&own, cache), keys_values.zip(options.as_ref()), ctx)?;
        }
        let xs = ctx.dropout(&self.norm.forward(&xs)?, self.dropout)?;
        ctx.watch(self.hidden_name, self.blocks.len(), || Ok(xs.clone()))?;
        Ok(xs)
    }
}

/// The learned bias of each class of distances and head, which all layers of a stack share.
#[derive(Debug, Clone)]
struct Distances {
    table: Embedding,
    buckets: RelativeBuckets,
}

/// A bias in the form that attention can take with its masks.
enum OwnedBias {
    /// `(h, n_q + n_k - 1)`.
    Distance(Tensor),
    /// `(1, h, n_q, n_k)`.
    Full(Tensor),
}

impl OwnedBias {
    fn borrow(&self) -> Bias<'_> {
        match self {
            Self::Distance(table) => Bias::Distance(table),
            Self::Full(bias) => Bias::Full(bias),
        }
    }
}

impl Distances {
    fn new(config: &Config, bidirectional: bool, vb: VarBuilder<'_>) -> Result<Self> {
        let buckets = config.buckets(bidirectional);
        let std = config.initializer_factor * (config.d_model as f64).powf(-0.5);
        let (n, h) = (buckets.num_buckets, config.num_heads);
        Ok(Self { table: Embedding::new(n, h, init::normal(std), None, vb)?, buckets })
    }

    /// The bias of `n_q` queries, the last of which sits on the last of `n_k` keys. A mask with gaps needs it in full.
    fn bias(&self, n_q: usize, n_k: usize, full: bool) -> Result<OwnedBias> {
        let device = self.table.weight().device();
        let ids = relative_buckets(1 - n_k as i64..n_q as i64, self.buckets)?;
        if !full {
            let ids = Tensor::from_vec(ids, n_q + n_k - 1, device)?;
            return Ok(OwnedBias::Distance(self.table.forward(&ids)?.t()?.contiguous()?));
        }
        let rows = (0..n_q).flat_map(|i| ids[n_q - 1 - i..][..n_k].to_vec()).collect();
        let ids = Tensor::from_vec(rows, (n_q, n_k), device)?;
        let bias = self.table.forward(&ids)?; // (n_q, n_k, h)
        Ok(OwnedBias::Full(bias.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?))
    }
}

/// Self-attention, in decoders attention to the source, and the feed-forward sub-layer, each as `x + f(RMSNorm(x))`.
#[derive(Debug, Clone)]
struct Block {
    attention: (Attention, RmsNorm),
    cross: Option<(Attention, RmsNorm)>,
    feed_forward: (FeedForward, RmsNorm),
    dropout: f64,
}

impl Block {
    fn new(config: &Config, decodes: bool, i: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm = |layer: &str| {
            let vb = vb.pp(layer).pp("layer_norm");
            RmsNorm::new(config.d_model, config.layer_norm_epsilon, vb)
        };
        let attention = |name: &str, watch| {
            let heads = Heads::new(Some(1.), config.dropout_rate).watched_as(watch, i);
            Attention::new(config, heads, &vb.pp(name))
        };
        let (watch, last) = match decodes {
            true => ("decoder_attention", "2"),
            false => ("attention", "1"),
        };
        let cross = match decodes {
            true => Some((attention("1.EncDecAttention", "cross_attention")?, norm("1")?)),
            false => None,
        };
        let feed_forward = FeedForward::new(config, &vb.pp(last).pp("DenseReluDense"))?;
        Ok(Self {
            attention: (attention("0.SelfAttention", watch)?, norm("0")?),
            cross,
            feed_forward: (feed_forward, norm(last)?),
            dropout: config.dropout_rate,
        })
    }

    fn forward(
        &self,
        xs: &Tensor,
        (own, cache): (&AttentionOptions<'_>, Option<&mut KvCache>),
        source: Option<(&KeysValues, &AttentionOptions<'_>)>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let plus = |xs: &Tensor, ys: Tensor| add(xs, &ctx.dropout(&ys, self.dropout)?);
        let (attention, norm) = &self.attention;
        let ys = norm.forward(xs)?;
        let (k, v) = attention.keys_values(&ys)?;
        let (k, v) = match cache {
            Some(cache) => cache.append(&k, &v)?,
            None => (k, v),
        };
        let mut xs = plus(xs, attention.attend(&ys, (&k, &v), own, ctx)?)?;
        if let Some((attention, norm)) = &self.cross {
            let Some(((k, v), options)) = source else { bail!("t5: no source for a decoder") };
            let ys = attention.attend(&norm.forward(&xs)?, (k, v), options, ctx)?;
            xs = plus(&xs, ys)?;
        }
        let (feed_forward, norm) = &self.feed_forward;
        plus(&xs, feed_forward.forward(&norm.forward(&xs)?, ctx)?)
    }
}

/// Heads of a width of their own, without biases; products are not scaled.
#[derive(Debug, Clone)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: Heads,
    num_heads: usize,
}

impl Attention {
    fn new(config: &Config, heads: Heads, vb: &VarBuilder<'_>) -> Result<Self> {
        let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
        let std = |n: usize| init::normal(config.initializer_factor * (n as f64).powf(-0.5));
        let map = |n, m, init: Init, name: &str| linear(n, m, false, init, vb.pp(name));
        Ok(Self {
            q: map(d, inner, std(d * config.d_kv), "q")?,
            k: map(d, inner, std(d), "k")?,
            v: map(d, inner, std(d), "v")?,
            o: map(inner, d, std(inner), "o")?,
            heads,
            num_heads: config.num_heads,
        })
    }

    fn keys_values(&self, xs: &Tensor) -> Result<KeysValues> {
        let split = |map: &Linear| split_heads(&map.forward(xs)?, self.num_heads);
        Ok((split(&self.k)?, split(&self.v)?))
    }

    fn attend(
        &self,
        xs: &Tensor,
        (k, v): (&Tensor, &Tensor),
        options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let q = split_heads(&self.q.forward(xs)?, self.num_heads)?;
        self.o.forward(&self.heads.forward(&q, k, v, options, ctx)?)
    }
}

/// `W_o φ(W_i x)`, or `W_o (φ(W_0 x) ∘ W_1 x)`.
#[derive(Debug, Clone)]
struct FeedForward {
    inner: Linear,
    gate: Option<Linear>,
    activation: Activation,
    outer: Linear,
    dropout: f64,
}

impl FeedForward {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let (d, f) = (config.d_model, config.d_ff);
        let map = |n: usize, m, name: &str| {
            let std = config.initializer_factor * (n as f64).powf(-0.5);
            linear(n, m, false, init::normal(std), vb.pp(name))
        };
        let gated = config.feed_forward_proj.gated();
        Ok(Self {
            inner: map(d, f, if gated { "wi_0" } else { "wi" })?,
            gate: if gated { Some(map(d, f, "wi_1")?) } else { None },
            activation: config.feed_forward_proj.act().activation(),
            outer: map(f, d, "wo")?,
            dropout: config.dropout_rate,
        })
    }

    fn forward(&self, xs: &Tensor, ctx: &Context) -> Result<Tensor> {
        let inner = self.activation.forward(&self.inner.forward(xs)?)?; // (b, t, f)
        let inner = match &self.gate {
            Some(gate) => (inner * gate.forward(xs)?)?,
            None => inner,
        };
        self.outer.forward(&ctx.dropout(&inner, self.dropout)?)
    }
}
