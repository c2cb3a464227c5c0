//! One layer.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Activation, Context, Heads, LayerNorm, Linear, add, init, linear, split, split_heads,
};

use super::Config;
use crate::transformer::causal::Pass;

/// `h.{i}`: attention and a feed-forward sub-layer, each after its norm.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    i: usize,
    ln_1: LayerNorm,
    /// Queries, keys and values, one after the other.
    c_attn: Linear,
    heads: Heads,
    num_heads: usize,
    c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    activation: Activation,
    mlp_c_proj: Linear,
    dropout: f64,
}

impl Layer {
    pub(super) fn new(config: &Config, i: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, f) = (config.n_embd, config.inner().unwrap_or(0));
        let std = config.initializer_range;
        let back = std / (2. * config.n_layer as f64).sqrt();
        let map = |n, m, std, name: &str| linear(n, m, true, init::normal(std), vb.pp(name));
        let heads = Heads::new(Some(config.scale(i)), config.attn_pdrop);
        Ok(Self {
            i,
            ln_1: LayerNorm::new(d, config.norm(), vb.pp("ln_1"))?,
            c_attn: map(d, 3 * d, std, "attn.c_attn")?,
            heads: heads.watched_as("attention", i),
            num_heads: config.n_head,
            c_proj: map(d, d, back, "attn.c_proj")?,
            ln_2: LayerNorm::new(d, config.norm(), vb.pp("ln_2"))?,
            c_fc: map(d, f, std, "mlp.c_fc")?,
            activation: config.activation_function.activation(),
            mlp_c_proj: map(f, d, back, "mlp.c_proj")?,
            dropout: config.resid_pdrop,
        })
    }

    pub(super) fn forward(
        &self,
        xs: &Tensor,
        pass: &mut Pass<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let d = xs.dim(2)?;
        let parts = split(&self.c_attn.forward(&self.ln_1.forward(xs)?)?, &[d; 3])?;
        let heads = parts.iter().map(|part| split_heads(part, self.num_heads));
        let heads = heads.collect::<Result<Vec<_>>>()?; // (b, h, t, d/h)
        let [q, k, v] = heads.as_slice() else {
            candle_core::bail!("gpt2: internal error: {} projections", heads.len())
        };
        let ys = pass.attend(self.i, &self.heads, [q, k, v], None, ctx)?;
        let ys = ctx.dropout(&self.c_proj.forward(&ys)?, self.dropout)?;
        let xs = add(xs, &ys)?;
        let inner = self.activation.forward(&self.c_fc.forward(&self.ln_2.forward(&xs)?)?)?; // (b, t, f)
        add(&xs, &ctx.dropout(&self.mlp_c_proj.forward(&inner)?, self.dropout)?)
    }
}
