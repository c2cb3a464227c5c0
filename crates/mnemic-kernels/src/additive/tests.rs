//! The fused path against the plain twin, and both against finite differences.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

const OUTPUTS: [Output; 3] = [Output::Scores, Output::Softmax, Output::LogSoftmax];
const NAMES: [&str; 4] = ["result", "queries", "keys", "v"];

fn operands(b: usize, t: usize, s: usize, d: usize, scale: f64, dtype: DType) -> [Tensor; 3] {
    [
        waves(&[b, t, d], 1., scale, dtype),
        waves(&[b, s, d], 2., scale, dtype),
        waves(&[d], 3., 1., dtype),
    ]
}

/// Masks of both ranks: every third place is cut out; of the second row of the batch the first query, or all.
fn masks(b: usize, t: usize, s: usize) -> [Option<Tensor>; 3] {
    let make = |shape: &[usize], empty: usize| {
        let n: usize = shape.iter().product();
        let kept: Vec<u8> = (0..n).map(|i| u8::from(i % 3 != 1 && i / s != empty)).collect();
        Some(Tensor::from_vec(kept, shape, &Device::Cpu).unwrap())
    };
    [None, make(&[b, s], 1), make(&[b, t, s], t)]
}

fn f(x: &[Tensor], mask: Option<&Tensor>, output: Output, fast: bool) -> Result<Tensor> {
    let (q, k, v) = (&x[0], &x[1], &x[2]);
    match (output, fast) {
        (Output::Scores, true) => additive_scores(q, k, v),
        (Output::Scores, false) => plain::additive_scores(q, k, v),
        (Output::Softmax, true) => additive_attention(q, k, v, mask),
        (Output::Softmax, false) => plain::additive_attention(q, k, v, mask),
        (Output::LogSoftmax, true) => additive_log_softmax(q, k, v, mask),
        (Output::LogSoftmax, false) => plain::additive_log_softmax(q, k, v, mask),
    }
}

/// A scalar that every finite result enters with its own factor.
fn probe(y: &Tensor) -> Result<Tensor> {
    let finite = y.gt(-1e29)?;
    let y = finite.where_cond(y, &y.zeros_like()?)?;
    y.mul(&waves(y.dims(), 0.5, 1., y.dtype()))?.sum_all()
}

/// The result, and the gradients of the operands.
fn run(x: &[Tensor; 3], mask: Option<&Tensor>, output: Output, fast: bool) -> Vec<Tensor> {
    let vars: Vec<Var> = x.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let x: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&x, mask, output, fast).unwrap();
    let grads = probe(&y).unwrap().backward().unwrap();
    let mut all = vec![y.maximum(-1e29).unwrap()];
    all.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
    all
}

fn compare(x: &[Tensor; 3], mask: Option<&Tensor>, tolerance: f64) {
    for output in OUTPUTS {
        let (fast, slow) = (run(x, mask, output, true), run(x, mask, output, false));
        for (name, (a, b)) in NAMES.iter().zip(fast.iter().zip(&slow)) {
            let name = format!("{name} of {output:?}, {:?} {:?}", x[0].dims(), x[1].dims());
            assert_close(&name, a, b, tolerance, tolerance);
        }
    }
}

