//! The fused path against the plain twin; the mask itself.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits, same_bits_at_every_level};

fn rng() -> Philox {
    Philox::new(9, 0x0123_4567_89ab_cdef)
}

fn compare(dims: &[usize], p: f64) {
    agree(
        &[waves(dims, 1., 1., DType::F64)],
        |t| Ok(vec![dropout(&t[0], p, rng())?]),
        |t| Ok(vec![plain::dropout(&t[0], p, rng())?]),
    );
}

#[test]
fn fused_equals_plain() {
    for p in [-1., 0., 1e-9, 0.1, 0.5, 0.999_999_999_9, 1., 2.] {
        for dims in [&[0][..], &[1], &[63], &[65], &[3, 5, 67]] {
            compare(dims, p);
        }
    }
    compare(&[70_003], 0.1);
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for dims in [&[1usize][..], &[63], &[5, 65], &[3, 1000]] {
            for p in [1e-9, 0.1, 0.5, 0.999_999_999_9, 1.] {
                let x = waves(dims, 1., 1., dtype);
                let run = |device: &Device| {
                    let x = Var::from_tensor(&x.to_device(device).unwrap()).unwrap();
                    let y = dropout(&x, p, rng()).unwrap();
                    let grads = crate::backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
                    let grad = grads.get(&x).unwrap();
                    [y.detach(), grad.clone()].map(|t| t.to_device(&Device::Cpu).unwrap())
                };
                let expected = run(&Device::Cpu);
                for place in crate::cuda::tests::places("dropout::cuda") {
                    for (a, b) in place.run(run).iter().zip(&expected) {
                        assert_close(&format!("{place:?} {dtype:?} {dims:?} {p}"), a, b, 0., 0.);
                    }
                }
            }
        }
    }
}

#[test]
fn the_mask_is_that_of_single_blocks() {
    let xs = Tensor::ones(1003, DType::F32, &Device::Cpu).unwrap();
    let ys = dropout(&xs, 0.3, rng()).unwrap().to_vec1::<f32>().unwrap();
    let keep = (1. / (1. - 0.3f64)) as f32;
    for (i, y) in ys.into_iter().enumerate() {
        let word = rng().block(i as u64 / 4)[i % 4];
        assert_eq!(y, if f64::from(word) < (0.3f64 * 4_294_967_296.).trunc() { 0. } else { keep });
    }
}

#[test]
fn gradients_and_scattered_operands() {
    check_gradients(&[("x", waves(&[5, 7], 1., 1., DType::F64))], 1e-8, |x| {
        dropout(&x[0].t()?, 0.4, rng())?.sqr()?.sum_all()
    });
}

#[test]
fn the_share_of_zeros_is_p() {
    let n = 100_000;
    let xs = Var::ones(n, DType::F32, &Device::Cpu).unwrap();
    for p in [0.1, 0.5, 0.9] {
        let y = dropout(&xs, p, rng()).unwrap();
        let zeros = y.to_vec1::<f32>().unwrap().iter().filter(|v| **v == 0.).count();
        assert!((zeros as f64 / n as f64 - p).abs() < 0.01, "{p}: {zeros} of {n}");
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_close("mask again", grads.get(&xs).unwrap(), &y, 0., 0.);
    }
}

#[test]
fn same_bits_for_threads_and_levels() {
    let xs = [waves(&[3, 70_001], 1., 1., DType::F32)];
    same_bits(&xs, |t| Ok(vec![dropout(&t[0], 0.2, rng())?]));
    same_bits_at_every_level(&xs, |t| Ok(vec![dropout(&t[0], 0.2, rng())?]));
}

#[test]
fn hostile_values() {
    let xs = Tensor::new(&[f32::NAN; 64], &Device::Cpu).unwrap();
    let ys = dropout(&xs, 0.5, rng()).unwrap().to_vec1::<f32>().unwrap();
    assert!(ys.iter().all(|y| y.is_nan()));
    let error = dropout(&xs, f64::NAN, rng()).unwrap_err().to_string();
    assert!(error.contains("not a number"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_shapes(a in 1usize..9, b in 1usize..300, p in 0f64..1.1) {
        compare(&[a, b], p);
    }
}
