//! One layer.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Activation, Context, Heads, Linear, RmsNorm, RotaryTables, add, init, linear, split_heads,
};

use super::Config;
use crate::transformer::causal::Pass;

/// `model.layers.{i}`: attention and a gated feed-forward sub-layer, each after its norm.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    i: usize,
    input_layernorm: RmsNorm,
    attention: Attention,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    activation: Activation,
}

/// `self_attn`.
#[derive(Debug, Clone)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    heads: Heads,
    num_heads: usize,
    num_kv_heads: usize,
    window: Option<usize>,
}

impl Layer {
    pub(super) fn new(config: &Config, i: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let map = |n, m, name| {
            linear(
                n,
                m,
                config.mlp_bias,
                init::normal(config.initializer_range),
                vb.pp("mlp").pp(name),
            )
        };
        let norm = |name| RmsNorm::new(d, config.rms_norm_eps, vb.pp(name));
        Ok(Self {
            i,
            input_layernorm: norm("input_layernorm")?,
            attention: Attention::new(config, i, vb.pp("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            gate_proj: map(d, f, "gate_proj")?,
            up_proj: map(d, f, "up_proj")?,
            down_proj: map(f, d, "down_proj")?,
            activation: config.hidden_act.activation(),
        })
    }

    pub(super) fn forward(
        &self,
        xs: &Tensor,
        tables: &RotaryTables,
        pass: &mut Pass<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let ys = self.input_layernorm.forward(xs)?;
        let xs = add(xs, &self.attention.forward(&ys, self.i, tables, pass, ctx)?)?;
        let ys = self.post_attention_layernorm.forward(&xs)?;
        let gate = self.activation.forward(&self.gate_proj.forward(&ys)?)?; // (b, t, f)
        add(&xs, &self.down_proj.forward(&gate.mul(&self.up_proj.forward(&ys)?)?)?)
    }
}

impl Attention {
    fn new(config: &Config, i: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, width) = (config.hidden_size, config.head_width());
        let (h, h_kv) = (config.num_attention_heads, config.kv_heads());
        let (in_bias, out_bias) = config.biases();
        let map = |n, m, bias, name| {
            linear(n, m, bias, init::normal(config.initializer_range), vb.pp(name))
        };
        Ok(Self {
            q_proj: map(d, h * width, in_bias, "q_proj")?,
            k_proj: map(d, h_kv * width, in_bias, "k_proj")?,
            v_proj: map(d, h_kv * width, in_bias, "v_proj")?,
            o_proj: map(h * width, d, out_bias, "o_proj")?,
            heads: Heads::new(None, config.attention_dropout).watched_as("attention", i),
            num_heads: h,
            num_kv_heads: h_kv,
            window: config.window(),
        })
    }

    fn forward(
        &self,
        xs: &Tensor,
        layer: usize,
        tables: &RotaryTables,
        pass: &mut Pass<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let part = |map: &Linear, h| split_heads(&map.forward(xs)?, h);
        let q = tables.turn(&part(&self.q_proj, self.num_heads)?)?; // (b, h, t, d_h)
        let k = tables.turn(&part(&self.k_proj, self.num_kv_heads)?)?;
        let v = part(&self.v_proj, self.num_kv_heads)?;
        let ys = pass.attend(layer, &self.heads, [&q, &k, &v], self.window, ctx)?;
        self.o_proj.forward(&ys)
    }
}
