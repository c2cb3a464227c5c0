//! Numbers worked out by hand, laws of attention, and what PyTorch computes.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, torch_fixture, waves};

use super::case::*;
use crate::attention::*;

#[test]
fn merged_blocks_by_hand() {
    // Scores (1, 3, 2, 5) over values 1 2 3 4: maximum 5, sum 1.203438.
    let (k, v) =
        (tensor(&[1., 3., 2., 5.], &[1, 1, 4, 1]), tensor(&[1., 2., 3., 4.], &[1, 1, 4, 1]));
    let one = tensor(&[1.], &[1, 1, 1, 1]);
    let options = Attention { scale: Some(1.), ..Attention::default() };
    let y = attention(&one, &k, &v, &options).unwrap();
    close(&y.output, &[3.688057], 1e-6);
    close(&y.log_sum_exp, &[5.185182], 1e-6);
}

#[test]
fn causal_gradients_by_hand() {
    let q = [1., 0., 0., 1., 1., 1.];
    let var = |x: &[f64]| Var::from_tensor(&tensor(x, &[1, 1, 3, 2])).unwrap();
    let (q, k, v) = (var(&q), var(&q), var(&[1., 2., 3., 4., 5., 6.]));
    let options = Attention { mask: Mask::causal(), ..Attention::default() };
    let y = attention(&q, &k, &v, &options).unwrap();
    let d = tensor(&[1., 0., 0., 1., 1., 1.], &[1, 1, 3, 2]);
    let grads = (y.output * d).unwrap().sum_all().unwrap().backward().unwrap();
    let d_q = [0., 0., -0.312797, 0.312797, 0.179219, 0.881390];
    let d_k = [-0.881390, -1.194187, -0.179219, 0.133579, 1.060609, 1.060609];
    let d_v = [1.248255, 0.578493, 0.248255, 0.918017, 0.503490, 0.503490];
    close(grads.get(&q).unwrap(), &d_q, 1e-6);
    close(grads.get(&k).unwrap(), &d_k, 1e-6);
    close(grads.get(&v).unwrap(), &d_v, 1e-6);
}

#[test]
fn slopes_and_their_weights_by_hand() {
    let eight = alibi_slopes(8);
    assert_eq!((eight[0], eight[1], eight[7]), (0.5, 0.25, 0.00390625));
    let twelve = alibi_slopes(12);
    assert_eq!(twelve[..8], eight[..]);
    for (a, b) in twelve[8..].iter().zip([0.5f64.sqrt(), 0.353553, 0.176777, 0.088388]) {
        assert!((a - b).abs() < 1e-6);
    }
    assert!(alibi_slopes(0).is_empty());
    let zeros = Tensor::zeros((1, 1, 3, 2), DType::F64, &Device::Cpu).unwrap();
    let slope = [0.5];
    let options =
        Attention { mask: Mask::causal(), bias: Bias::Alibi(&slope), ..Attention::default() };
    let p = attention_weights(&zeros, &zeros, &options).unwrap();
    close(&p.narrow(2, 2, 1).unwrap(), &[0.186324, 0.307196, 0.506480], 1e-6);
}

#[test]
fn shaw_rows_by_hand() {
    // With values that are the unit vectors and zero logits, the output counts the rows of the table.
    let expected = [[2, 3, 4, 4], [1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2]];
    let (q, zeros) = (
        Tensor::zeros((1, 1, 4, 1), DType::F64, &Device::Cpu).unwrap(),
        Tensor::zeros((1, 1, 4, 5), DType::F64, &Device::Cpu).unwrap(),
    );
    let keys = Tensor::zeros((5, 1), DType::F64, &Device::Cpu).unwrap();
    let values = Tensor::eye(5, DType::F64, &Device::Cpu).unwrap();
    let relative = Relative::Shaw { keys: &keys, values: Some(&values) };
    let y = attention(&q, &q, &zeros, &Attention { relative, ..Attention::default() }).unwrap();
    let mut counts = [[0.; 5]; 4];
    for (counts, row) in counts.iter_mut().zip(expected) {
        row.into_iter().for_each(|r: usize| counts[r] += 0.25);
    }
    close(&y.output, &counts.concat(), 1e-12);
}