#[test]
fn fused_equals_plain() {
    for (b, t, s, d) in [
        (1, 1, 1, 1),
        (3, 4, 5, 20),
        (2, 1, 63, 65),
        (2, 7, 3, 16),
        (2, 2, 2, 1000),
        (2, 3, 40, 33),
    ] {
        for mask in masks(b, t, s) {
            // Small numbers take the exponentials, large ones tanh itself.
            for scale in [1., 40.] {
                compare(&operands(b, t, s, d, scale, DType::F64), mask.as_ref(), 1e-10);
                compare(&operands(b, t, s, d, scale, DType::F32), mask.as_ref(), 5e-5);
            }
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for (b, t, s, d) in [
        (1, 1, 1, 1),
        (3, 4, 5, 20),
        (2, 1, 63, 65),
        (2, 7, 3, 16),
        (2, 2, 2, 1000),
        (2, 3, 70, 33),
    ] {
        for mask in masks(b, t, s) {
            for output in OUTPUTS {
                // -inf makes NaN of the sum that is differentiated.
                let finite = |y: Tensor| match output {
                    Output::LogSoftmax => Ok(vec![y.gt(-1e29)?.where_cond(&y, &y.zeros_like()?)?]),
                    _ => Ok(vec![y]),
                };
                let fast = |x: &[Tensor]| {
                    let there = |m: &Tensor| m.to_device(x[0].device());
                    finite(f(x, mask.as_ref().map(there).transpose()?.as_ref(), output, true)?)
                };
                let slow = |x: &[Tensor]| finite(f(x, mask.as_ref(), output, false)?);
                let test = format!("additive::cuda {b} {t} {s} {d} {output:?}");
                for scale in [1., 40.] {
                    agree(&test, &operands(b, t, s, d, scale, DType::F32), fast, slow);
                }
                if d < 100 {
                    agree_in_half(&test, 1, &operands(b, t, s, d, 1., DType::F32), fast, slow);
                }
            }
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda_masked_keys_and_queries_may_hold_anything() {
    let (b, t, s, d) = (3, 4, 5, 20);
    let clean = operands(b, t, s, d, 1., DType::F32);
    let mask = masks(b, t, s)[1].clone().unwrap();
    let nan = Tensor::full(f32::NAN, (b, s, d), &Device::Cpu).unwrap();
    let wide = mask.unsqueeze(2).unwrap().broadcast_as((b, s, d)).unwrap();
    let mut rows = clean[0].to_vec3::<f32>().unwrap();
    // The second row of the batch has no key, so its queries are not used.
    rows[1].iter_mut().for_each(|row| row.fill(f32::INFINITY));
    let keys = wide.where_cond(&clean[1], &nan).unwrap();
    let dirty = [Tensor::new(rows, &Device::Cpu).unwrap(), keys, clean[2].clone()];
    for place in crate::cuda::tests::places("additive::cuda_masked_keys_and_queries") {
        let all = |x: &[Tensor]| {
            place.run(|device| {
                crate::cuda::tests::run(device, x, &|x: &[Tensor]| {
                    let mask = mask.to_device(x[0].device())?;
                    Ok(vec![additive_attention(&x[0], &x[1], &x[2], Some(&mask))?])
                })
            })
        };
        for (name, (a, b)) in NAMES.iter().zip(all(&dirty).iter().zip(&all(&clean))) {
            assert_close(name, a, b, 0., 0.);
        }
    }
}

#[test]
fn gradients() {
    let [q, k, v] = operands(2, 3, 4, 3, 0.9, DType::F64);
    for mask in masks(2, 3, 4) {
        for output in OUTPUTS {
            let named = [("queries", q.clone()), ("keys", k.clone()), ("v", v.clone())];
            check_gradients(&named, 1e-7, |x| probe(&f(x, mask.as_ref(), output, true)?));
        }
    }
    check_gradients(&[("keys", k.clone())], 1e-7, |x| {
        probe(&additive_attention(&q, &x[0], &v, None)?)
    });
    check_gradients(&[("v", v.clone())], 1e-7, |x| probe(&additive_scores(&q, &k, &x[0])?));
}

#[test]
fn each_tanh_is_near_the_true_one() {
    // One unit and v = 1: the scores are the tanh of all pairs, up to the limit of the exponentials.
    let grid = |n: usize, step: f32| -> Vec<f32> {
        (0..n).map(|i| (i as f32 - (n / 2) as f32) * step).collect()
    };
    for (n, step) in [(1601, 0.0124), (1601, 0.001), (801, 1e-5)] {
        let x = grid(n, step);
        let q = Tensor::from_slice(&x, (1, n, 1), &Device::Cpu).unwrap();
        let v = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap();
        let e = additive_scores(&q, &q, &v).unwrap().flatten_all().unwrap();
        let mut worst = 0f64;
        for (i, e) in e.to_vec1::<f32>().unwrap().into_iter().enumerate() {
            let exact = (f64::from(x[i / n]) + f64::from(x[i % n])).tanh();
            worst = worst.max((f64::from(e) - exact).abs());
        }
        assert!(worst < 2.5e-7, "step {step}: {worst:e}");
    }
}

#[test]
fn worked_numbers_of_the_paper_page() {
    let q = Tensor::new(&[[[0f64]]], &Device::Cpu).unwrap();
    let k = Tensor::new(&[[[0f64], [1.], [-1.]]], &Device::Cpu).unwrap();
    let v = Tensor::new(&[1f64], &Device::Cpu).unwrap();
    let p = additive_attention(&q, &k, &v, None).unwrap();
    let expected = Tensor::new(&[[[0.277115, 0.593494, 0.129391]]], &Device::Cpu).unwrap();
    assert_close("p", &p, &expected, 0., 1e-6);
    let log_p = additive_log_softmax(&q, &k, &v, None).unwrap();
    assert_close("log p", &log_p, &p.log().unwrap(), 0., 1e-12);
}

#[test]
fn strided_operands() {
    let q = waves(&[5, 4, 3], 1., 0.8, DType::F64).transpose(0, 2).unwrap();
    let k = waves(&[7, 3, 5], 2., 0.8, DType::F64).transpose(0, 1).unwrap();
    let v = waves(&[5, 2], 3., 0.8, DType::F64).narrow(1, 1, 1).unwrap().squeeze(1).unwrap();
    let mask = masks(7, 1, 3)[1].clone().unwrap().t().unwrap();
    let x = [q, k, v];
    for output in OUTPUTS {
        let fast = f(&x, Some(&mask), output, true).unwrap().maximum(-1e29).unwrap();
        let slow = f(&x, Some(&mask), output, false).unwrap().maximum(-1e29).unwrap();
        assert_close("strided", &fast, &slow, 1e-12, 1e-12);
    }
}

#[test]
fn masked_keys_and_queries_may_hold_anything() {
    let (b, t, s, d) = (3, 4, 5, 20);
    let [q, k, v] = operands(b, t, s, d, 1., DType::F32);
    let mask = masks(b, t, s)[1].clone().unwrap();
    let nan = Tensor::full(f32::NAN, (b, s, d), &Device::Cpu).unwrap();
    let wide = mask.unsqueeze(2).unwrap().broadcast_as((b, s, d)).unwrap();
    let dirty_keys = wide.where_cond(&k, &nan).unwrap();
    // The second row of the batch has no key, so its queries are not used.
    let mut rows = q.to_vec3::<f32>().unwrap();
    rows[1].iter_mut().for_each(|row| row.fill(f32::INFINITY));
    let dirty_queries = Tensor::new(rows, &Device::Cpu).unwrap();
    for output in [Output::Softmax, Output::LogSoftmax] {
        let clean = run(&[q.clone(), k.clone(), v.clone()], Some(&mask), output, true);
        let dirty = [dirty_queries.clone(), dirty_keys.clone(), v.clone()];
        let dirty = run(&dirty, Some(&mask), output, true);
        for (name, (a, b)) in NAMES.iter().zip(dirty.iter().zip(&clean)) {
            assert_close(name, a, b, 0., 0.);
        }
    }
    let p = additive_attention(&dirty_queries, &dirty_keys, &v, Some(&mask)).unwrap();
    let empty = p.get(1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(empty.iter().all(|x| *x == 0.));
}

#[test]
fn hostile_values() {
    for scale in [1e4, 10., 1e-40] {
        let x = operands(2, 3, 4, 20, scale, DType::F32);
        for output in OUTPUTS {
            for t in run(&x, None, output, true) {
                let all = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(all.iter().all(|x| x.is_finite()), "{scale} {output:?}");
            }
        }
        let sums = additive_attention(&x[0], &x[1], &x[2], None).unwrap().sum(D::Minus1).unwrap();
        assert_close("sums", &sums, &sums.ones_like().unwrap(), 0., 1e-5);
    }
    // Large numbers of opposite sign: tanh of their small difference.
    let q = Tensor::new(&[[[30f32], [5000.]]], &Device::Cpu).unwrap();
    let k = Tensor::new(&[[[-29.5f32], [-5000.25]]], &Device::Cpu).unwrap();
    let e = additive_scores(&q, &k, &Tensor::new(&[1f32], &Device::Cpu).unwrap()).unwrap();
    let expected = [[0.5f32.tanh(), -1.], [1., (-0.25f32).tanh()]];
    assert_close("e", &e.get(0).unwrap(), &Tensor::new(&expected, &Device::Cpu).unwrap(), 0., 1e-6);
}

#[test]
fn bits_depend_on_neither_threads_nor_level() {
    let mask = masks(9, 20, 20)[2].clone();
    for scale in [1., 40.] {
        let x = operands(9, 20, 20, 65, scale, DType::F32);
        let all = || OUTPUTS.map(|output| run(&x, mask.as_ref(), output, true)).concat();
        same_for_threads(all);
        same_for_levels(all);
    }
}

#[test]
fn empty_operands_and_wrong_shapes() {
    for (b, t, s) in [(0, 2, 3), (2, 0, 3), (2, 3, 0)] {
        let [q, k, v] = operands(b, t, s, 4, 1., DType::F32);
        assert_eq!(additive_attention(&q, &k, &v, None).unwrap().dims(), [b, t, s]);
    }
    let [q, k, v] = operands(2, 3, 4, 5, 1., DType::F32);
    let error = |k: &Tensor, v: &Tensor, m: Option<&Tensor>| {
        additive_attention(&q, k, v, m).unwrap_err().to_string()
    };
    let short = k.narrow(2, 0, 3).unwrap();
    assert!(error(&short, &v, None).contains("expected keys (2, s, 5), got [2, 4, 3]"));
    let long = waves(&[6], 1., 1., DType::F32);
    assert!(error(&k, &long, None).contains("expected v (5), got [6]"));
    let wide = Tensor::zeros((2, 5), DType::U8, &Device::Cpu).unwrap();
    let e = error(&k, &v, Some(&wide));
    assert!(e.contains("expected the mask (2, 4) or (2, 3, 4) of U8, got [2, 5] of U8"), "{e}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn fused_equals_plain_at_random(
        b in 1usize..4, t in 1usize..8, s in 1usize..20, d in 1usize..40, mask in 0usize..3,
        large: bool,
    ) {
        let scale = if large { 30. } else { 2. };
        let x = operands(b, t, s, d, scale, DType::F64);
        compare(&x, masks(b, t, s)[mask].as_ref(), 1e-10);
    }
}
