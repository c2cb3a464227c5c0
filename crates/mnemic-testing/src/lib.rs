#![doc = include_str!("../README.md")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test helper fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor, Var};

/// Asserts `|a - b| <= atol + rtol * |b|` everywhere. A failure names the tensors, the largest difference and its
/// index; a NaN fails, and so do different shapes.
#[track_caller]
pub fn assert_close(name: &str, a: &Tensor, b: &Tensor, rtol: f64, atol: f64) {
    assert_eq!(a.dims(), b.dims(), "{name}: shapes differ");
    let flat = |t: &Tensor| {
        t.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1::<f64>()).expect("readable")
    };
    let (a, b) = (flat(a), flat(b));
    let mut worst: Option<(f64, usize)> = None;
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        let diff = (x - y).abs();
        if x == y {
            continue;
        }
        let excess = diff - (atol + rtol * y.abs());
        if excess.is_nan() || excess > 0. {
            let bad = if diff.is_nan() { f64::INFINITY } else { diff };
            if worst.is_none_or(|(w, _)| bad > w) {
                worst = Some((bad, i));
            }
        }
    }
    if let Some((diff, i)) = worst {
        panic!("{name}: differs by {diff:e} at flat index {i}: {} and {}", a[i], b[i]);
    }
}

/// Checks the gradient of the scalar `f(inputs)` with respect to every input against central differences in f64
/// (step 1e-5), and that a gradient reaches every input.
#[track_caller]
pub fn check_gradients(
    inputs: &[(&str, Tensor)],
    tolerance: f64,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|(_, t)| Var::from_tensor(&t.to_dtype(DType::F64).expect("dtype")).expect("var"))
        .collect();
    let tensors = |vars: &[Var]| vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>();
    let grads = f(&tensors(&vars)).and_then(|y| y.backward()).expect("forward and backward");
    let value = |vars: &[Var]| -> f64 {
        f(&tensors(vars)).and_then(|y| y.to_dtype(DType::F64)?.to_scalar()).expect("scalar")
    };
    for (k, (name, _)) in inputs.iter().enumerate() {
        let grad = grads.get(&vars[k]).unwrap_or_else(|| panic!("no gradient reaches {name}"));
        let original = vars[k].as_tensor().copy().expect("copy");
        let flat = original.flatten_all().and_then(|t| t.to_vec1::<f64>()).expect("f64");
        let mut numeric = Vec::with_capacity(flat.len());
        for i in 0..flat.len() {
            let shifted = |delta: f64| {
                let mut v = flat.clone();
                v[i] += delta;
                vars[k].set(&Tensor::from_vec(v, original.shape(), &Device::Cpu).expect("same"))
            };
            shifted(1e-5).expect("set");
            let up = value(&vars);
            shifted(-1e-5).expect("set");
            let down = value(&vars);
            numeric.push((up - down) / 2e-5);
        }
        vars[k].set(&original).expect("set");
        let numeric = Tensor::from_vec(numeric, original.shape(), &Device::Cpu).expect("shape");
        assert_close(&format!("gradient of {name}"), grad, &numeric, tolerance, tolerance);
    }
}

/// A tensor of smooth, irregular values that needs no generator: `sin(1 + seed + 0.7 i) * scale`.
pub fn waves(shape: &[usize], seed: f64, scale: f64, dtype: DType) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n)
        .map(|i| (1. + seed + 0.7 * i as f64 + 0.013 * (i * i % 101) as f64).sin() * scale)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
        .and_then(|t| t.to_dtype(dtype))
        .expect("valid shape")
}

/// A path below the folder that `MNEMIC_DATA` names, or `None` (after saying so) where it is unset.
pub fn shared_data(test: &str, below: &str) -> Option<PathBuf> {
    match std::env::var_os("MNEMIC_DATA") {
        Some(root) => Some(PathBuf::from(root).join(below)),
        None => {
            println!("skipped: {test}: MNEMIC_DATA is not set");
            None
        }
    }
}

/// The tensors of the fixture `fixtures/torch/NAME.safetensors`, or `None` where `MNEMIC_DATA` is unset.
pub fn torch_fixture(test: &str, name: &str) -> Option<HashMap<String, Tensor>> {
    let path = shared_data(test, &format!("fixtures/torch/{name}.safetensors"))?;
    Some(
        candle_core::safetensors::load(&path, &Device::Cpu)
            .unwrap_or_else(|e| panic!("{path:?}: {e}")),
    )
}
