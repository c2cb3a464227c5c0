//! What the tests of the operations have in common.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, waves};

use crate::simd;

/// A differentiable function under test.
pub(crate) trait Function: Fn(&[Tensor]) -> Result<Vec<Tensor>> + Sync {}
impl<F: Fn(&[Tensor]) -> Result<Vec<Tensor>> + Sync> Function for F {}

/// The results of `f`, then the gradients of a fixed weighted sum of them in all inputs.
pub(crate) fn run(inputs: &[Tensor], f: &impl Function) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let outputs = f(&tensors).unwrap();
    let mut all: Vec<Tensor> = outputs.iter().map(Tensor::detach).collect();
    let mut loss = Tensor::zeros((), inputs[0].dtype(), &Device::Cpu).unwrap();
    for (k, y) in outputs.iter().enumerate().filter(|(_, y)| y.elem_count() > 0) {
        let probe = waves(y.dims(), 5. + k as f64, 1., y.dtype());
        loss = (loss + (y * probe).unwrap().sum_all().unwrap()).unwrap();
    }
    if outputs.iter().all(|y| y.elem_count() == 0) {
        return all;
    }
    let grads = loss.backward().unwrap();
    all.extend(vars.iter().map(|v| match grads.get(v) {
        Some(grad) => grad.clone(),
        None => v.zeros_like().unwrap(),
    }));
    all
}

/// Holds a fused function and its plain twin together, forward and backward, in f32 and f64 at every SIMD level.
#[track_caller]
pub(crate) fn agree(inputs: &[Tensor], fused: impl Function, plain: impl Function) {
    for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 2e-5)] {
        let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
        let slow = run(&inputs, &plain);
        for level in simd::available() {
            let fast = simd::with_level(level, || run(&inputs, &fused)).unwrap();
            assert_eq!(fast.len(), slow.len());
            for (k, (a, b)) in fast.iter().zip(&slow).enumerate() {
                assert_close(&format!("{dtype:?} {level:?} {k}"), a, b, tolerance, tolerance);
            }
        }
    }
}

/// Demands the same bits, forward and backward, of repeated runs and of 1, 2 and 4 threads.
#[track_caller]
pub(crate) fn same_bits(inputs: &[Tensor], f: impl Function) {
    same_for_threads(|| run(inputs, &f));
}

/// Demands the same bits, forward and backward, of every SIMD level.
#[track_caller]
pub(crate) fn same_bits_at_every_level(inputs: &[Tensor], f: impl Function) {
    same_for_levels(|| run(inputs, &f));
}

/// Demands the same bits of `run` repeated, and with 1, 2 and 4 threads.
#[track_caller]
pub(crate) fn same_for_threads(run: impl Fn() -> Vec<Tensor> + Sync) {
    let first = run();
    equal_bits("repeated", &first, &run());
    for threads in [1, 2, 4, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        equal_bits(&format!("{threads} threads"), &first, &pool.install(&run));
    }
}

/// Demands the same bits of `run` at every SIMD level.
#[track_caller]
pub(crate) fn same_for_levels(run: impl Fn() -> Vec<Tensor>) {
    let first = run();
    for level in simd::available() {
        equal_bits(&format!("{level:?}"), &first, &simd::with_level(level, &run).unwrap());
    }
}

#[track_caller]
fn equal_bits(what: &str, first: &[Tensor], again: &[Tensor]) {
    assert_eq!(first.len(), again.len(), "{what}");
    for (k, (a, b)) in first.iter().zip(again).enumerate() {
        assert!(bits(a) == bits(b), "{what}: tensor {k} differs");
    }
}

fn bits(t: &Tensor) -> Vec<u64> {
    let t = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    t.to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect()
}
