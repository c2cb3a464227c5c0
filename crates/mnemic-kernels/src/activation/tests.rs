//! The fused path against the plain twins, finite differences and PyTorch.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, torch_fixture, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits, same_bits_at_every_level};

type Function = fn(&Tensor) -> Result<Tensor>;

/// Name, fused, plain, and the limits of value and derivative at ±infinity.
const ALL: [(&str, Function, Function, [f32; 4]); 7] = [
    ("tanh", tanh, plain::tanh, [1., -1., 0., 0.]),
    ("sigmoid", sigmoid, plain::sigmoid, [1., 0., 0., 0.]),
    ("gelu", gelu, plain::gelu, [f32::INFINITY, 0., 1., 0.]),
    ("gelu_tanh", gelu_tanh, plain::gelu_tanh, [f32::INFINITY, 0., 1., 0.]),
    ("silu", silu, plain::silu, [f32::INFINITY, 0., 1., 0.]),
    ("softplus", softplus, plain::softplus, [f32::INFINITY, 0., 1., 0.]),
    ("relu", relu, plain::relu, [f32::INFINITY, 0., 1., 0.]),
];

#[test]
fn fused_equals_plain() {
    for (_, fused, twin, _) in ALL {
        for n in [0, 1, 63, 65, 1000] {
            let xs = waves(&[2, n], 1., 4., DType::F64);
            agree(&[xs], |t| Ok(vec![fused(&t[0].t()?)?]), |t| Ok(vec![twin(&t[0].t()?)?]));
        }
    }
    for dims in [&[0, 2][..], &[3, 0], &[2], &[7, 126], &[2, 3, 130]] {
        let xs = waves(dims, 1., 4., DType::F64);
        agree(&[xs], |t| Ok(vec![glu(&t[0])?]), |t| Ok(vec![plain::glu(&t[0])?]));
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for (name, fused, twin, _) in ALL {
        for dims in [&[1usize][..], &[63], &[5, 65], &[3, 1000]] {
            let xs = [waves(dims, 1., 4., DType::F32)];
            let test = format!("activation::cuda {name} {dims:?}");
            agree(&test, &xs, |t| Ok(vec![fused(&t[0])?]), |t| Ok(vec![twin(&t[0])?]));
            agree_in_half(&test, 1, &xs, |t| Ok(vec![fused(&t[0])?]), |t| Ok(vec![twin(&t[0])?]));
        }
    }
    for dims in [&[2usize][..], &[7, 126], &[2, 3, 160]] {
        let xs = [waves(dims, 1., 4., DType::F32)];
        let test = format!("activation::cuda glu {dims:?}");
        agree(&test, &xs, |t| Ok(vec![glu(&t[0])?]), |t| Ok(vec![plain::glu(&t[0])?]));
        agree_in_half(&test, 1, &xs, |t| Ok(vec![glu(&t[0])?]), |t| Ok(vec![plain::glu(&t[0])?]));
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let probe = waves(&[3, 4], 2., 1., DType::F64);
    for (_, fused, ..) in ALL {
        check_gradients(&[("x", waves(&[3, 4], 1., 2., DType::F64))], 1e-8, |x| {
            fused(&x[0])?.mul(&probe)?.sum_all()
        });
    }
    check_gradients(&[("x", waves(&[3, 8], 1., 2., DType::F64))], 1e-8, |x| {
        glu(&x[0])?.mul(&probe)?.sum_all()
    });
}

#[test]
fn limits() {
    limits_on(&Device::Cpu);
    #[cfg(cuda_path)]
    for place in crate::cuda::tests::places("activation::limits") {
        place.run(limits_on);
    }
}

fn limits_on(device: &Device) {
    for (name, fused, _, [up, down, d_up, d_down]) in ALL {
        let (big, inf) = (f32::MAX, f32::INFINITY);
        let x = Var::new(&[inf, big, 1e4, -inf, -big, -1e4], device).unwrap();
        let y = fused(&x).unwrap();
        let values = y.to_vec1::<f32>().unwrap();
        let expected = if up == inf { [inf, big, 1e4] } else { [up; 3] };
        assert_eq!(values[..3], expected, "{name}");
        assert_eq!(values[3..], [down; 3], "{name}");
        let grads = y.sum_all().unwrap().backward().unwrap();
        let slopes = grads.get(&x).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(slopes, [d_up, d_up, d_up, d_down, d_down, d_down], "{name}");
    }
}

#[test]
fn subnormal_numbers_zero_and_nan() {
    for (name, fused, ..) in ALL {
        let x = Var::new(&[1e-40f32, -1e-40, 0., -0., f32::NAN], &Device::Cpu).unwrap();
        let y = fused(&x).unwrap();
        let values = y.to_vec1::<f32>().unwrap();
        assert!(values[..4].iter().all(|v| v.is_finite()) && values[4].is_nan(), "{name}");
        let grads = y.sum_all().unwrap().backward().unwrap();
        let slopes = grads.get(&x).unwrap().to_vec1::<f32>().unwrap();
        assert!(slopes[..4].iter().all(|v| v.is_finite()), "{name}: {slopes:?}");
        if name == "relu" {
            assert_eq!(slopes[..4], [1., 0., 0., 0.]);
        }
    }
}

#[test]
fn half_precision() {
    for dtype in [DType::F16, DType::BF16] {
        let xs = waves(&[65], 1., 3., dtype);
        let wide = xs.to_dtype(DType::F32).unwrap();
        for (name, fused, ..) in ALL {
            let expected = fused(&wide).unwrap().to_dtype(dtype).unwrap();
            assert_close(name, &fused(&xs).unwrap(), &expected, 0., 0.);
        }
    }
}

#[test]
fn same_bits_for_threads_and_levels() {
    let xs = [waves(&[4, 50_000], 1., 6., DType::F32)];
    for (_, fused, ..) in ALL {
        same_bits(&xs, |t| Ok(vec![fused(&t[0])?]));
        same_bits_at_every_level(&xs, |t| Ok(vec![fused(&t[0])?]));
    }
    same_bits(&xs, |t| Ok(vec![glu(&t[0])?]));
    same_bits_at_every_level(&xs, |t| Ok(vec![glu(&t[0])?]));
}

#[test]
fn the_last_axis_of_glu_is_even() {
    for dims in [&[2, 3][..], &[]] {
        let xs = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        let error = glu(&xs).unwrap_err().to_string();
        assert!(error.contains("even") && error.contains(&format!("{dims:?}")), "{error}");
    }
}

#[test]
fn torch() {
    for (suffix, tolerance) in [("f64", 1e-12), ("f32", 1e-6)] {
        let Some(fixture) =
            torch_fixture("activation::tests::torch", &format!("activations.{suffix}"))
        else {
            return;
        };
        for (name, fused, ..) in ALL {
            let x = Var::from_tensor(&fixture["input"]).unwrap();
            let y = fused(&x).unwrap();
            let expected = &fixture[&format!("output.{name}")];
            assert_close(name, &y, expected, tolerance, tolerance);
            let loss = y.mul(&fixture["probe"]).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            let expected = &fixture[&format!("grad.{name}")];
            assert_close(name, grads.get(&x).unwrap(), expected, tolerance, tolerance);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn random_shapes(a in 1usize..6, b in 1usize..90, k in 0usize..7) {
        let (_, fused, twin, _) = ALL[k];
        let xs = [waves(&[a, 2 * b], 1., 3., DType::F64)];
        agree(&xs, |t| Ok(vec![fused(&t[0])?]), |t| Ok(vec![twin(&t[0])?]));
        agree(&xs, |t| Ok(vec![glu(&t[0])?]), |t| Ok(vec![plain::glu(&t[0])?]));
    }
}
