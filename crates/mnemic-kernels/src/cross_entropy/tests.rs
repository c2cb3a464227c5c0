//! The fused paths against the plain twins, finite differences and PyTorch.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, torch_fixture, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// Targets with about every fifth ignored.
fn targets(n: usize, c: usize) -> Vec<i64> {
    (0..n).map(|i| if i % 5 == 3 { IGNORE } else { (i * 7 % c) as i64 }).collect()
}

/// All combinations of reduction, smoothing and class weights.
fn options(c: usize) -> Vec<CrossEntropy> {
    let weights = (waves(&[c], 2., 0.5, DType::F64) + 1.).unwrap();
    let mut all = vec![];
    for reduction in REDUCTIONS {
        for label_smoothing in [0., 0.1, 1.] {
            for class_weights in [None, Some(weights.clone())] {
                all.push(CrossEntropy { reduction, label_smoothing, class_weights });
            }
        }
    }
    all
}

/// A loss, and the gradients of its probed sum with respect to the operands.
fn pass(operands: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let vars: Vec<Var> = operands.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let loss = f(&tensors).unwrap();
    let probe = waves(loss.dims(), 5., 1., DType::F64).to_dtype(loss.dtype()).unwrap();
    let probe = probe.to_device(loss.device()).unwrap();
    let grads = loss.mul(&probe).unwrap().sum_all().unwrap().backward().unwrap();
    let mut all = vec![loss.detach()];
    all.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
    all
}

#[track_caller]
fn same(name: &str, a: &[Tensor], b: &[Tensor], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (k, (a, b)) in a.iter().zip(b).enumerate() {
        assert_close(&format!("{name}: {k}"), a, b, tolerance, tolerance);
    }
}

fn compare(n: usize, c: usize, scale: f64, dtype: DType, tolerance: f64) {
    let (logits, ids) = ([waves(&[n, c], 1., scale, dtype)], targets(n, c));
    for o in options(c) {
        let fused = pass(&logits, |x| cross_entropy(&x[0], &ids, &o));
        let plain = pass(&logits, |x| plain::cross_entropy(&x[0], &ids, &o));
        same(&format!("({n}, {c}) {o:?}"), &fused, &plain, tolerance);
    }
}

#[test]
fn fused_equals_plain() {
    for (n, c) in [(1, 1), (3, 2), (7, 63), (5, 65), (4, 1000), (130, 3)] {
        compare(n, c, 3., DType::F64, 1e-11);
        compare(n, c, 3., DType::F32, 2e-5);
        compare(n, c, 1e4, DType::F64, 1e-11);
    }
}

/// Hidden states, weight and bias.
fn linear_operands(n: usize, d: usize, v: usize, dtype: DType) -> Vec<Tensor> {
    vec![waves(&[n, d], 1., 1., dtype), waves(&[v, d], 2., 1., dtype), waves(&[v], 3., 1., dtype)]
}

fn compare_linear(n: usize, d: usize, v: usize) {
    let ids = targets(n, v);
    for o in options(v) {
        for operands in [2, 3] {
            let x = &linear_operands(n, d, v, DType::F64)[..operands];
            let fused = pass(x, |x| linear_cross_entropy(&x[0], &x[1], x.get(2), &ids, &o));
            let f = plain::linear_cross_entropy;
            let plain = pass(x, |x| f(&x[0], &x[1], x.get(2), &ids, &o));
            same(&format!("({n}, {d}, {v}) {o:?}"), &fused, &plain, 1e-10);
        }
    }
}

