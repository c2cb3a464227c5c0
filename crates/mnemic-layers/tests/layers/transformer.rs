//! The Transformer's layers and stacks.

use candle_core::{DType, Device, IndexOp, Result, Tensor, Var};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Activation, AttentionOptions, Context, Mask, ParamStore, SinusoidLayout, TransformerConfig,
    TransformerDecoder, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer,
    length_mask, sinusoidal_positions,
};
use mnemic_testing::{assert_close, torch_fixture, waves};

use crate::{against_torch, check_layer, error, probe, shapes, store, tensor};

const FORMS: [(bool, Activation); 4] = [
    (false, Activation::Relu),
    (false, Activation::Gelu),
    (true, Activation::Relu),
    (true, Activation::Gelu),
];

/// Width 8, two heads, feed-forward 12: the fixtures' sizes.
fn config(norm_first: bool, activation: Activation) -> TransformerConfig {
    TransformerConfig { norm_first, activation, ..TransformerConfig::new(8, 2, 12) }
}

fn fixture_name(kind: &str, norm_first: bool, activation: Activation) -> String {
    let norm = if norm_first { "prenorm" } else { "postnorm" };
    let activation = if activation == Activation::Relu { "relu" } else { "gelu" };
    format!("transformer_{kind}_layer_{norm}_{activation}")
}

/// Either encoder or decoder, a layer or a stack, on the tensors of a fixture.
fn encode(
    config: &TransformerConfig,
    layers: usize,
    src: &Tensor,
    options: &AttentionOptions<'_>,
    ctx: &Context,
    vb: VarBuilder<'_>,
) -> Result<Tensor> {
    match layers {
        1 => TransformerEncoderLayer::new(config, vb)?.forward(src, options, ctx),
        n => TransformerEncoder::new(config, n, true, vb)?.forward(src, options, ctx),
    }
}

fn decode(
    config: &TransformerConfig,
    layers: usize,
    [tgt, memory]: [&Tensor; 2],
    memory_options: &AttentionOptions<'_>,
    ctx: &Context,
    vb: VarBuilder<'_>,
) -> Result<Tensor> {
    let causal = AttentionOptions::causal();
    match layers {
        1 => TransformerDecoderLayer::new(config, vb)?.forward(
            tgt,
            memory,
            &causal,
            memory_options,
            ctx,
        ),
        n => TransformerDecoder::new(config, n, true, vb)?.forward(
            tgt,
            memory,
            &causal,
            memory_options,
            ctx,
        ),
    }
}

/// The fixtures of one kind: names, configurations and numbers of layers.
fn fixtures(kind: &str) -> Vec<(String, TransformerConfig, usize)> {
    let mut all: Vec<_> = FORMS
        .into_iter()
        .map(|(first, activation)| {
            (fixture_name(kind, first, activation), config(first, activation), 1)
        })
        .collect();
    all.push((format!("transformer_{kind}_2layers_prenorm"), config(true, Activation::Relu), 2));
    all
}

#[test]
fn encoders_agree_with_torch() {
    for (name, config, layers) in fixtures("encoder") {
        let run = against_torch("encoders_agree_with_torch", &name, |tensors, vb| {
            let mask = tensors["src_key_padding_mask"].eq(0u8)?; // there: 1 is ignored
            let options = AttentionOptions { key_mask: Some(&mask), ..AttentionOptions::default() };
            encode(&config, layers, &tensors["src"], &options, &Context::eval(), vb)
        });
        if run.is_none() {
            return;
        }
    }
}

#[test]
fn decoders_agree_with_torch() {
    for (name, config, layers) in fixtures("decoder") {
        let run = against_torch("decoders_agree_with_torch", &name, |tensors, vb| {
            let mask = tensors["memory_key_padding_mask"].eq(0u8)?;
            let options = AttentionOptions { key_mask: Some(&mask), ..AttentionOptions::default() };
            let inputs = [&tensors["tgt"], &tensors["memory"]];
            decode(&config, layers, inputs, &options, &Context::eval(), vb)
        });
        if run.is_none() {
            return;
        }
    }
}

