//! What attention over many positions takes in memory, measured: a test of its own, so that nothing else allocates beside it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test")]

use candle_core::{DType, Device, Tensor, Var};
use mnemic_kernels::attention::{Attention, Mask, attention};

/// The most memory that this process has had in use, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// MiB that a forward and backward pass over `n` positions adds to the peak.
fn added(n: usize) -> u64 {
    let values =
        |seed: f32| -> Vec<f32> { (0..n * 64).map(|i| (i as f32 * 0.37 + seed).sin()).collect() };
    let var = |seed| {
        let values = Tensor::from_vec(values(seed), (1, 1, n, 64), &Device::Cpu).unwrap();
        Var::from_tensor(&values).unwrap()
    };
    let (q, k, v) = (var(1.), var(2.), var(3.));
    let before = peak();
    let options = Attention { mask: Mask::causal(), ..Attention::default() };
    let attended = attention(&q, &k, &v, &options).unwrap();
    let grads = mnemic_kernels::backward(&attended.output.sum_all().unwrap()).unwrap();
    let grad = grads.get(&k).unwrap();
    assert_eq!((grad.dims(), grad.dtype()), (&[1, 1, n, 64][..], DType::F32));
    peak() - before
}

/// The scores of 16,384 positions would take 1,024 MiB, a tensor of this shape takes 4.
#[test]
fn memory_is_linear_in_the_length() {
    let mib = added(1 << 14);
    eprintln!("attention over 16,384 positions, forward and backward, added {mib} MiB");
    assert!(mib < 128, "{mib} MiB");
}
