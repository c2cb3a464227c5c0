//! Multi-head attention.

use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor, Var};
use mnemic_kernels::attention::{Attention, attention};
use mnemic_layers::{
    AttentionOptions, Bias, Context, KvCache, Linear, Mask, MultiHeadAttention, MultiHeadConfig,
    length_mask,
};
use mnemic_testing::{assert_close, waves};

use crate::{against_torch, check_layer, error, given, probe, shapes, store, tensor};

/// Width 4, two heads.
pub(crate) const SMALL: fn() -> MultiHeadConfig = || MultiHeadConfig::new(4, 2);

pub(crate) fn inputs() -> Tensor {
    waves(&[2, 3, 4], 0.2, 1., DType::F64)
}

/// A layer whose biases are not 0.
pub(crate) fn layer(config: MultiHeadConfig) -> MultiHeadAttention {
    let (store, vb) = store(5);
    MultiHeadAttention::new(config, vb.clone()).unwrap();
    for (i, (name, var)) in store.vars().into_iter().enumerate() {
        if name.ends_with("bias") {
            var.set(&waves(var.dims(), i as f64, 0.5, DType::F64)).unwrap();
        }
    }
    MultiHeadAttention::new(config, vb).unwrap()
}

/// Every key, no bias.
pub(crate) fn unmasked() -> AttentionOptions<'static> {
    AttentionOptions::default()
}

/// Self-attention in evaluation.
pub(crate) fn attend(
    layer: &MultiHeadAttention,
    xs: &Tensor,
    options: &AttentionOptions<'_>,
) -> Tensor {
    layer.forward(xs, xs, xs, options, &Context::eval()).unwrap()
}

/// The mask (1 or 0: may attend) of PyTorch, where 1 is ignored.
fn may_attend(mask: &Tensor) -> Tensor {
    mask.eq(0u8).unwrap()
}

#[test]
fn scaled_dot_product_attention_agrees_with_torch() {
    for name in ["sdpa", "sdpa_causal", "sdpa_scale", "sdpa_bool_mask", "sdpa_float_mask"] {
        let run = against_torch("scaled_dot_product_attention", name, |tensors, _| {
            let (q, k, v) = (&tensors["q"], &tensors["k"], &tensors["v"]);
            let bias = tensors.get("attn_mask").map(|mask| match mask.dtype() {
                DType::U8 => {
                    let zeros = Tensor::zeros((5, 5), q.dtype(), q.device()).unwrap();
                    let hidden = (&zeros + f64::NEG_INFINITY).unwrap();
                    mask.where_cond(&zeros, &hidden).unwrap().reshape((1, 1, 5, 5)).unwrap()
                }
                _ => mask.reshape((1, 1, 5, 5)).unwrap(),
            });
            assert_eq!(bias.is_some(), name.ends_with("_mask"));
            let options = Attention {
                scale: (name == "sdpa_scale").then_some(0.7),
                mask: Mask { causal: name == "sdpa_causal", ..Mask::default() },
                bias: bias.as_ref().map_or(Bias::None, Bias::Full),
                ..Attention::default()
            };
            Ok(attention(q, k, v, &options)?.output)
        });
        if run.is_none() {
            return;
        }
    }
}