#[test]
fn parameters_have_the_names_of_torch() {
    let inputs = waves(&[1, 2, 8], 0., 1., DType::F64);
    let (options, ctx) = (AttentionOptions::default(), Context::eval());
    for kind in ["encoder", "decoder"] {
        for (name, config, layers) in fixtures(kind) {
            let Some(fixture) = torch_fixture("parameter names", &format!("{name}.f64")) else {
                return;
            };
            let (store, vb) = store(0);
            match kind {
                "encoder" => encode(&config, layers, &inputs, &options, &ctx, vb),
                _ => decode(&config, layers, [&inputs; 2], &options, &ctx, vb),
            }
            .unwrap();
            let mut expected: Vec<_> = fixture
                .iter()
                .filter_map(|(k, v)| Some((k.strip_prefix("param.")?.into(), v.dims().to_vec())))
                .collect();
            expected.sort();
            assert_eq!(shapes(&store), expected, "{name}");
        }
    }
}

#[test]
fn the_base_model_has_the_papers_parameters() {
    // 63,082,496 in all, with a shared table of 37,000 words: 37,000 · 512 + 6 (encoder + decoder).
    let config = TransformerConfig::new(512, 8, 2048);
    let store = ParamStore::new(0);
    let vb = store.builder(DType::F32, &Device::Cpu);
    TransformerEncoderLayer::new(&config, vb.pp("encoder")).unwrap();
    assert_eq!(store.num_parameters(), 3_152_384);
    TransformerDecoderLayer::new(&config, vb.pp("decoder")).unwrap();
    assert_eq!(37_000 * 512 + 6 * store.num_parameters(), 63_082_496);
}

#[test]
fn without_biases() {
    let (store, vb) = store(0);
    let config = TransformerConfig { bias: false, ..config(true, Activation::Silu) };
    TransformerDecoder::new(&config, 1, true, vb).unwrap();
    let names: Vec<_> = shapes(&store).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 10);
    assert!(names.iter().all(|name| name.ends_with("weight")), "{names:?}");
}

#[test]
fn gradients_reach_inputs_and_parameters() {
    let src = waves(&[2, 3, 4], 0.2, 1., DType::F64);
    let memory = waves(&[2, 4, 4], 0.7, 1., DType::F64);
    // Every activation; dropout everywhere draws the same masks at every call.
    let activations = [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];
    for (activation, norm_first) in activations.into_iter().zip([true, false, true, false]) {
        let config =
            TransformerConfig { norm_first, activation, ..TransformerConfig::new(4, 2, 3) };
        let config = config.with_dropout(0.2);
        check_layer(&[("src", src.clone())], 1e-6, |vb, t| {
            let (options, ctx) = (AttentionOptions::padded(&[3, 2]), Context::train(3, 1));
            probe(&encode(&config, 2, &t[0], &options, &ctx, vb)?)
        });
    }
    let config = TransformerConfig { norm_first: true, ..TransformerConfig::new(4, 2, 3) };
    let config = config.with_dropout(0.2);
    check_layer(&[("tgt", src), ("memory", memory)], 1e-6, |vb, t| {
        let (options, ctx) = (AttentionOptions::padded(&[4, 2]), Context::train(3, 1));
        probe(&decode(&config, 2, [&t[0], &t[1]], &options, &ctx, vb)?)
    });
}

