//! The fused path against the plain twin and finite differences.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// Logits, and targets in `[0, 1]`.
fn operands(shape: &[usize], scale: f64, dtype: DType) -> [Tensor; 2] {
    let targets = ((waves(shape, 2., 0.5, DType::F64) + 0.5).unwrap()).to_dtype(dtype).unwrap();
    [waves(shape, 1., scale, dtype), targets]
}

type Function = fn(&Tensor, &Tensor, Reduction) -> Result<Tensor>;

/// The loss, and the gradients of its probed sum.
fn pass(x: &[Tensor; 2], reduction: Reduction, f: Function) -> [Tensor; 3] {
    let [logits, targets] = [0, 1].map(|k| Var::from_tensor(&x[k]).unwrap());
    let loss = f(&logits, &targets, reduction).unwrap();
    let probe = waves(loss.dims(), 5., 1., DType::F64).to_dtype(loss.dtype()).unwrap();
    let grads = loss.mul(&probe).unwrap().sum_all().unwrap().backward().unwrap();
    let grad = |v: &Var| grads.get(v).unwrap().clone();
    [loss.detach(), grad(&logits), grad(&targets)]
}

fn compare(shape: &[usize], scale: f64, dtype: DType, tolerance: f64) {
    let x = operands(shape, scale, dtype);
    for reduction in REDUCTIONS {
        let fused = pass(&x, reduction, bce_with_logits);
        let plain = pass(&x, reduction, plain::bce_with_logits);
        for (a, b) in fused.iter().zip(&plain) {
            assert_close(&format!("{shape:?} {reduction:?}"), a, b, tolerance, tolerance);
        }
    }
}

#[test]
fn fused_equals_plain() {
    let shapes: [&[usize]; 6] = [&[1], &[3, 0], &[63], &[5, 13], &[2, 3, 1000], &[9001]];
    for shape in shapes {
        for scale in [3., 1e4] {
            if shape.iter().product::<usize>() > 0 {
                compare(shape, scale, DType::F64, 1e-12);
                compare(shape, scale, DType::F32, 1e-5);
            }
        }
    }
    let x = operands(&[3, 0], 1., DType::F64);
    let value = |r| bce_with_logits(&x[0], &x[1], r).unwrap();
    assert_eq!(value(Reduction::Sum).to_scalar::<f64>().unwrap(), 0.);
    assert!(value(Reduction::Mean).to_scalar::<f64>().unwrap().is_nan());
    assert_eq!(value(Reduction::None).dims(), [3, 0]);
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for shape in [&[1usize][..], &[63], &[5, 13], &[2, 3, 1000], &[20_001]] {
        let x = operands(shape, 3., DType::F32);
        for r in REDUCTIONS {
            let test = format!("binary_cross_entropy::cuda {shape:?} {r:?}");
            let fused = |x: &[Tensor]| Ok(vec![bce_with_logits(&x[0], &x[1], r)?]);
            let plain = |x: &[Tensor]| Ok(vec![plain::bce_with_logits(&x[0], &x[1], r)?]);
            agree(&test, &x, fused, plain);
            agree_in_half(&test, 1, &x, fused, plain);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_shapes(n in 1usize..9, width in 1usize..200, scale in 0.1f64..30.) {
        compare(&[n, width], scale, DType::F64, 1e-12);
    }
}

#[test]
fn gradients() {
    let [logits, targets] = operands(&[3, 5], 2., DType::F64);
    for reduction in REDUCTIONS {
        let inputs = [("logits", logits.clone()), ("targets", targets.clone())];
        check_gradients(&inputs, 1e-7, |x| {
            bce_with_logits(&x[0], &x[1], reduction)?.sqr()?.sum_all()
        });
    }
}

#[test]
fn extremes() {
    // Where the logarithm is tiny its relative accuracy counts: log(1 + e^-20) = 2.06e-9.
    for dtype in [DType::F32, DType::F64] {
        let tensor = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let x = [
            tensor(&[1e4, -1e4, 1e4, -1e4, 20., 0., 1e-40]),
            tensor(&[1., 0., 0., 1., 1., 1., 0.]),
        ];
        let [losses, dx, dy] = pass(&x, Reduction::None, bce_with_logits);
        let log = (-20f64).exp().ln_1p();
        let ln2 = 2f64.ln();
        let expected = tensor(&[0., 0., 1e4, 1e4, log, ln2, ln2]);
        let tolerance = if dtype == DType::F32 { 3e-7 } else { 1e-15 };
        assert_close("losses", &losses, &expected, tolerance, 0.);
        for grad in [dx, dy] {
            let sum = grad.abs().unwrap().sum_all().unwrap().to_dtype(DType::F64).unwrap();
            assert!(sum.to_scalar::<f64>().unwrap().is_finite());
        }
    }
}

#[test]
fn scattered_targets_without_gradient_every_level_and_pool() {
    let x = operands(&[131, 700], 3., DType::F32);
    let logits = Var::from_tensor(&x[0]).unwrap();
    let scattered = x[1].t().unwrap().contiguous().unwrap().t().unwrap();
    let loss = bce_with_logits(&logits, &scattered, Reduction::Mean).unwrap();
    let [expected, d_logits, _] = pass(&x, Reduction::Mean, bce_with_logits);
    assert_close("scattered", &loss, &expected, 0., 0.);
    let grads = loss.backward().unwrap();
    let probe = waves(&[], 5., 1., DType::F32).to_scalar::<f32>().unwrap();
    let probed = (grads.get(&logits).unwrap() * f64::from(probe)).unwrap();
    assert_close("logits", &probed, &d_logits, 1e-5, 1e-12);
    assert!(grads.get(&x[1]).is_none());

    for reduction in REDUCTIONS {
        let all = || pass(&x, reduction, bce_with_logits).to_vec();
        same_for_threads(all);
        same_for_levels(all);
    }
}

#[test]
fn other_shapes_are_named() {
    let x = operands(&[2, 3], 1., DType::F32);
    let error = bce_with_logits(&x[0], &x[1].t().unwrap(), Reduction::Sum).unwrap_err();
    assert!(error.to_string().contains("expected targets [2, 3], got [3, 2]"), "{error}");
}
