mod case;
#[cfg(cuda_path)]
mod cuda;
mod laws;

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use self::case::*;
use super::cpu::{COLS, ROWS};
use super::*;
use crate::simd;

#[test]
fn fused_equals_plain_for_all_options() {
    for bias in BIASES {
        for relative in RELATIVES {
            for dropout in [0., 0.3] {
                let causal = matches!(relative, RelativeCase::Music { .. });
                Case { bias, relative, dropout, causal, h: 4, ..BASE }.check();
                let lengths = Some(vec![6, 3]);
                let window = Some((Some(3), Some(1)));
                Case { bias, relative, dropout, causal: true, lengths, window, n: (9, 6), ..BASE }
                    .check();
            }
        }
    }
}

#[test]
fn fused_equals_plain_at_the_edges_of_tiles() {
    let sizes = [1, 15, ROWS - 1, ROWS, ROWS + 1, COLS - 1, COLS, COLS + 1, 530];
    for (i, &n_q) in sizes.iter().enumerate() {
        for n_k in [sizes[8 - i], n_q, 300] {
            for causal in [false, true] {
                Case { b: 1, h: 1, h_kv: 1, n: (n_q, n_k), causal, ..BASE }.check();
            }
            let music = RelativeCase::Music { l: 1 + n_k / 2, shared: i % 2 == 0 };
            let music =
                Case { b: 1, n: (n_q, n_k), causal: true, relative: music, d: (5, 17), ..BASE };
            music.check();
            let shaw = RelativeCase::Shaw { k: 9, values: true };
            Case { b: 1, h_kv: 1, n: (n_q, n_k), relative: shaw, dropout: 0.5, ..BASE }.check();
        }
    }
    let bias = BiasCase::Full { b: false, h: true, hidden: true };
    Case { n: (130, 300), bias, h: 4, ..BASE }.check();
    let window = Some((Some(70), Some(0)));
    Case { n: (600, 600), window, bias: BiasCase::Distance, b: 1, ..BASE }.check();
    Case { n: (100, 700), window, bias: BiasCase::Alibi, lengths: Some(vec![700, 50]), ..BASE }
        .check();
}

#[test]
fn empty_sizes() {
    for n in [(0, 3), (3, 0), (0, 0)] {
        for bias in BIASES {
            Case { n, bias, ..BASE }.check();
        }
        for relative in RELATIVES {
            Case { n, relative, causal: true, ..BASE }.check();
        }
    }
    Case { b: 0, ..BASE }.check();
    let y = Case { n: (2, 0), ..BASE };
    let y = y.run(DType::F32, attention);
    assert!(y[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| *x == 0.));
    let lse = y[1].1.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(lse.iter().all(|x| *x == f32::NEG_INFINITY));
}

