//! What the tests of CUDA paths have in common: where they run, and how near they must come to the plain twins.

use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::waves;

use crate::checks::Function;

/// Where kernels can be tested.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// On the CPU, with the feature `cuda-emulation`.
    Emulated,
    /// On CUDA device 0, with the feature `cuda`.
    Device(Device),
}

/// The places of this build and machine. Says that `test` is skipped where a device is asked for and none is there.
pub(crate) fn places(test: &str) -> Vec<Place> {
    static FOUND: OnceLock<Option<Device>> = OnceLock::new();
    let mut places = vec![];
    if cfg!(feature = "cuda-emulation") {
        places.push(Place::Emulated);
    }
    if cfg!(feature = "cuda") {
        match FOUND.get_or_init(|| crate::cuda::device(0).ok()) {
            Some(device) => places.push(Place::Device(device.clone())),
            None => eprintln!("skipped: {test}: no CUDA device"),
        }
    }
    places
}

impl Place {
    /// Runs `f` with the device that tensors must be on to be taken by the kernels. One caller at a time.
    pub(crate) fn run<R>(&self, f: impl FnOnce(&Device) -> R) -> R {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        match self {
            #[cfg(feature = "cuda-emulation")]
            Place::Emulated => crate::cuda::emulated(|| f(&Device::Cpu)),
            #[cfg(not(feature = "cuda-emulation"))]
            Place::Emulated => f(&Device::Cpu),
            Place::Device(device) => f(device),
        }
    }
}

/// The results of `f` on a device, then the gradients of a fixed weighted sum of them in all inputs, all back on the CPU.
pub(crate) fn run(device: &Device, inputs: &[Tensor], f: &impl Function) -> Vec<Tensor> {
    let home = |t: &Tensor| t.to_device(&Device::Cpu).unwrap();
    let there = |t: &Tensor| Var::from_tensor(&t.to_device(device).unwrap()).unwrap();
    let vars: Vec<Var> = inputs.iter().map(there).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let outputs = f(&tensors).unwrap();
    let mut all: Vec<Tensor> = outputs.iter().map(|t| home(&t.detach())).collect();
    // Summed in f32 at least: the sum is not under test.
    let wide = if inputs[0].dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let mut loss = Tensor::zeros((), wide, device).unwrap();
    for (k, y) in outputs.iter().enumerate() {
        let probe = waves(y.dims(), 5. + k as f64, 1., wide).to_device(device).unwrap();
        let part = (y.to_dtype(wide).unwrap() * probe).unwrap().sum_all().unwrap();
        loss = (loss + part).unwrap();
    }
    let grads = crate::backward(&loss).unwrap();
    all.extend(vars.iter().map(|v| match grads.get(v) {
        Some(grad) => home(grad),
        None => home(&v.zeros_like().unwrap()),
    }));
    all
}

/// Holds the CUDA path of a function to its plain twin in f64 on the CPU, forward and backward, and demands the same bits of a second
/// run. In f32, numbers may differ by 1e-4 of the largest of their tensor, and by 1e-6 where all are small.
#[track_caller]
pub(crate) fn agree(test: &str, inputs: &[Tensor], fused: impl Function, plain: impl Function) {
    let of = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let inputs: Vec<Tensor> = inputs.iter().map(of).collect();
    let places = places(test);
    if places.is_empty() {
        return;
    }
    let exact = reference(&inputs, &plain);
    for place in places {
        let fast = twice(&place, test, &inputs, &fused);
        assert_eq!(fast.len(), exact.len(), "{test}");
        for (k, (a, b)) in fast.iter().zip(&exact).enumerate() {
            assert_eq!(a.dims(), b.dims(), "{test}: tensor {k}");
            let (a, b) = (numbers(a), numbers(b));
            let top = b.iter().fold(0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                let near =
                    a == b || (a - b).abs() <= 1e-4 * top.max(0.01) || a.is_nan() && b.is_nan();
                assert!(near, "{test} {place:?}: tensor {k}, number {i}: {a}, expected {b}");
            }
        }
    }
}

/// [`agree`] in f16 and bf16: the error against f64, as a norm, may be twice that of the plain twin in half precision, three times for
/// gradients. `results` is the number of results of the function.
#[track_caller]
pub(crate) fn agree_in_half(
    test: &str,
    results: usize,
    inputs: &[Tensor],
    fused: impl Function,
    plain: impl Function,
) {
    for dtype in [DType::BF16, DType::F16] {
        let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
        let places = places(test);
        if places.is_empty() {
            return;
        }
        let exact = reference(&inputs, &plain);
        let rough = run(&Device::Cpu, &inputs, &plain);
        for place in places {
            let fast = twice(&place, test, &inputs, &fused);
            for (k, (a, b)) in fast.iter().zip(&exact).enumerate() {
                assert_eq!((a.dims(), a.dtype()), (b.dims(), dtype), "{test}: tensor {k}");
                let (error, allowed) = (distance(a, b), distance(&rough[k], b));
                let factor = if k < results { 2. } else { 3. };
                let rounding = if dtype == DType::BF16 { 4e-3 } else { 5e-4 };
                assert!(
                    error <= factor * allowed.max(rounding),
                    "{test} {place:?} {dtype:?}: tensor {k}: error {error:.2e}, plain {allowed:.2e}"
                );
            }
        }
    }
}

/// Runs `f` at a place two times, and demands the same bits.
#[track_caller]
fn twice(place: &Place, test: &str, inputs: &[Tensor], f: &impl Function) -> Vec<Tensor> {
    let first = place.run(|device| run(device, inputs, f));
    let again = place.run(|device| run(device, inputs, f));
    for (k, (a, b)) in first.iter().zip(&again).enumerate() {
        let bits = |t| numbers(t).into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert!(bits(a) == bits(b), "{test} {place:?}: tensor {k} differs in a second run");
    }
    first
}

fn reference(inputs: &[Tensor], plain: &impl Function) -> Vec<Tensor> {
    let wide: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
    run(&Device::Cpu, &wide, plain)
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `‖a - b‖ / ‖b‖`.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (numbers(a), numbers(b));
    let square = |x: f64| x * x;
    let apart: f64 = a.iter().zip(&b).map(|(a, b)| if a == b { 0. } else { square(a - b) }).sum();
    let size: f64 = b.iter().filter(|b| b.is_finite()).map(|b| square(*b)).sum();
    if apart == 0. { 0. } else { (apart / size).sqrt() }
}