#[test]
fn padding_changes_nothing() {
    for (norm_first, activation) in FORMS {
        let (_store, vb) = store(2);
        let config = config(norm_first, activation);
        let encoder = TransformerEncoder::new(&config, 2, true, vb.pp("encoder")).unwrap();
        let decoder = TransformerDecoder::new(&config, 2, true, vb.pp("decoder")).unwrap();
        let ctx = Context::eval();
        let (all, causal) = (AttentionOptions::default(), AttentionOptions::causal());
        let xs = waves(&[2, 5, 8], 0.2, 1., DType::F64);
        let tgt = waves(&[2, 4, 8], 0.6, 1., DType::F64);
        let alone = encoder.forward(&xs.i((1..2, ..3)).unwrap(), &all, &ctx).unwrap();
        let tgt_alone = tgt.i((1..2, ..2)).unwrap();
        let alone = decoder.forward(&tgt_alone, &alone, &causal, &all, &ctx).unwrap();

        let (mask, target) = (Mask { key_lengths: Some(&[5, 3]), ..Mask::default() }, &[4, 2]);
        let padded = AttentionOptions { mask, ..all };
        let mask = Mask { key_lengths: Some(target), ..Mask::causal() };
        let causal = AttentionOptions { mask, ..all };
        let there = length_mask(&[5, 3], 5, &Device::Cpu).unwrap().unsqueeze(2).unwrap();
        let there = there.broadcast_as((2, 5, 8)).unwrap();
        for junk in [0., 1., 1e3] {
            let noise = waves(&[2, 5, 8], 9., junk, DType::F64);
            let xs = Var::from_tensor(&there.where_cond(&xs, &noise).unwrap()).unwrap();
            let memory = encoder.forward(&xs, &padded, &ctx).unwrap();
            let ys = decoder.forward(&tgt, &memory, &causal, &padded, &ctx).unwrap();
            let ys = ys.i((1..2, ..2)).unwrap();
            assert_close("valid outputs", &ys, &alone, 1e-11, 1e-12);
            let grads = probe(&ys).unwrap().backward().unwrap();
            let padding = grads.get(&xs).unwrap().i((1, 3..)).unwrap();
            assert_close("no gradient", &padding, &tensor(&[0.; 16], &[2, 8]), 0., 0.);
        }
    }
}

#[test]
fn no_step_sees_the_future() {
    let (_store, vb) = store(2);
    let config = config(true, Activation::Gelu);
    let decoder = TransformerDecoder::new(&config, 2, true, vb.pp("decoder")).unwrap();
    let language_model = TransformerEncoder::new(&config, 2, true, vb.pp("lm")).unwrap();
    let memory = waves(&[1, 3, 8], 0.6, 1., DType::F64);
    let xs = Var::from_tensor(&waves(&[1, 5, 8], 0.2, 1., DType::F64)).unwrap();
    let (causal, ctx) = (AttentionOptions::causal(), Context::eval());
    let all = AttentionOptions::default();
    for ys in [
        decoder.forward(&xs, &memory, &causal, &all, &ctx).unwrap(),
        language_model.forward(&xs, &causal, &ctx).unwrap(),
    ] {
        for t in 0..5 {
            let grads = probe(&ys.i((.., t)).unwrap()).unwrap().backward().unwrap();
            let reach = grads.get(&xs).unwrap().abs().unwrap().sum(2).unwrap();
            let reach = reach.to_vec2::<f64>().unwrap().remove(0);
            assert!(reach[..=t].iter().all(|&g| g > 0.), "{t}: {reach:?}");
            assert!(reach[t + 1..].iter().all(|&g| g == 0.), "{t}: {reach:?}");
        }
    }
}

#[test]
fn the_encoder_does_not_know_positions() {
    // Permuted inputs give permuted outputs, until positions are added.
    let (_store, vb) = store(2);
    let encoder = TransformerEncoder::new(&config(true, Activation::Relu), 2, true, vb).unwrap();
    let xs = waves(&[2, 4, 8], 0.2, 1., DType::F64);
    let order = Tensor::new(&[2u32, 0, 3, 1], &Device::Cpu).unwrap();
    let run =
        |xs: &Tensor| encoder.forward(xs, &AttentionOptions::default(), &Context::eval()).unwrap();
    let permuted = |xs: &Tensor| xs.index_select(&order, 1).unwrap();
    assert_close("permuted", &run(&permuted(&xs)), &permuted(&run(&xs)), 1e-12, 1e-12);
    let layout = SinusoidLayout::Interleaved;
    let pe = sinusoidal_positions(0..4, 8, layout, DType::F64, &Device::Cpu).unwrap();
    let positioned = |xs: &Tensor| run(&xs.broadcast_add(&pe).unwrap());
    let difference = (positioned(&permuted(&xs)) - permuted(&positioned(&xs))).unwrap();
    let difference = difference.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    assert!(difference > 0.01, "{difference}");
}

