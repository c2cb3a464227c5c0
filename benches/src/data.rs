//! Numbers made by a formula that `peers/kernels.py` has too, so that both sides compute the same.

use std::sync::OnceLock;

use anyhow::Result;
use candle_core::{DType, Device, Shape, Tensor};
use mnemic_layers::ParamStore;
use rayon::prelude::*;

/// The device of all workloads.
static DEVICE: OnceLock<Device> = OnceLock::new();

/// Lets all workloads live on `device`; only the first call counts.
pub(crate) fn live_on(device: Device) {
    let _ = DEVICE.set(device);
}

/// The device of all workloads: the CPU if nothing was said.
pub(crate) fn device() -> &'static Device {
    DEVICE.get_or_init(|| Device::Cpu)
}

/// The seed that belongs to a name: FNV-1a.
fn seed(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// 32 well-mixed bits for place `i` of the tensor with this seed.
fn bits(seed: u32, i: usize) -> u32 {
    let mut x = (i as u32).wrapping_add(seed);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// `n` numbers, uniform in `offset ± scale`.
fn values(name: &str, n: usize, scale: f64, offset: f64) -> Vec<f32> {
    let seed = seed(name);
    let value = |i| offset + (f64::from(bits(seed, i)) / f64::from(1u32 << 31) - 1.) * scale;
    (0..n).into_par_iter().map(|i| value(i) as f32).collect()
}

/// A tensor of numbers uniform in `±scale`.
pub(crate) fn tensor(name: &str, shape: impl Into<Shape>, scale: f64) -> Result<Tensor> {
    let shape = shape.into();
    Ok(Tensor::from_vec(values(name, shape.elem_count(), scale, 0.), shape, device())?)
}

/// The same numbers, rounded to a type.
pub(crate) fn typed(
    name: &str,
    shape: impl Into<Shape>,
    scale: f64,
    dtype: DType,
) -> Result<Tensor> {
    Ok(tensor(name, shape, scale)?.to_dtype(dtype)?)
}

/// `n` ids, uniform in `low..high`.
pub(crate) fn ids(name: &str, n: usize, low: u32, high: u32) -> Vec<u32> {
    let seed = seed(name);
    (0..n).map(|i| low + bits(seed, i) % (high - low)).collect()
}

/// The initial value of a parameter: matrices uniform in `±1/sqrt(last dimension)`, gains of norms near 1, other
/// vectors small.
pub(crate) fn parameter(name: &str, shape: &Shape) -> Result<Tensor> {
    let (scale, offset) = match shape.dims() {
        [.., _, last] => (1. / (*last as f64).sqrt(), 0.),
        _ if name.contains("norm") && name.ends_with("weight") => (0.1, 1.),
        _ => (0.05, 0.),
    };
    let values = values(name, shape.elem_count(), scale, offset);
    Ok(Tensor::from_vec(values, shape.clone(), device())?)
}

/// Gives every parameter the value that belongs to its name.
pub(crate) fn fill(store: &ParamStore) -> Result<()> {
    for (name, var) in store.vars() {
        var.set(&parameter(&name, var.shape())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same figures stand in `peers/kernels.py`, which checks itself against them when it starts.
    #[test]
    fn numbers_are_those_of_the_peer() {
        assert_eq!(seed("weight"), 1_352_703_673);
        assert_eq!((bits(1, 0), bits(1, 41)), (1_753_845_952, 388_445_122));
        assert_eq!(ids("ids", 4, 1, 40).len(), 4);
        assert!(ids("ids", 1000, 1, 40).iter().all(|id| (1..40).contains(id)));
    }

    #[test]
    fn numbers_fill_their_range_evenly() {
        let xs = values("x", 10_000, 2., 0.);
        let mean = xs.iter().sum::<f32>() / 1e4;
        assert!(mean.abs() < 0.05, "{mean}");
        assert!(xs.iter().all(|x| x.abs() <= 2.) && xs.iter().any(|x| *x > 1.9));
    }

    #[test]
    fn parameters_are_scaled_by_their_shape() {
        let of = |name: &str, dims: &[usize]| {
            let t = parameter(name, &Shape::from(dims)).unwrap();
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert!(of("w.weight", &[8, 16]).iter().all(|x| x.abs() <= 0.25));
        assert!(of("norm1.weight", &[8]).iter().all(|x| (x - 1.).abs() <= 0.1001));
        assert!(of("norm1.bias", &[8]).iter().all(|x| x.abs() <= 0.0501));
    }
}