#[test]
fn multi_head_attention_agrees_with_torch() {
    let names = [
        "mha",
        "mha_causal",
        "mha_causal_key_padding",
        "mha_cross",
        "mha_cross_kdim_vdim",
        "mha_float_mask",
        "mha_key_padding",
        "mha_no_bias",
        "mha_per_head",
    ];
    for name in names {
        let run = against_torch("multi_head_attention_agrees_with_torch", name, |tensors, vb| {
            let query = &tensors["query"];
            let (key, value) = (tensors.get("key"), tensors.get("value"));
            let (key, value) = (key.unwrap_or(query), value.unwrap_or(query));
            let config = MultiHeadConfig {
                kdim: Some(key.dim(2)?),
                vdim: Some(value.dim(2)?),
                bias: name != "mha_no_bias",
                ..MultiHeadConfig::new(8, 2)
            };
            let key_mask = tensors.get("key_padding_mask").map(may_attend);
            let bias = match name {
                "mha_float_mask" => Some(tensors["attn_mask"].reshape((1, 1, 5, 5))?),
                _ => None,
            };
            let options = AttentionOptions {
                mask: Mask { causal: name.starts_with("mha_causal"), ..Mask::default() },
                key_mask: key_mask.as_ref(),
                bias: bias.as_ref().map_or(Bias::None, Bias::Full),
                ..AttentionOptions::default()
            };
            let layer = MultiHeadAttention::new(config, vb)?;
            let ctx = Context::eval().watching();
            let output = layer.forward(query, key, value, &options, &ctx)?;
            let watched = ctx.take_trace().remove(0).value;
            let weights = &tensors["attn_weights"];
            let watched = if weights.rank() == 3 { watched.mean(1)? } else { watched };
            let tolerance = if query.dtype() == DType::F64 { 1e-10 } else { 1e-5 };
            assert_close(&format!("{name} weights"), &watched, weights, tolerance, tolerance);
            Ok(output)
        });
        if run.is_none() {
            return;
        }
    }
}

#[test]
fn parameters_have_the_names_of_torch() {
    let names = |config| {
        let (store, vb) = store(0);
        MultiHeadAttention::new(config, vb).unwrap();
        shapes(&store)
    };
    let named = |list: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
        list.iter().map(|(name, dims)| (name.to_string(), dims.to_vec())).collect()
    };
    let packed = named(&[
        ("in_proj_bias", &[12]),
        ("in_proj_weight", &[12, 4]),
        ("out_proj.bias", &[4]),
        ("out_proj.weight", &[4, 4]),
    ]);
    assert_eq!(names(SMALL()), packed);
    assert_eq!(names(MultiHeadConfig { kdim: Some(4), vdim: Some(4), ..SMALL() }), packed);
    let separate = named(&[
        ("in_proj_bias", &[12]),
        ("k_proj_weight", &[4, 7]),
        ("out_proj.bias", &[4]),
        ("out_proj.weight", &[4, 4]),
        ("q_proj_weight", &[4, 4]),
        ("v_proj_weight", &[4, 4]),
    ]);
    assert_eq!(names(MultiHeadConfig { kdim: Some(7), ..SMALL() }), separate);
    let bare = named(&[("in_proj_weight", &[12, 4]), ("out_proj.weight", &[4, 4])]);
    assert_eq!(names(MultiHeadConfig { bias: false, ..SMALL() }), bare);
}

#[test]
fn initial_values() {
    let (store, vb) = store(3);
    MultiHeadAttention::new(MultiHeadConfig::new(32, 4), vb).unwrap();
    let largest = |name: &str| {
        let value = store.get(name).unwrap().abs().unwrap().max_all().unwrap();
        value.to_scalar::<f64>().unwrap()
    };
    // Xavier: sqrt(6 / (32 + 96)) and sqrt(6 / (32 + 32)).
    for (name, bound) in [("in_proj_weight", 0.216506), ("out_proj.weight", 0.306186)] {
        let largest = largest(name);
        assert!(largest <= bound && largest > 0.95 * bound, "{name}: {largest}");
    }
    assert_eq!((largest("in_proj_bias"), largest("out_proj.bias")), (0., 0.));
}

fn identity(n: usize) -> Linear {
    Linear::new(Tensor::eye(n, DType::F64, &Device::Cpu).unwrap(), None)
}