#[test]
fn music_equals_its_definition() {
    let (n, l, d) = (6, 4, 3);
    let (q, k) =
        (waves(&[1, 1, n, d], 1., 1., DType::F64), waves(&[1, 1, n, d], 2., 1., DType::F64));
    let e = waves(&[1, l, d], 3., 1., DType::F64);
    let options = Attention {
        scale: Some(0.7),
        mask: Mask::causal(),
        relative: Relative::Music(&e),
        ..Attention::default()
    };
    let (qs, ks, es) = (flat(&q), flat(&k), flat(&e));
    let dot = |a: &[f64], i: usize, b: &[f64], j: usize| -> f64 {
        (0..d).map(|c| a[i * d + c] * b[j * d + c]).sum()
    };
    let mut lse = vec![];
    for i in 0..n {
        let relative = |t: usize| if t < l { dot(&qs, i, &es, l - 1 - t) } else { 0. };
        let score = |j| 0.7 * (dot(&qs, i, &ks, j) + relative(i - j));
        lse.push((0..=i).map(|j| f64::exp(score(j))).sum::<f64>().ln());
    }
    close(&attention(&q, &k, &k, &options).unwrap().log_sum_exp, &lse, 1e-12);
    // A vector that is the same for all distances drops out of the softmax.
    let constant = Tensor::ones((1, n, d), DType::F64, &Device::Cpu).unwrap();
    let constant = Attention { relative: Relative::Music(&constant), ..options.clone() };
    let without = Attention { relative: Relative::None, ..options };
    let (a, b) = (attention(&q, &k, &k, &constant), attention(&q, &k, &k, &without));
    assert_close("constant E_r", &a.unwrap().output, &b.unwrap().output, 1e-12, 1e-12);
}

#[test]
fn laws_of_masks_and_heads() {
    let case = Case { h: 4, n: (70, 300), ..BASE };
    let x: Vec<Tensor> = case.inputs(DType::F64).into_iter().map(|(_, t)| t).collect();
    let run = |case: &Case, x: &[Tensor]| case.call(x, attention).unwrap();
    let full = run(&case, &x);
    // A window that covers everything, and a slope of zero.
    let wide = Case { window: Some((Some(300), Some(300))), ..case.clone() };
    assert_close("window", &run(&wide, &x).output, &full.output, 0., 0.);
    let slopes = [0.; 4];
    let flat = Attention { bias: Bias::Alibi(&slopes), ..Attention::default() };
    let flat = attention(&x[0], &x[1], &x[2], &flat).unwrap().output;
    assert_close("slope 0", &flat, &full.output, 1e-14, 1e-14);
    // Grouped queries are repeated keys and values.
    let repeat = |t: &Tensor| {
        let (b, h, n, d) = t.dims4().unwrap();
        let t = t.unsqueeze(2).unwrap().broadcast_as((b, h, 2, n, d)).unwrap();
        t.reshape((b, 2 * h, n, d)).unwrap()
    };
    let repeated = [x[0].clone(), repeat(&x[1]), repeat(&x[2])];
    assert_close("groups", &run(&case, &repeated).output, &full.output, 1e-14, 1e-14);
    // Keys beyond a row's length have no effect.
    let padded = Case { lengths: Some(vec![120, 120]), ..case.clone() };
    let cut: Vec<Tensor> = x[1..].iter().map(|t| t.narrow(2, 0, 120).unwrap()).collect();
    let cut = attention(&x[0], &cut[0], &cut[1], &Attention::default()).unwrap();
    assert_close("padding", &run(&padded, &x).output, &cut.output, 1e-14, 1e-14);
    // A query's result does not hang on later keys.
    let causal = Case { causal: true, n: (300, 300), ..case };
    let mut x: Vec<Tensor> = causal.inputs(DType::F64).into_iter().map(|(_, t)| t).collect();
    let before = run(&causal, &x).output.narrow(2, 0, 200).unwrap();
    for t in &mut x[1..] {
        let (head, tail) = (t.narrow(2, 0, 200).unwrap(), t.narrow(2, 200, 100).unwrap());
        *t = Tensor::cat(&[&head, &(tail * -3.).unwrap()], 2).unwrap();
    }
    let after = run(&causal, &x).output.narrow(2, 0, 200).unwrap();
    assert_close("later keys", &after, &before, 0., 0.);
}

#[test]
fn parts_of_the_keys_merge() {
    let case = Case { n: (5, 600), ..BASE };
    let x: Vec<Tensor> = case.inputs(DType::F64).into_iter().map(|(_, t)| t).collect();
    let whole = case.call(&x, attention).unwrap();
    for cut in [1, 256, 299, 600] {
        let part = |from, n| {
            let k = |t: &Tensor| t.narrow(2, from, n).unwrap();
            attention(&x[0], &k(&x[1]), &k(&x[2]), &Attention::default()).unwrap()
        };
        let (a, b) = (part(0, cut), part(cut, 600 - cut));
        let weight = |part: &Attended| {
            let w = (&part.log_sum_exp - &whole.log_sum_exp).unwrap().exp().unwrap();
            part.output.broadcast_mul(&w.unsqueeze(3).unwrap()).unwrap()
        };
        let merged = (weight(&a) + weight(&b)).unwrap();
        assert_close("merged", &merged, &whole.output, 1e-12, 1e-12);
    }
}

