//! GPT-2 and Llama in plain operations and without a cache, for one row at a time: nothing is shared with what is tested.

use std::path::Path;

use candle_core::{D, Device, Result, Tensor};
use serde_json::Value;

use crate::fixtures::{Tensors, load};
use crate::toy::Toy;

/// `GPT2LMHeadModel`.
pub(crate) fn gpt2(folder: &Path) -> Toy {
    let weights = load(&folder.join("model.safetensors"));
    let vocab_size = weights["transformer.wte.weight"].dims()[0];
    Toy::new(vocab_size, move |_, ids| gpt2_logits(&weights, ids).unwrap())
}

fn gpt2_logits(weights: &Tensors, ids: &[u32]) -> Result<Vec<f32>> {
    const HEADS: usize = 4;
    let weight = |name: &str| weights[&format!("transformer.{name}")].clone();
    let linear = |xs: &Tensor, name: &str| {
        xs.matmul(&weight(&format!("{name}.weight")))?
            .broadcast_add(&weight(&format!("{name}.bias")))
    };
    let norm = |xs: &Tensor, name: &str| {
        let xs = xs.broadcast_sub(&xs.mean_keepdim(1)?)?;
        let deviation = (xs.sqr()?.mean_keepdim(1)? + 1e-5)?.sqrt()?;
        let scaled =
            xs.broadcast_div(&deviation)?.broadcast_mul(&weight(&format!("{name}.weight")))?;
        scaled.broadcast_add(&weight(&format!("{name}.bias")))
    };
    let (t, embeddings) = (ids.len(), weight("wte.weight"));
    let ids = Tensor::new(ids, &Device::Cpu)?;
    let mut xs = (embeddings.index_select(&ids, 0)? + weight("wpe.weight").narrow(0, 0, t)?)?;
    for layer in 0..2 {
        let name = |part: &str| format!("h.{layer}.{part}");
        let qkv = linear(&norm(&xs, &name("ln_1"))?, &name("attn.c_attn"))?;
        let d = xs.dims()[1];
        let part = |i| qkv.narrow(1, i * d, d)?.reshape((t, HEADS, d / HEADS))?.transpose(0, 1);
        let read = attention(&part(0)?, &part(1)?, &part(2)?)?;
        xs = (xs + linear(&read, &name("attn.c_proj"))?)?;
        let hidden = linear(&norm(&xs, &name("ln_2"))?, &name("mlp.c_fc"))?.gelu()?;
        xs = (xs + linear(&hidden, &name("mlp.c_proj"))?)?;
    }
    norm(&xs, "ln_f")?.narrow(0, t - 1, 1)?.matmul(&embeddings.t()?)?.flatten_all()?.to_vec1()
}

/// Causal attention of `q`, `k` and `v`, each (heads, t, d), with the heads beside each other: (t, heads * d).
fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (heads, t, d) = q.dims3()?;
    let later = |i: usize| if i % t > i / t { f32::NEG_INFINITY } else { 0. };
    let mask = Tensor::from_vec((0..t * t).map(later).collect(), (t, t), &Device::Cpu)?;
    let scores = q.contiguous()?.matmul(&k.t()?.contiguous()?)?;
    let scores = (scores / (d as f64).sqrt())?.broadcast_add(&mask)?;
    let exps = scores.broadcast_sub(&scores.max_keepdim(2)?)?.exp()?;
    let weights = exps.broadcast_div(&exps.sum_keepdim(2)?)?;
    weights.matmul(&v.contiguous()?)?.transpose(0, 1)?.reshape((t, heads * d))
}

/// `LlamaForCausalLM`.
pub(crate) fn llama(folder: &Path) -> Toy {
    let weights = load(&folder.join("model.safetensors"));
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let vocab_size = weights["model.embed_tokens.weight"].dims()[0];
    Toy::new(vocab_size, move |_, ids| llama_logits(&weights, &config, ids).unwrap())
}

fn llama_logits(weights: &Tensors, config: &Value, ids: &[u32]) -> Result<Vec<f32>> {
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let (heads, kv_heads) = (number("num_attention_heads"), number("num_key_value_heads"));
    let epsilon = config["rms_norm_eps"].as_f64().unwrap();
    let linear = |xs: &Tensor, name: &str| xs.matmul(&weights[&format!("{name}.weight")].t()?);
    let norm = |xs: &Tensor, name: &str| {
        let scale = (xs.sqr()?.mean_keepdim(1)? + epsilon)?.sqrt()?;
        xs.broadcast_div(&scale)?.broadcast_mul(&weights[&format!("{name}.weight")])
    };
    let (t, embeddings) = (ids.len(), &weights["model.embed_tokens.weight"]);
    let mut xs = embeddings.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
    let d = xs.dims()[1] / heads;
    let split = |xs: Tensor, n: usize| xs.reshape((t, n, d))?.transpose(0, 1)?.contiguous();
    for layer in 0..number("num_hidden_layers") {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed = norm(&xs, &name("input_layernorm"))?;
        let q = rotated(&split(linear(&normed, &name("self_attn.q_proj"))?, heads)?)?;
        let k = rotated(&split(linear(&normed, &name("self_attn.k_proj"))?, kv_heads)?)?;
        let v = split(linear(&normed, &name("self_attn.v_proj"))?, kv_heads)?;
        // Query head i reads key head i * kv_heads / heads.
        let shared: Vec<u32> = (0..heads).map(|i| (i * kv_heads / heads) as u32).collect();
        let shared = Tensor::new(shared, &Device::Cpu)?;
        let read = attention(&q, &k.index_select(&shared, 0)?, &v.index_select(&shared, 0)?)?;
        xs = (xs + linear(&read, &name("self_attn.o_proj"))?)?;
        let normed = norm(&xs, &name("post_attention_layernorm"))?;
        let gate = linear(&normed, &name("mlp.gate_proj"))?.silu()?;
        let hidden = (gate * linear(&normed, &name("mlp.up_proj"))?)?;
        xs = (xs + linear(&hidden, &name("mlp.down_proj"))?)?;
    }
    let last = norm(&xs, "model.norm")?.narrow(0, t - 1, 1)?;
    let output = weights.get("lm_head.weight").unwrap_or(embeddings);
    last.matmul(&output.t()?)?.flatten_all()?.to_vec1()
}

/// Rotary positions from 0, base 10,000, on the two halves of (heads, t, d).
fn rotated(xs: &Tensor) -> Result<Tensor> {
    let (_, t, d) = xs.dims3()?;
    let angle = |i: usize| {
        let frequency = 10_000f64.powf(-2. * (i % (d / 2)) as f64 / d as f64);
        ((i / (d / 2)) as f64 * frequency) as f32
    };
    let angles: Vec<f32> = (0..t * d / 2).map(angle).collect();
    let angles = Tensor::from_vec(angles, (t, d / 2), &Device::Cpu)?;
    let (a, b) = (xs.narrow(2, 0, d / 2)?, xs.narrow(2, d / 2, d / 2)?);
    let (sin, cos) = (angles.sin()?, angles.cos()?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}