#[test]
fn numbers_worked_by_hand() {
    // One head of width 2 without maps: softmax(q kᵀ / √2) v.
    let config = MultiHeadConfig { bias: false, ..MultiHeadConfig::new(2, 1) };
    let maps = [identity(2), identity(2), identity(2)];
    let layer = MultiHeadAttention::from_projections(config, maps, identity(2)).unwrap();
    let q = tensor(&[1., 0., 0., 1., 1., 1.], &[1, 3, 2]);
    let v = tensor(&[1., 2., 3., 4., 5., 6.], &[1, 3, 2]);
    let ctx = Context::eval().watching();
    let all = layer.forward(&q, &q, &v, &AttentionOptions::default(), &ctx).unwrap();
    let expected = tensor(&[3., 4., 3.406673, 4.406673, 3.510469, 4.510469], &[1, 3, 2]);
    assert_close("output", &all, &expected, 0., 1e-6);
    let weights = ctx.take_trace().remove(0).value.i((0, 0, 0)).unwrap();
    assert_close("weights", &weights, &tensor(&[0.401112, 0.197776, 0.401112], &[3]), 0., 1e-6);
    let causal = layer.forward(&q, &q, &v, &AttentionOptions::causal(), &Context::eval()).unwrap();
    let expected = tensor(&[1., 2., 2.339523, 3.339523, 3.510469, 4.510469], &[1, 3, 2]);
    assert_close("causal output", &causal, &expected, 0., 1e-6);
}

#[test]
fn a_scale_of_its_own() {
    // With scale 0 every weight is equal, and so with queries of 0: the mean of the values.
    let xs = inputs();
    let mean = xs.mean_keepdim(1).unwrap().broadcast_as((2, 3, 4)).unwrap();
    let maps = [identity(4), identity(4), identity(4)];
    let flat = MultiHeadConfig { scale: Some(0.), bias: false, ..SMALL() };
    let flat = MultiHeadAttention::from_projections(flat, maps.clone(), identity(4)).unwrap();
    let options = AttentionOptions::default();
    assert_close("scale 0", &attend(&flat, &xs, &options), &mean, 0., 1e-14);
    let layer = MultiHeadAttention::from_projections(SMALL(), maps, identity(4)).unwrap();
    let zeros = xs.zeros_like().unwrap();
    let ys = layer.forward(&zeros, &xs, &xs, &options, &Context::eval()).unwrap();
    assert_close("queries of 0", &ys, &mean, 0., 1e-14);
}