#[test]
fn shifted_and_huge_scores() {
    let x: Vec<Tensor> = BASE.inputs(DType::F64).into_iter().map(|(_, t)| t).collect();
    let (b, h, (n_q, n_k)) = (BASE.b, BASE.h, BASE.n);
    let shift = waves(&[b, h, n_q, 1], 9., 3., DType::F64);
    let shift = shift.broadcast_as((b, h, n_q, n_k)).unwrap().contiguous().unwrap();
    let options = Attention { bias: Bias::Full(&shift), ..Attention::default() };
    let (plain, shifted) = (
        attention(&x[0], &x[1], &x[2], &Attention::default()).unwrap(),
        attention(&x[0], &x[1], &x[2], &options).unwrap(),
    );
    assert_close("output", &shifted.output, &plain.output, 1e-12, 1e-12);
    let moved = (plain.log_sum_exp + shift.narrow(3, 0, 1).unwrap().squeeze(3).unwrap()).unwrap();
    assert_close("log_sum_exp", &shifted.log_sum_exp, &moved, 1e-12, 1e-12);
    // Scores of about ±1e4, and subnormal ones.
    for scale in [1e4, -1e4, 1e-40] {
        let case = Case { scale: Some(scale), n: (70, 300), ..BASE };
        for dtype in [DType::F32, DType::F64] {
            for (name, t) in case.run(dtype, attention) {
                assert!(flat(&t).iter().all(|x| x.is_finite()), "{name} at {scale}");
            }
        }
        let tolerance = if scale.abs() > 1. { 1e-7 } else { 1e-10 };
        let (a, b) = (case.run(DType::F64, attention), case.run(DType::F64, plain::attention));
        for ((name, a), (_, b)) in a.iter().zip(&b) {
            assert_close(name, a, b, tolerance, tolerance * scale.abs().max(1.));
        }
    }
}

#[test]
fn rows_of_score_gradients_sum_to_zero() {
    // The gradient of a whole bias is that of the scores; without a loss on log_sum_exp, its rows sum to 0.
    let case = Case { bias: BIASES[1], causal: true, n: (70, 70), ..BASE };
    let vars: Vec<Var> =
        case.inputs(DType::F64).iter().map(|(_, t)| Var::from_tensor(t).unwrap()).collect();
    let x: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = case.call(&x, attention).unwrap().output;
    let grads = y.sin().unwrap().sum_all().unwrap().backward().unwrap();
    let sums = grads.get(&vars[3]).unwrap().sum(3).unwrap();
    assert!(flat(&sums).iter().all(|x| x.abs() < 1e-12));
}

#[test]
fn weights_give_the_output() {
    for (bias, relative) in BIASES.into_iter().zip(RELATIVES) {
        let case = Case { bias, relative, causal: true, n: (70, 90), ..BASE };
        let x: Vec<Tensor> = case.inputs(DType::F64).into_iter().map(|(_, t)| t).collect();
        // Without Shaw's values, the output is the weights times the values.
        let shaw = matches!(relative, RelativeCase::Shaw { values: true, .. });
        let output = case.call(&x, attention).unwrap().output;
        let weights = |q: &Tensor, k: &Tensor, v: &Tensor, o: &Attention<'_>| {
            let weights = attention_weights(q, k, o)?;
            Ok(Attended { output: weights.matmul(v)?, log_sum_exp: weights.sum(3)? })
        };
        let y = case.call(&x, weights).unwrap();
        close(&y.log_sum_exp, &[1.; 280], 1e-12);
        if !shaw {
            assert_close("output", &y.output, &output, 1e-12, 1e-12);
        }
    }
}

#[test]
fn torch_fixtures() {
    for name in ["sdpa", "sdpa_causal", "sdpa_scale", "sdpa_bool_mask", "sdpa_float_mask"] {
        for (dtype, tolerance) in [("f64", 1e-10), ("f32", 1e-5)] {
            let Some(f) = torch_fixture("torch_fixtures", &format!("{name}.{dtype}")) else {
                return;
            };
            let vars: Vec<Var> =
                ["q", "k", "v"].iter().map(|n| Var::from_tensor(&f[*n]).unwrap()).collect();
            let bias = f.get("attn_mask").map(|mask| {
                let mask = if mask.dtype() == DType::U8 {
                    let (zero, low) = (mask.zeros_like().unwrap(), f64::NEG_INFINITY);
                    let zero = zero.to_dtype(f["q"].dtype()).unwrap();
                    mask.where_cond(
                        &zero,
                        &Tensor::full(low, mask.shape(), &Device::Cpu)
                            .unwrap()
                            .to_dtype(zero.dtype())
                            .unwrap(),
                    )
                    .unwrap()
                } else {
                    mask.clone()
                };
                mask.unsqueeze(0).unwrap().unsqueeze(0).unwrap()
            });
            let options = Attention {
                scale: (name == "sdpa_scale").then_some(0.7),
                mask: Mask { causal: name == "sdpa_causal", ..Mask::default() },
                bias: bias.as_ref().map_or(Bias::None, Bias::Full),
                ..Attention::default()
            };
            let y = attention(&vars[0], &vars[1], &vars[2], &options).unwrap().output;
            assert_close(name, &y, &f["output"], tolerance, tolerance);
            let loss = (y * &f["probe.output"]).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            for (var, n) in vars.iter().zip(["q", "k", "v"]) {
                let expected = &f[&format!("grad.{n}")];
                assert_close(name, grads.get(var).unwrap(), expected, tolerance, tolerance);
            }
        }
    }
}