#[test]
fn linear_equals_plain() {
    // 600 rows of which 480 count: two blocks, the second not full.
    for (n, d, v) in [(1, 1, 1), (4, 3, 5), (9, 17, 65), (600, 5, 33)] {
        compare_linear(n, d, v);
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for (n, c) in [(1, 2), (3, 2), (7, 63), (5, 64), (4, 1000), (130, 3), (3, 9001)] {
        let (logits, ids) = ([waves(&[n, c], 1., 3., DType::F32)], targets(n, c));
        for o in options(c) {
            let test = format!("cross_entropy::cuda ({n}, {c}) {o:?}");
            let fused = |x: &[Tensor]| Ok(vec![cross_entropy(&x[0], &ids, &o)?]);
            let plain = |x: &[Tensor]| Ok(vec![plain::cross_entropy(&x[0], &ids, &o)?]);
            agree(&test, &logits, fused, plain);
            if c < 1000 && o.reduction != Reduction::Sum {
                agree_in_half(&test, 1, &logits, fused, plain);
            }
        }
    }
    for (n, d, v) in [(1, 1, 2), (4, 3, 5), (9, 17, 65), (40, 8, 33)] {
        let (all, ids) = (linear_operands(n, d, v, DType::F32), targets(n, v));
        for o in options(v) {
            for x in [&all[..2], &all] {
                let test = format!("linear_cross_entropy::cuda ({n}, {d}, {v}) {o:?}");
                let f = linear_cross_entropy;
                let fused = |x: &[Tensor]| Ok(vec![f(&x[0], &x[1], x.get(2), &ids, &o)?]);
                let f = plain::linear_cross_entropy;
                let plain = |x: &[Tensor]| Ok(vec![f(&x[0], &x[1], x.get(2), &ids, &o)?]);
                agree(&test, x, fused, plain);
                agree_in_half(&test, 1, x, fused, plain);
            }
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda_hostile() {
    for place in crate::cuda::tests::places("cross_entropy::cuda_hostile") {
        place.run(hostile_scores_on);
        place.run(|device| no_row_that_counts_on(device, &[2]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn random_shapes(n in 1usize..9, d in 1usize..20, c in 1usize..150, scale in 0.1f64..30.) {
        compare(n, c, scale, DType::F64, 1e-10);
        compare_linear(n, d, c);
    }
}

#[test]
fn gradients() {
    let (logits, ids) = (waves(&[4, 6], 1., 2., DType::F64), targets(4, 6));
    let x = linear_operands(4, 3, 6, DType::F64);
    let inputs = [("hidden", x[0].clone()), ("weight", x[1].clone()), ("bias", x[2].clone())];
    for o in options(6) {
        check_gradients(&[("logits", logits.clone())], 1e-7, |x| {
            cross_entropy(&x[0], &ids, &o)?.sqr()?.sum_all()
        });
        check_gradients(&inputs, 1e-6, |x| {
            linear_cross_entropy(&x[0], &x[1], Some(&x[2]), &ids, &o)?.sqr()?.sum_all()
        });
    }
}

#[test]
fn only_the_gradients_that_are_wanted() {
    let x = linear_operands(4, 3, 6, DType::F32);
    let hidden = Var::from_tensor(&x[0]).unwrap();
    for reduction in REDUCTIONS {
        let o = CrossEntropy { reduction, ..Default::default() };
        let loss = linear_cross_entropy(&hidden, &x[1], Some(&x[2]), &targets(4, 6), &o).unwrap();
        let grads = loss.backward().unwrap();
        assert!(grads.get(&hidden).is_some() && grads.get(&x[1]).is_none());
    }
}

#[test]
fn hostile_scores() {
    hostile_scores_on(&Device::Cpu);
}

fn hostile_scores_on(device: &Device) {
    const INF: f32 = f32::INFINITY;
    let rows = [
        [-INF, -INF, -INF], // no distribution
        [-INF, 1e4, -1e4],  // the target ruled out
        [1e4, -1e4, -INF],
        [1e-40, -1e-40, 0.],
        [-INF, INF, f32::NAN], // ignored
    ];
    let logits = [Tensor::new(&rows, device).unwrap()];
    let ids = [1, 0, 0, 2, IGNORE];
    let o = CrossEntropy { reduction: Reduction::None, ..Default::default() };
    for f in [cross_entropy, plain::cross_entropy] {
        let loss = f(&logits[0], &ids, &o).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(loss[..3], [INF, INF, 0.]);
        assert!((loss[3] - 3f32.ln()).abs() < 1e-6 && loss[4] == 0.);
    }
    let grad = pass(&logits, |x| cross_entropy(&x[0], &ids, &o))[1].to_vec2::<f32>().unwrap();
    assert!(grad.iter().flatten().all(|g| g.is_finite()), "{grad:?}");
    assert!(grad[0] == [0.; 3] && grad[4] == [0.; 3]);
    assert!(grad[1][0] < 0. && grad[1][0] == -grad[1][1]);
}

#[test]
fn no_row_that_counts() {
    no_row_that_counts_on(&Device::Cpu, &[0, 2]);
}

fn no_row_that_counts_on(device: &Device, rows: &[usize]) {
    let x = linear_operands(2, 3, 4, DType::F32);
    let x: Vec<Tensor> = x.iter().map(|t| t.to_device(device).unwrap()).collect();
    for &n in rows {
        let hidden = x[0].narrow(0, 0, n).unwrap();
        let logits = [waves(&[n, 4], 1., 1., DType::F32).to_device(device).unwrap()];
        let ids = vec![IGNORE; n];
        for reduction in REDUCTIONS {
            let o = CrossEntropy { reduction, ..Default::default() };
            let operands = [hidden.clone(), x[1].clone(), x[2].clone()];
            let linear =
                pass(&operands, |x| linear_cross_entropy(&x[0], &x[1], Some(&x[2]), &ids, &o));
            for all in [pass(&logits, |x| cross_entropy(&x[0], &ids, &o)), linear] {
                let loss = all[0].flatten_all().unwrap().to_vec1::<f32>().unwrap();
                match reduction {
                    Reduction::Mean => assert!(loss[0].is_nan()),
                    Reduction::Sum => assert_eq!(loss, [0.]),
                    Reduction::None => assert_eq!(loss, vec![0.; n]),
                }
                for grad in &all[1..] {
                    let grad = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    assert!(grad.iter().all(|&g| g == 0.), "{reduction:?} {grad:?}");
                }
            }
        }
    }
}

#[test]
fn non_contiguous_half_every_level_and_pool() {
    let ids = targets(300, 131);
    let mut all = options(131);
    all.retain(|o| o.label_smoothing != 1.);
    let scattered = waves(&[131, 300], 1., 3., DType::F32).t().unwrap();
    let logits = [scattered.contiguous().unwrap()];
    let x = linear_operands(300, 20, 131, DType::F32);
    for o in all {
        let a = cross_entropy(&scattered, &ids, &o).unwrap();
        let b = cross_entropy(&logits[0], &ids, &o).unwrap();
        assert_close("scattered", &a, &b, 0., 0.);
        let half = cross_entropy(&logits[0].to_dtype(DType::BF16).unwrap(), &ids, &o).unwrap();
        assert_close("half", &half, &b, 2e-2, 2e-2);
        let run = || {
            let mut all = pass(&logits, |x| cross_entropy(&x[0], &ids, &o));
            all.extend(pass(&x, |x| linear_cross_entropy(&x[0], &x[1], Some(&x[2]), &ids, &o)));
            all
        };
        same_for_threads(run);
        same_for_levels(run);
    }
}

#[test]
fn torch() {
    let forms = [("", 0.), ("_smoothed", 0.1), ("_weighted", 0.), ("_weighted_smoothed", 0.2)];
    for (form, label_smoothing) in forms {
        for (ty, tolerance) in [("f64", 1e-10), ("f32", 1e-5)] {
            let name = format!("cross_entropy{form}.{ty}");
            let Some(fixture) = torch_fixture("cross_entropy::torch", &name) else { return };
            let ids = fixture["target"].to_vec1::<i64>().unwrap();
            for (key, reduction) in ["mean", "sum", "none"].into_iter().zip(REDUCTIONS) {
                let class_weights = fixture.get("weight").cloned();
                assert_eq!(class_weights.is_some(), form.starts_with("_weighted"));
                let o = CrossEntropy { reduction, label_smoothing, class_weights };
                let input = Var::from_tensor(&fixture["input"]).unwrap();
                let loss = cross_entropy(&input, &ids, &o).unwrap();
                let expected = &fixture[&format!("loss.{key}")];
                assert_close(&name, &loss, expected, tolerance, tolerance);
                let grads = loss.sum_all().unwrap().backward().unwrap();
                let expected = &fixture[&format!("grad.input.{key}")];
                assert_close(&name, grads.get(&input).unwrap(), expected, tolerance, tolerance);
            }
        }
    }
}

#[test]
fn bad_operands_are_named() {
    let logits = waves(&[2, 3], 1., 1., DType::F32);
    let o = CrossEntropy::default();
    let error = |r: Result<Tensor>| r.unwrap_err().to_string();
    assert!(error(cross_entropy(&logits, &[1], &o)).contains("2 rows of logits but 1 targets"));
    assert!(error(cross_entropy(&logits, &[1, 3], &o)).contains("target 3 is not below the 3"));
    assert!(error(cross_entropy(&logits, &[1, -1], &o)).contains("target -1"));
    let bad = CrossEntropy { label_smoothing: 1.5, ..o.clone() };
    assert!(error(cross_entropy(&logits, &[1, 1], &bad)).contains("1.5 is outside [0, 1]"));
    let class_weights = Some(waves(&[2], 1., 1., DType::F32));
    let bad = CrossEntropy { class_weights, ..o.clone() };
    assert!(error(cross_entropy(&logits, &[1, 1], &bad)).contains("expected (3) class weights"));
    let weight = waves(&[5, 2], 1., 1., DType::F32);
    let got = error(linear_cross_entropy(&logits, &weight, None, &[1, 1], &o));
    assert!(got.contains("hidden states are (2, 3), the weight is (5, 2)"), "{got}");
    let weight = waves(&[5, 3], 1., 1., DType::F32);
    let got = error(linear_cross_entropy(&logits, &weight, Some(&logits), &[1, 1], &o));
    assert!(got.contains("expected a bias (5)"), "{got}");
}
