//! What the machine can do at best, with the number of threads that the workloads get.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The best rates found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Peak {
    pub(crate) threads: usize,
    /// 10^9 floating-point operations a second of the best matrix product, f32.
    pub(crate) gflops: f64,
    /// The size of that product, a square.
    pub(crate) gemm_size: usize,
    /// The same of bf16 numbers, on a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) half_gflops: Option<f64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) half_gemm_size: usize,
    /// 10^9 bytes a second, read and written, of a copy.
    pub(crate) gigabytes_per_second: f64,
    /// The size of the copied array.
    pub(crate) copy_mib: usize,
}

impl Peak {
    /// The least seconds that so much work takes here; `half`: in 16-bit numbers.
    pub(crate) fn least_seconds(&self, flops: f64, bytes: f64, half: bool) -> f64 {
        let gflops = self.half_gflops.filter(|_| half).unwrap_or(self.gflops);
        (flops / (gflops * 1e9)).max(bytes / (self.gigabytes_per_second * 1e9))
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

const SIZES: [usize; 3] = [512, 1024, 2048];
const GPU_SIZES: [usize; 3] = [2048, 4096, 8192];
/// Far above the caches of one core, and of a GPU.
const COPY_MIB: usize = 256;
const GPU_COPY_MIB: usize = 2048;
const REPEATS: usize = 9;

/// Measures them.
pub(crate) fn measure(threads: usize, device: &Device) -> Result<Peak> {
    if !device.is_cpu() {
        return measure_gpu(threads, device);
    }
    let (gflops, gemm_size) = best(&SIZES, gemm_rate)?;
    let gigabytes_per_second = copy_rate(COPY_MIB << 20, threads)?;
    Ok(Peak {
        threads,
        gflops,
        gemm_size,
        gigabytes_per_second,
        copy_mib: COPY_MIB,
        ..Peak::default()
    })
}

/// The best of a rate, and at which size.
fn best(sizes: &[usize], rate: impl Fn(usize) -> Result<f64>) -> Result<(f64, usize)> {
    let mut best = (0., 0);
    for &size in sizes {
        let rate = rate(size)?;
        if rate > best.0 {
            best = (rate, size);
        }
    }
    Ok(best)
}

/// The products are those of cuBLAS, in f32 without TF32; the copy is one within the device's memory.
fn measure_gpu(threads: usize, device: &Device) -> Result<Peak> {
    let (gflops, gemm_size) = best(&GPU_SIZES, |n| gpu_gemm_rate(n, DType::F32, device))?;
    let (half, half_gemm_size) = best(&GPU_SIZES, |n| gpu_gemm_rate(n, DType::BF16, device))?;
    let from = Tensor::zeros(GPU_COPY_MIB << 18, DType::F32, device)?;
    let seconds = gpu_seconds(device, || from.copy().map(drop))?;
    Ok(Peak {
        threads,
        gflops,
        gemm_size,
        half_gflops: Some(half),
        half_gemm_size,
        gigabytes_per_second: 2. * (GPU_COPY_MIB << 20) as f64 / seconds / 1e9,
        copy_mib: GPU_COPY_MIB,
    })
}

fn gpu_gemm_rate(n: usize, dtype: DType, device: &Device) -> Result<f64> {
    let a = Tensor::rand(-1f32, 1., (n, n), device)?.to_dtype(dtype)?;
    let b = Tensor::rand(-1f32, 1., (n, n), device)?.to_dtype(dtype)?;
    let seconds = gpu_seconds(device, || a.matmul(&b).map(drop))?;
    Ok(2. * (n as f64).powi(3) / seconds / 1e9)
}

/// Seconds of a repetition of the fastest of several turns, each of several repetitions without waiting.
fn gpu_seconds(device: &Device, mut work: impl FnMut() -> candle_core::Result<()>) -> Result<f64> {
    const TURN: usize = 10;
    let turn = || {
        (0..TURN).try_for_each(|_| work())?;
        device.synchronize()
    };
    Ok(shortest(REPEATS, turn)? / TURN as f64)
}

/// The shortest of several repetitions, after one that warms up.
fn shortest(repeats: usize, mut work: impl FnMut() -> candle_core::Result<()>) -> Result<f64> {
    work()?;
    let mut least = f64::INFINITY;
    for _ in 0..repeats {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}

/// candle's products are those of the crate `gemm`.
fn gemm_rate(n: usize) -> Result<f64> {
    let (a, b) = (square(n, 0.5)?, square(n, 0.25)?);
    // Small products are over soon and jitter more.
    let repeats = REPEATS * (2048 / n).max(1);
    let seconds = shortest(repeats, || {
        black_box(a.matmul(&b)?);
        Ok(())
    })?;
    Ok(2. * (n as f64).powi(3) / seconds / 1e9)
}

fn square(n: usize, value: f32) -> Result<Tensor> {
    Ok(Tensor::full(value, (n, n), &Device::Cpu)?)
}

fn copy_rate(bytes: usize, threads: usize) -> Result<f64> {
    let from = vec![1f32; bytes / 4];
    let mut to = vec![2f32; bytes / 4];
    let part = from.len().div_ceil(threads);
    let seconds = shortest(REPEATS, || {
        to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| {
            to.copy_from_slice(from);
        });
        black_box(&mut to);
        Ok(())
    })?;
    Ok(2. * bytes as f64 / seconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_resource_counts() {
        let peak = Peak { gflops: 100., gigabytes_per_second: 10., ..Peak::default() };
        assert_eq!(peak.least_seconds(1e11, 1e9, false), 1.);
        assert_eq!(peak.least_seconds(1e11, 1e11, true), 10.);
        let peak = Peak { half_gflops: Some(400.), ..peak };
        assert_eq!(peak.least_seconds(4e11, 1e9, true), 1.);
        assert_eq!(peak.least_seconds(4e11, 1e9, false), 4.);
    }

    #[test]
    fn rates_are_positive_numbers() {
        assert!(gemm_rate(16).unwrap() > 0. && copy_rate(1 << 20, 2).unwrap() > 0.);
        assert_eq!(square(2, 3.).unwrap().to_vec2::<f32>().unwrap(), [[3., 3.], [3., 3.]]);
    }
}