#[test]
fn heads_are_separate_attentions() {
    // The outputs of the heads, put through slices of W_O and summed, are the layer's.
    let layer = layer(SMALL());
    let xs = inputs();
    let (store, vb) = store(5);
    MultiHeadAttention::new(SMALL(), vb).unwrap();
    let (w, out) = (store.get("in_proj_weight").unwrap(), store.get("out_proj.weight").unwrap());
    let bias = waves(&[12], 0., 0.5, DType::F64);
    let rows = xs.reshape((6, 4)).unwrap();
    let all = rows.matmul(&w.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
    let all = all.reshape((2, 3, 12)).unwrap();
    let mut sum = waves(&[4], 2., 0.5, DType::F64).broadcast_as((2, 3, 4)).unwrap();
    for head in 0..2 {
        let part = |i: usize| all.narrow(2, 4 * i + 2 * head, 2).unwrap().contiguous().unwrap();
        let scores = part(0).matmul(&part(1).t().unwrap().contiguous().unwrap()).unwrap();
        let weights = candle_nn::ops::softmax(&(scores / 2f64.sqrt()).unwrap(), D::Minus1).unwrap();
        let output = weights.matmul(&part(2)).unwrap().reshape((6, 2)).unwrap();
        let slice = out.narrow(1, 2 * head, 2).unwrap().t().unwrap();
        sum = (sum + output.matmul(&slice).unwrap().reshape((2, 3, 4)).unwrap()).unwrap();
    }
    assert_close("heads", &attend(&layer, &xs, &AttentionOptions::default()), &sum, 0., 1e-13);
}

/// Output and gradients with respect to the input of `f`, and of every parameter.
fn differentiated(
    config: MultiHeadConfig,
    f: impl Fn(&MultiHeadAttention, &Tensor) -> Result<Tensor>,
) -> Vec<Tensor> {
    let (store, vb) = store(7);
    let layer = MultiHeadAttention::new(config, vb).unwrap();
    let xs = Var::from_tensor(&inputs()).unwrap();
    let ys = f(&layer, &xs).unwrap();
    let grads = probe(&ys).unwrap().backward().unwrap();
    let vars = store.vars();
    let all = std::iter::once(&xs).chain(vars.iter().map(|(_, v)| v));
    std::iter::once(ys).chain(all.map(|v| grads.get(v).unwrap().clone())).collect()
}

#[test]
fn one_product_equals_three() {
    let (options, ctx) = (AttentionOptions::causal(), Context::eval());
    let same = differentiated(SMALL(), |layer, x| layer.forward(x, x, x, &options, &ctx));
    let key_value = differentiated(SMALL(), |layer, x| {
        let kv = (x + 0.)?;
        layer.forward(x, &kv, &kv, &options, &ctx)
    });
    let each = differentiated(SMALL(), |layer, x| {
        layer.forward(x, &(x + 0.)?, &(x + 0.)?, &options, &ctx)
    });
    for (i, (a, (b, c))) in same.iter().zip(key_value.iter().zip(&each)).enumerate() {
        assert_close(&format!("{i}, key is value"), b, a, 1e-12, 1e-13);
        assert_close(&format!("{i}, all apart"), c, a, 1e-12, 1e-13);
    }
    assert_eq!(same.len(), 6);
}

#[test]
fn given_projections_equal_packed_ones() {
    let packed = layer(SMALL());
    let (store, vb) = store(5);
    MultiHeadAttention::new(SMALL(), vb).unwrap();
    let get = |name: &str| store.get(name).unwrap().as_tensor().clone();
    let bias = waves(&[12], 0., 0.5, DType::F64);
    let part = |i: usize| {
        let weight = get("in_proj_weight").narrow(0, 4 * i, 4).unwrap();
        Linear::new(weight, Some(bias.narrow(0, 4 * i, 4).unwrap()))
    };
    let out = Linear::new(get("out_proj.weight"), Some(waves(&[4], 2., 0.5, DType::F64)));
    let maps = [part(0), part(1), part(2)];
    let separate = MultiHeadAttention::from_projections(SMALL(), maps, out).unwrap();
    let (xs, options) = (inputs(), AttentionOptions::causal());
    let (a, b) = (attend(&packed, &xs, &options), attend(&separate, &xs, &options));
    assert_close("given projections", &b, &a, 1e-13, 1e-13);
}

#[test]
fn gradients_reach_inputs_and_parameters() {
    let cross = waves(&[2, 5, 3], 0.9, 1., DType::F64);
    let bias = waves(&[2, 1, 3, 5], 0.4, 1., DType::F64);
    let config = MultiHeadConfig { kdim: Some(3), vdim: Some(3), ..SMALL() };
    let all = [("query", inputs()), ("memory", cross), ("bias", bias)];
    check_layer(&all, 1e-7, |vb, t| {
        let options =
            AttentionOptions { bias: Bias::Full(&t[2]), ..AttentionOptions::padded(&[5, 4]) };
        // Dropout draws the same mask at every call.
        let (config, ctx) = (MultiHeadConfig { dropout: 0.3, ..config }, Context::train(1, 1));
        let layer = MultiHeadAttention::new(config, vb)?;
        probe(&layer.forward(&t[0], &t[1], &t[1], &options, &ctx)?)
    });
    check_layer(&[("xs", inputs())], 1e-7, |vb, t| {
        let layer = MultiHeadAttention::new(SMALL(), vb)?;
        probe(&layer.forward(&t[0], &t[0], &t[0], &AttentionOptions::causal(), &Context::eval())?)
    });
}

#[test]
fn watched_weights_are_those_that_were_used() {
    let layer = layer(SMALL()).watched_as("attention", 3);
    let xs = waves(&[2, 5, 4], 0.2, 1., DType::F64);
    let mask = Mask { causal: true, key_lengths: Some(&[5, 3]), window: None };
    let options = AttentionOptions { mask, ..unmasked() };
    let ctx = Context::eval().watching();
    let ys = layer.forward(&xs, &xs, &xs, &options, &ctx).unwrap();
    assert_close("the watch changes nothing", &attend(&layer, &xs, &options), &ys, 0., 0.);
    let watched = ctx.take_trace().remove(0);
    assert_eq!((watched.name.as_str(), watched.step), ("attention", 3));
    let weights = watched.value; // (b, h, n_q, n_k)
    assert_eq!(weights.dims(), [2, 2, 5, 5]);
    let ones = Tensor::ones((2, 2, 5), DType::F64, &Device::Cpu).unwrap();
    assert_close("rows", &weights.sum(3).unwrap(), &ones, 0., 1e-14);
    for (b, length) in [5, 3].into_iter().enumerate() {
        for (i, row) in weights.i((b, 0)).unwrap().to_vec2::<f64>().unwrap().iter().enumerate() {
            let hidden = |j: usize| j > i || j >= length;
            assert!((0..5).all(|j| hidden(j) == (row[j] == 0.)), "{b} {i}: {row:?}");
        }
    }
    // Values weighted by hand give the layer's output.
    let (store, vb) = store(5);
    MultiHeadAttention::new(SMALL(), vb).unwrap();
    let bias = waves(&[12], 0., 0.5, DType::F64);
    let map = |name: &str, rows, bias: Tensor| {
        let weight = store.get(name).unwrap();
        Linear::new(weight.narrow(0, rows, 4).unwrap(), Some(bias))
    };
    let v = map("in_proj_weight", 8, bias.narrow(0, 8, 4).unwrap()).forward(&xs).unwrap();
    let v = v.reshape((2, 5, 2, 2)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    let heads = weights.matmul(&v).unwrap().transpose(1, 2).unwrap().reshape((2, 5, 4)).unwrap();
    let out = map("out_proj.weight", 0, waves(&[4], 2., 0.5, DType::F64)).forward(&heads).unwrap();
    assert_close("output", &out, &ys, 1e-13, 1e-13);
}

#[test]
fn dropout_is_of_the_weights_and_repeats() {
    let xs = inputs();
    let run = |p, ctx: &Context| {
        let layer = layer(MultiHeadConfig { dropout: p, ..SMALL() });
        layer.forward(&xs, &xs, &xs, &unmasked(), ctx).unwrap()
    };
    let ctx = Context::train(1, 4).watching();
    let dropped = run(0.5, &ctx);
    let weights = ctx.take_trace().remove(0).value; // before dropout
    let ones = Tensor::ones((2, 2, 3), DType::F64, &Device::Cpu).unwrap();
    assert_close("rows", &weights.sum(3).unwrap(), &ones, 0., 1e-14);
    assert_close("repeats", &run(0.5, &Context::train(1, 4)), &dropped, 0., 0.);
    let plain = run(0., &Context::train(1, 4));
    assert_close("evaluation", &run(0.5, &Context::eval()), &plain, 0., 0.);
    assert_ne!(
        dropped.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
        plain.flatten_all().unwrap().to_vec1::<f64>().unwrap()
    );
    let bias = waves(&[4], 2., 0.5, DType::F64).broadcast_as((2, 3, 4)).unwrap();
    assert_close("all dropped", &run(1., &Context::train(1, 4)), &bias, 0., 1e-15);
    // The mean over many masks is the output without dropout.
    let mut sum = xs.zeros_like().unwrap();
    for step in 0..400 {
        sum = (sum + run(0.5, &Context::train(2, step))).unwrap();
    }
    assert_close("mean", &(sum / 400.).unwrap(), &plain, 0., 0.15);
}

#[test]
fn bad_input_is_named() {
    let (_store, vb) = store(1);
    let bad = |config| error(MultiHeadAttention::new(config, vb.pp("bad")));
    assert!(
        bad(MultiHeadConfig::new(4, 3)).contains("embed_dim 4 is not a multiple of num_heads 3")
    );
    assert!(bad(MultiHeadConfig::new(4, 0)).contains("num_heads must be positive"));
    assert!(bad(MultiHeadConfig { vdim: Some(0), ..SMALL() }).contains("vdim"));
    assert!(bad(MultiHeadConfig { dropout: 1.5, ..SMALL() }).contains("1.5"));
    let maps = [identity(4), identity(3), identity(4)];
    let message = error(MultiHeadAttention::from_projections(SMALL(), maps, identity(4)));
    assert!(message.contains("key weight (4, 4)") && message.contains("[3, 3]"), "{message}");

    let layer = layer(SMALL());
    let run = |k: &[usize], options: &AttentionOptions<'_>| {
        let (q, k) = (inputs(), waves(k, 0., 1., DType::F64));
        layer.forward(&q, &k, &k, options, &Context::eval())
    };
    for k in [&[2usize, 3, 5] as &[usize], &[1, 3, 4], &[3, 4]] {
        let message = error(run(k, &unmasked()));
        assert!(message.contains(&format!("{k:?}")), "{message}");
    }
    let message = error(run(&[2, 5, 4], &AttentionOptions::padded(&[6, 1])));
    assert!(message.contains('6') && message.contains('5'), "{message}");
    let mask = length_mask(&[1, 2], 3, &Device::Cpu).unwrap();
    let wrong = AttentionOptions { key_mask: Some(&mask), ..unmasked() };
    let message = error(run(&[2, 5, 4], &wrong));
    assert!(message.contains("(2, 5)") && message.contains("[2, 3]"), "{message}");
    let float = mask.to_dtype(DType::F64).unwrap();
    let wrong = AttentionOptions { key_mask: Some(&float), ..unmasked() };
    assert!(error(run(&[2, 3, 4], &wrong)).contains("U8"));
    let gaps = Tensor::new(&[[0u8, 1, 1], [1, 1, 1]], &Device::Cpu).unwrap();
    let slopes = [0.5, 0.25];
    let wrong =
        AttentionOptions { key_mask: Some(&gaps), bias: Bias::Alibi(&slopes), ..unmasked() };
    assert!(error(run(&[2, 3, 4], &wrong)).contains("gaps"));
    assert!(error(MultiHeadAttention::new(SMALL(), given(&[]))).contains("in_proj"));
}

#[test]
fn kept_keys_and_values_are_those_of_the_whole() {
    let map = |seed| {
        let weight = waves(&[4, 4], seed, 0.5, DType::F64);
        Linear::new(weight, Some(waves(&[4], seed + 1., 0.5, DType::F64)))
    };
    let maps = [map(1.), map(2.), map(3.)];
    let separate = MultiHeadAttention::from_projections(SMALL(), maps, map(4.)).unwrap();
    for layer in [layer(SMALL()), separate] {
        let (xs, memory) = (inputs(), waves(&[2, 5, 4], 0.7, 1., DType::F64));
        let ctx = Context::eval();
        let options = AttentionOptions::padded(&[5, 2]);
        let expected = layer.forward(&xs, &memory, &memory, &options, &ctx).unwrap();
        let (k, v) = layer.keys_values(&memory).unwrap();
        let found = layer.attend(&xs, (&k, &v), &options, &ctx).unwrap();
        assert_close("attend", &found, &expected, 1e-12, 1e-12);

        let expected = attend(&layer, &xs, &AttentionOptions::causal());
        let mut cache = KvCache::new();
        for (start, n) in [(0, 2), (2, 1)] {
            let new = xs.narrow(1, start, n).unwrap();
            let options = AttentionOptions::causal();
            let found = layer.attend_cached(&new, &mut cache, &options, &ctx).unwrap();
            let expected = expected.narrow(1, start, n).unwrap();
            assert_close("attend_cached", &found, &expected, 1e-12, 1e-12);
        }
    }
}
