use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};

use super::*;
use crate::checks::same_for_threads;

const NAMES: [&str; 6] = ["facts", "memory", "fixed", "inner", "outer", "bias"];

fn operands(b: usize, n: usize, h: usize, u: usize, dtype: DType) -> Vec<Tensor> {
    let shapes: [&[usize]; 6] = [&[b, n, h], &[b, h], &[b, n, u], &[u, 2 * h], &[u], &[1]];
    shapes.iter().enumerate().map(|(i, s)| waves(s, 2.3 * i as f64, 0.6, dtype)).collect()
}

type Function = fn(&Tensor, &Tensor, &Tensor, Scorer<'_>) -> Result<Tensor>;

fn run(f: Function, x: &[Tensor]) -> Result<Tensor> {
    f(&x[0], &x[1], &x[2], Scorer { inner: &x[3], outer: &x[4], bias: &x[5] })
}

/// The scores, and the gradients of all operands.
fn all(f: Function, x: &[Tensor]) -> Vec<Tensor> {
    let vars: Vec<Var> = x.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let scores = run(f, &tensors).unwrap();
    let probe = waves(scores.dims(), 0.4, 1., scores.dtype());
    let grads = scores.mul(&probe).unwrap().sum_all().unwrap().backward().unwrap();
    let grads = vars.iter().map(|v| grads.get(v).unwrap().clone());
    std::iter::once(scores).chain(grads).collect()
}

#[test]
fn fused_equals_plain() {
    for (b, n, h, u) in
        [(1, 1, 1, 1), (3, 5, 7, 9), (9, 65, 17, 16), (2, 130, 20, 33), (17, 4, 80, 80)]
    {
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 3e-4)] {
            let mut x = operands(b, n, h, u, dtype);
            // Facts that lie scattered, and one that equals its memory.
            x[0] = waves(&[n, b, h], 1., 0.6, dtype).transpose(0, 1).unwrap();
            for level in crate::simd::available() {
                let fast = crate::simd::with_level(level, || all(episodic_scores, &x)).unwrap();
                let slow = all(plain::episodic_scores, &x);
                for ((name, a), b) in ["scores"].iter().chain(&NAMES).zip(&fast).zip(&slow) {
                    assert_close(&format!("{level:?} {name}"), a, b, tolerance, tolerance);
                }
            }
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    let fast = |x: &[Tensor]| Ok(vec![run(episodic_scores, x)?]);
    let slow = |x: &[Tensor]| Ok(vec![run(plain::episodic_scores, x)?]);
    for (b, n, h, u) in [
        (1, 1, 1, 1),
        (3, 5, 7, 9),
        (4, 65, 17, 16),
        (2, 40, 132, 130),
        (17, 4, 80, 80),
        (270, 2, 3, 2),
    ] {
        let x = operands(b, n, h, u, DType::F32);
        agree(&format!("episodic::cuda {b} {n} {h} {u}"), &x, fast, slow);
    }
    agree_in_half("episodic::cuda", 1, &operands(3, 5, 7, 9, DType::F32), fast, slow);
    // Too wide for the kernels.
    agree("episodic::cuda wide", &operands(1, 2, 900, 3, DType::F32), fast, slow);
}

#[test]
fn gradients() {
    let x = NAMES.into_iter().zip(operands(3, 4, 5, 6, DType::F64)).collect::<Vec<_>>();
    let probe = waves(&[3, 4], 0.4, 1., DType::F64);
    check_gradients(&x, 1e-7, |x| run(episodic_scores, x)?.mul(&probe)?.sum_all());
}

#[test]
fn bits_do_not_depend_on_threads() {
    let x = operands(33, 20, 40, 24, DType::F32);
    same_for_threads(|| all(episodic_scores, &x));
}

#[test]
fn equal_vectors_have_no_slope_and_large_ones_no_nan() {
    let mut x = operands(2, 3, 4, 5, DType::F32);
    x[0] = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
    x[1] = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
    let grads = all(episodic_scores, &x);
    assert_eq!(grads[2].to_vec2::<f32>().unwrap(), vec![vec![0.; 4]; 2]);
    x[0] = (waves(&[2, 3, 4], 0., 1., DType::F32) * 1e4).unwrap();
    for t in all(episodic_scores, &x) {
        assert!(t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn empty_and_wrong_shapes() {
    let x = operands(2, 0, 4, 5, DType::F32);
    assert_eq!(run(episodic_scores, &x).unwrap().dims(), [2, 0]);
    let mut x = operands(2, 3, 4, 5, DType::F32);
    x[3] = waves(&[5, 7], 0., 1., DType::F32);
    let error = run(episodic_scores, &x).unwrap_err().to_string();
    assert!(error.contains("expected inner [5, 8], got [5, 7]"), "{error}");
}