#[test]
fn every_attention_is_watched() {
    let (_store, vb) = store(2);
    let config = config(true, Activation::Relu);
    let encoder = TransformerEncoder::new(&config, 2, true, vb.pp("encoder")).unwrap();
    let decoder = TransformerDecoder::new(&config, 2, true, vb.pp("decoder")).unwrap();
    let src = waves(&[2, 5, 8], 0.2, 1., DType::F64);
    let tgt = waves(&[2, 3, 8], 0.6, 1., DType::F64);
    let (all, causal) = (AttentionOptions::padded(&[5, 2]), AttentionOptions::causal());
    let ctx = Context::eval().watching();
    let memory = encoder.forward(&src, &all, &ctx).unwrap();
    decoder.forward(&tgt, &memory, &causal, &all, &ctx).unwrap();
    let trace = ctx.take_trace();
    let seen: Vec<(&str, usize, &[usize])> =
        trace.iter().map(|w| (w.name.as_str(), w.step, w.value.dims())).collect();
    let expected: [(&str, usize, &[usize]); 6] = [
        ("attention", 0, &[2, 2, 5, 5]),
        ("attention", 1, &[2, 2, 5, 5]),
        ("decoder_attention", 0, &[2, 2, 3, 3]),
        ("cross_attention", 0, &[2, 2, 3, 5]),
        ("decoder_attention", 1, &[2, 2, 3, 3]),
        ("cross_attention", 1, &[2, 2, 3, 5]),
    ];
    assert_eq!(seen, expected);
    for watched in &trace {
        let sums = watched.value.sum(3).unwrap();
        assert_close(&watched.name, &sums, &sums.ones_like().unwrap(), 0., 1e-13);
    }
    let renamed = encoder.watched_as("encoder_attention");
    renamed.forward(&src, &all, &ctx).unwrap();
    let last = ctx.take_trace().remove(1);
    assert_eq!((last.name.as_str(), last.step), ("encoder_attention", 1));
}

#[test]
fn dropout_stands_around_every_sub_layer() {
    let xs = waves(&[2, 3, 8], 0.2, 1., DType::F64);
    let options = AttentionOptions::default();
    let run = |config: TransformerConfig, ctx: &Context| {
        let (_store, vb) = store(2);
        TransformerEncoder::new(&config, 2, false, vb).unwrap().forward(&xs, &options, ctx).unwrap()
    };
    let plain = config(true, Activation::Relu);
    // All dropped: what is left of a pre-norm stack is the residual path.
    let none = TransformerConfig { dropout: 1., ..plain };
    assert_close("residual path", &run(none, &Context::train(1, 1)), &xs, 0., 0.);
    for config in [
        TransformerConfig { dropout: 0.3, ..plain },
        TransformerConfig { attention_dropout: 0.3, ..plain },
        TransformerConfig { activation_dropout: 0.3, ..plain },
    ] {
        let train = |step| run(config, &Context::train(1, step));
        assert_close(
            "evaluation",
            &run(config, &Context::eval()),
            &run(plain, &Context::eval()),
            0.,
            0.,
        );
        assert_close("repeats", &train(1), &train(1), 0., 0.);
        let differs = |a: Tensor, b: Tensor| {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() > 1e-3
        };
        assert!(differs(train(1), train(2)) && differs(train(1), run(plain, &Context::eval())));
    }
}