#[test]
fn wholly_masked_rows_are_zero_without_gradient() {
    // Of 6 queries over 3 keys, the first three see nothing; the second batch row has no key at all.
    let case = Case { n: (6, 3), causal: true, lengths: Some(vec![3, 0]), ..BASE };
    for f in [attention as Attend, plain::attention] {
        let results = case.run(DType::F64, f);
        for (name, t) in &results {
            let v = t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(v.iter().all(|x| !x.is_nan()), "{name}");
        }
        let head = |k: usize| results[k].1.get(0).unwrap().get(0).unwrap();
        let sum = |t: Tensor| t.abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert_eq!(sum(head(0).narrow(0, 0, 3).unwrap()), 0.);
        assert_eq!(sum(head(2).narrow(0, 0, 3).unwrap()), 0.);
        assert!(sum(head(2).narrow(0, 3, 3).unwrap()) > 0.);
        for k in [0, 2, 3, 4] {
            assert_eq!(sum(results[k].1.get(1).unwrap()), 0.);
        }
        assert_eq!(head(1).to_vec1::<f64>().unwrap()[..3], [f64::NEG_INFINITY; 3]);
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let sizes =
        (1..3usize, 1..3usize, 1..3usize, (0..90usize, 0..90usize), (1..20usize, 1..9usize));
    let side = proptest::option::of(0..40usize);
    let masks = (any::<bool>(), proptest::option::of((side.clone(), side)), 0..3usize);
    let more = (0..BIASES.len(), 0..RELATIVES.len(), any::<bool>(), -2.0..2.0f64);
    (sizes, masks, more).prop_map(|(sizes, masks, more)| {
        let ((b, h_kv, group, n, d), (causal, window, padding)) = (sizes, masks);
        let relative = RELATIVES[more.1];
        Case {
            b,
            h: h_kv * group,
            h_kv,
            n,
            d,
            causal: causal || matches!(relative, RelativeCase::Music { .. }),
            window,
            lengths: (padding > 0).then(|| (0..b).map(|i| n.1 * (i + padding) / (b + 2)).collect()),
            bias: BIASES[more.0],
            relative,
            dropout: if more.2 { 0.4 } else { 0. },
            scale: Some(more.3),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn fused_equals_plain_for_random_cases(case in any_case()) {
        case.check();
    }
}

#[test]
fn finite_differences() {
    let shared = Case { b: 1, h: 2, h_kv: 1, n: (3, 4), d: (2, 2), ..BASE };
    let cases = [
        shared.clone(),
        Case { causal: true, dropout: 0.4, ..shared.clone() },
        Case { bias: BIASES[1], relative: RELATIVES[4], ..shared.clone() },
        Case { bias: BIASES[6], relative: RELATIVES[1], causal: true, ..shared.clone() },
        Case { bias: BIASES[4], relative: RELATIVES[2], causal: true, ..shared },
    ];
    for case in cases {
        check_gradients(&case.inputs(DType::F64), 1e-8, |x| {
            let y = case.call(x, attention)?;
            y.output.sin()?.sum_all()? + y.log_sum_exp.sqr()?.sum_all()?
        });
    }
}

fn bits(results: &[(String, Tensor)]) -> Vec<u32> {
    let all = results.iter().flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    all.map(f32::to_bits).collect()
}

fn large_cases() -> Vec<Case> {
    let base = Case { n: (200, 700), ..BASE };
    vec![
        Case { causal: true, relative: RELATIVES[2], ..base.clone() },
        Case { b: 1, h: 2, h_kv: 1, bias: BiasCase::Distance, dropout: 0.2, ..base.clone() },
        Case { bias: BIASES[3], relative: RELATIVES[4], ..base },
    ]
}

#[test]
fn the_same_bits_for_any_number_of_threads_and_level() {
    for case in large_cases() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bits(&case.run(DType::F32, attention)))
        };
        let expected = with(1);
        assert!(with(2) == expected && with(4) == expected && with(4) == expected, "{case:?}");
        for level in simd::available() {
            let got = simd::with_level(level, || bits(&case.run(DType::F32, attention))).unwrap();
            assert!(got == expected, "{case:?} {level:?}");
        }
    }
}

#[test]
fn operands_that_lie_scattered_or_need_no_gradient() {
    let wide = waves(&[2, 7, 3, 8], 1., 1., DType::F64);
    let heads = |from| wide.transpose(1, 2).unwrap().narrow(3, from, 4).unwrap();
    let (q, k) = (heads(0), Var::from_tensor(&heads(4)).unwrap());
    let run = |q: &Tensor| {
        let y = attention(q, &k, &q.detach(), &Attention::default()).unwrap();
        let grads = y.output.sin().unwrap().sum_all().unwrap().backward().unwrap();
        (y.output, grads.get(&k).unwrap().clone(), grads.get(q).is_some())
    };
    let (a, b) = (run(&q), run(&q.contiguous().unwrap()));
    assert_close("output", &a.0, &b.0, 0., 0.);
    assert_close("gradient", &a.1, &b.1, 0., 0.);
    assert!(!a.2);
    // Only log_sum_exp in use.
    let y = attention(&q, &k, &q, &Attention::default()).unwrap();
    let lse = y.log_sum_exp.sum_all().unwrap().backward().unwrap();
    let plain = plain::attention(&q, &k, &q, &Attention::default()).unwrap();
    let expected = plain.log_sum_exp.sum_all().unwrap().backward().unwrap();
    assert_close("lse", lse.get(&k).unwrap(), expected.get(&k).unwrap(), 1e-12, 1e-12);
}

#[test]
fn half_precision() {
    let x: Vec<Tensor> = BASE.inputs(DType::BF16).into_iter().map(|(_, t)| t).collect();
    let y = BASE.call(&x, attention).unwrap().output;
    assert_eq!(y.dtype(), DType::BF16);
    let wide: Vec<Tensor> = x.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    let exact = BASE.call(&wide, attention).unwrap().output;
    assert_close("bf16", &y, &exact, 8e-3, 1e-3);
}

#[test]
fn bad_input_is_named() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (q, k, v) = (zeros(&[2, 4, 3, 8]), zeros(&[2, 2, 5, 8]), zeros(&[2, 2, 5, 6]));
    let error = |q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention<'_>| {
        attention(q, k, v, options).unwrap_err().to_string()
    };
    let none = Attention::default();
    assert!(error(&q, &k, &zeros(&[2, 2, 4, 6]), &none).contains("[2, 2, 4, 6] do not fit"));
    assert!(error(&q, &zeros(&[2, 5, 8]), &v, &none).contains("expected q (b, h, n_q, d)"));
    let three = (zeros(&[2, 3, 5, 8]), zeros(&[2, 3, 5, 6]));
    assert!(error(&q, &three.0, &three.1, &none).contains("4 query heads are not a multiple of 3"));
    let wide = k.to_dtype(DType::F64).unwrap();
    assert!(error(&q, &wide, &v, &none).contains("q is F32"));
    let with = |options: Attention<'_>| error(&q, &k, &v, &options);
    let lengths = |l: &[usize]| {
        let mask = Mask { key_lengths: Some(l), ..Mask::default() };
        with(Attention { mask, ..Attention::default() })
    };
    assert!(lengths(&[5]).contains("1 key lengths for a batch of 2"));
    assert!(lengths(&[5, 6]).contains("key length 6, but there are 5 keys"));
    let bias = |bias: Bias<'_>| with(Attention { bias, ..Attention::default() });
    assert!(bias(Bias::Full(&zeros(&[2, 3, 3, 5]))).contains("got [2, 3, 3, 5]"));
    assert!(bias(Bias::Alibi(&[1.])).contains("1 slopes for 4 heads"));
    assert!(bias(Bias::Distance(&zeros(&[4, 8]))).contains("[4, 7], got [4, 8]"));
    let relative = |relative: Relative<'_>, causal: bool| {
        let mask = Mask { causal, ..Mask::default() };
        with(Attention { relative, mask, ..Attention::default() })
    };
    assert!(relative(Relative::Music(&zeros(&[4, 9, 8])), false).contains("causal"));
    assert!(relative(Relative::Music(&zeros(&[2, 9, 8])), true).contains("got [2, 9, 8]"));
    let shaw = |keys, values| Relative::Shaw { keys, values };
    let (even, keys) = (zeros(&[4, 8]), zeros(&[5, 8]));
    assert!(relative(shaw(&even, None), false).contains("(2k + 1, 8), got [4, 8]"));
    assert!(relative(shaw(&keys, Some(&even)), false).contains("(5, 6), got [4, 8]"));
    let dropout = Some((1.5, Philox::new(0, 0)));
    assert!(with(Attention { dropout, ..Attention::default() }).contains("got 1.5"));
    assert!(with(Attention { scale: Some(f64::NAN), ..Attention::default() }).contains("NaN"));
}