#[test]
fn half_precision_stays_near() {
    let wide = ParamStore::new(4);
    let config = config(true, Activation::Gelu);
    let make = |store: &ParamStore, dtype| {
        TransformerEncoder::new(&config, 2, true, store.builder(dtype, &Device::Cpu)).unwrap()
    };
    let narrow = ParamStore::new(4);
    let (full, half) = (make(&wide, DType::F32), make(&narrow, DType::BF16));
    let xs = waves(&[2, 3, 8], 0.2, 1., DType::F32);
    let (options, ctx) = (AttentionOptions::padded(&[3, 1]), Context::eval());
    let expected = full.forward(&xs, &options, &ctx).unwrap();
    let ys = half.forward(&xs.to_dtype(DType::BF16).unwrap(), &options, &ctx).unwrap();
    assert_eq!(ys.dtype(), DType::BF16);
    assert_close("bf16", &ys, &expected, 0.05, 0.05);
}

#[test]
fn sinusoids_of_three_makers() {
    let at_one = [
        (SinusoidLayout::Interleaved, [0.841471, 0.540302, 0.010000, 0.999950]),
        (SinusoidLayout::Halves, [0.841471, 0.010000, 0.540302, 0.999950]),
        (SinusoidLayout::Tensor2Tensor, [0.841471, 0.000100, 0.540302, 1.0]),
    ];
    for (layout, expected) in at_one {
        let pe = sinusoidal_positions(1..2, 4, layout, DType::F64, &Device::Cpu).unwrap();
        assert_close("position 1", &pe, &tensor(&expected, &[1, 4]), 0., 1e-6);
        // Products depend on the distance alone, and the length is the same everywhere.
        let pe = sinusoidal_positions(0..40, 16, layout, DType::F64, &Device::Cpu).unwrap();
        let products = pe.matmul(&pe.t().unwrap()).unwrap().to_vec2::<f64>().unwrap();
        for i in 0..30 {
            assert!((products[i][i] - 8.).abs() < 1e-12);
            assert!((products[i][i + 10] - products[0][10]).abs() < 1e-12);
        }
    }
    let layout = SinusoidLayout::Interleaved;
    let none = sinusoidal_positions(3..3, 4, layout, DType::F32, &Device::Cpu).unwrap();
    assert_eq!((none.dims(), none.dtype()), (&[0usize, 4] as &[usize], DType::F32));
    for dim in [0, 5] {
        let message = error(sinusoidal_positions(0..2, dim, layout, DType::F32, &Device::Cpu));
        assert!(message.contains(&dim.to_string()), "{message}");
    }
}

#[test]
fn bad_input_is_named() {
    let (_store, vb) = store(1);
    let good = config(false, Activation::Relu);
    let bad =
        |config: TransformerConfig| error(TransformerEncoderLayer::new(&config, vb.pp("bad")));
    assert!(bad(TransformerConfig { num_heads: 3, ..good }).contains("num_heads 3"));
    assert!(bad(TransformerConfig { dim_feedforward: 0, ..good }).contains("dim_feedforward"));
    assert!(bad(TransformerConfig { dropout: -0.1, ..good }).contains("-0.1"));
    assert!(bad(TransformerConfig { activation_dropout: f64::NAN, ..good }).contains("activation"));
    assert!(bad(TransformerConfig { layer_norm_eps: -1., ..good }).contains("eps"));

    let decoder = TransformerDecoder::new(&good, 1, false, vb.pp("good")).unwrap();
    assert_eq!(decoder.layers().len(), 1);
    let run = |tgt: &[usize], memory: &[usize]| {
        let (tgt, memory) = (waves(tgt, 0., 1., DType::F64), waves(memory, 0., 1., DType::F64));
        let options = AttentionOptions::default();
        error(decoder.forward(&tgt, &memory, &options, &options, &Context::eval()))
    };
    assert!(run(&[2, 3, 7], &[2, 3, 8]).contains("tgt (b, t, 8), got [2, 3, 7]"));
    assert!(run(&[2, 3, 8], &[2, 8]).contains("memory (b, t, 8), got [2, 8]"));
    assert!(run(&[2, 3, 8], &[1, 3, 8]).contains("[1, 3, 8]"));
}
