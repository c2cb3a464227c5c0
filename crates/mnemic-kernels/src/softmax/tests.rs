//! The fused path against the plain twin, finite differences and PyTorch.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, torch_fixture, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

const INF: f64 = f64::INFINITY;

type Function = fn(&Tensor) -> Result<Tensor>;

const FUNCTIONS: [(&str, Function, Function); 2] =
    [("softmax", softmax, plain::softmax), ("log_softmax", log_softmax, plain::log_softmax)];

/// A mask with about a third hidden, and every fourth row wholly.
fn mask(shape: &[usize]) -> Tensor {
    let (n, width) = (shape.iter().product::<usize>(), shape[shape.len() - 1]);
    let hidden = |i: usize| i * 7 % 11 < 4 || i / width % 4 == 2;
    let values: Vec<u8> = (0..n).map(|i| u8::from(!hidden(i))).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The result, and the gradient of a probed sum.
fn run(xs: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> [Tensor; 2] {
    let xs = Var::from_tensor(xs).unwrap();
    let y = f(&xs).unwrap();
    let probe = waves(y.dims(), 5., 1., DType::F64).to_dtype(y.dtype()).unwrap();
    let grads = y.mul(&probe).unwrap().sum_all().unwrap().backward().unwrap();
    [y.detach(), grads.get(&xs).unwrap().clone()]
}

fn compare(shape: &[usize], scale: f64, dtype: DType, tolerance: f64) {
    let xs = waves(shape, 1., scale, dtype);
    for (name, fused, plain) in FUNCTIONS {
        for (a, b) in run(&xs, fused).iter().zip(&run(&xs, plain)) {
            assert_close(&format!("{name} {shape:?}"), a, b, tolerance, tolerance);
        }
    }
    let mask = mask(shape);
    let fused = run(&xs, |xs| masked_softmax(xs, &mask));
    let plain = run(&xs, |xs| plain::masked_softmax(xs, &mask));
    for (a, b) in fused.iter().zip(&plain) {
        assert_close(&format!("masked {shape:?}"), a, b, tolerance, tolerance);
    }
}

#[test]
fn fused_equals_plain() {
    let shapes: [&[usize]; 8] =
        [&[1], &[3, 1], &[2, 3, 63], &[5, 64], &[4, 65], &[3, 1000], &[0, 3], &[70, 2]];
    for shape in shapes {
        compare(shape, 3., DType::F64, 1e-12);
        compare(shape, 3., DType::F32, 1e-5);
        compare(shape, 1e4, DType::F64, 1e-11);
    }
    let xs = Var::from_tensor(&Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(softmax(&xs).unwrap().dims(), [2, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_shapes(n in 1usize..9, width in 1usize..200, scale in 0.1f64..30.) {
        compare(&[n, width], scale, DType::F64, 1e-11);
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for shape in [
        &[1usize] as &[usize],
        &[3, 1],
        &[2, 3, 63],
        &[5, 64],
        &[4, 65],
        &[3, 1000],
        &[3, 5001],
        &[2, 17000],
    ] {
        let xs = [waves(shape, 1., 3., DType::F32)];
        let mask = mask(shape);
        for (name, fused, plain) in FUNCTIONS {
            let test = format!("softmax::cuda {name} {shape:?}");
            agree(&test, &xs, |x| Ok(vec![fused(&x[0])?]), |x| Ok(vec![plain(&x[0])?]));
            agree_in_half(&test, 1, &xs, |x| Ok(vec![fused(&x[0])?]), |x| Ok(vec![plain(&x[0])?]));
        }
        agree(
            &format!("softmax::cuda masked {shape:?}"),
            &xs,
            |x| Ok(vec![masked_softmax(&x[0], &mask.to_device(x[0].device())?)?]),
            |x| Ok(vec![plain::masked_softmax(&x[0], &mask)?]),
        );
    }
}

#[test]
fn gradients() {
    let xs = waves(&[3, 7], 1., 2., DType::F64);
    let probe = waves(&[3, 7], 4., 1., DType::F64);
    let mask = mask(&[3, 7]);
    for (_, fused, _) in FUNCTIONS {
        check_gradients(&[("xs", xs.clone())], 1e-7, |x| fused(&x[0])?.mul(&probe)?.sum_all());
    }
    check_gradients(&[("xs", xs)], 1e-7, |x| masked_softmax(&x[0], &mask)?.mul(&probe)?.sum_all());
}

#[test]
fn rows_without_scores_and_hostile_ones() {
    let rows = [
        [-INF, -INF, -INF],
        [-INF, 1e4, -1e4],
        [1e4, 1e4, 1e4],
        [1e-310, -1e-310, 0.],
        [-1e30, -1e30, -INF],
    ];
    let thirds = [1. / 3.; 3];
    let expected = [[0.; 3], [0., 1., 0.], thirds, thirds, [0.5, 0.5, 0.]];
    for dtype in [DType::F32, DType::F64] {
        let xs = Tensor::new(&rows, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let expected = Tensor::new(&expected, &Device::Cpu).unwrap();
        for f in [softmax, plain::softmax] {
            let [p, dx] = run(&xs, f);
            assert_close("softmax", &p, &expected, 1e-6, 1e-12);
            let dx = dx.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
            assert!(dx[0] == [0.; 3] && dx.iter().flatten().all(|g| g.is_finite()), "{dx:?}");
        }
        for f in [log_softmax, plain::log_softmax] {
            let [log_p, dx] = run(&xs, f);
            assert_close("log", &log_p.exp().unwrap(), &expected, 1e-6, 1e-12);
            let dx = dx.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
            assert!(dx[0] == [0.; 3] && dx.iter().flatten().all(|g| g.is_finite()), "{dx:?}");
        }
    }
    // What a mask hides may be anything; what it does not hide is not swallowed.
    let xs = Tensor::new(&[[f32::NAN, 1., f32::INFINITY], [f32::NAN, -1., 0.]], &Device::Cpu);
    let mask = Tensor::new(&[[0u8, 1, 0], [1, 0, 0]], &Device::Cpu).unwrap();
    let p = masked_softmax(&xs.unwrap(), &mask).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(p[0], [0., 1., 0.]);
    assert!(p[1][0].is_nan());
}

#[test]
fn non_contiguous_half_and_every_level_and_pool() {
    let wide = waves(&[65, 40, 3], 1., 3., DType::F32);
    let xs = wide.transpose(0, 1).unwrap().narrow(2, 1, 2).unwrap();
    let expected = softmax(&xs.contiguous().unwrap()).unwrap();
    assert_close("scattered", &softmax(&xs).unwrap(), &expected, 0., 0.);
    let half = softmax(&xs.to_dtype(DType::BF16).unwrap()).unwrap();
    assert_eq!(half.dtype(), DType::BF16);
    assert_close("half", &half, &expected, 1e-2, 1e-2);

    let xs = waves(&[300, 131], 1., 3., DType::F32);
    for (_, f, _) in FUNCTIONS {
        let all = || run(&xs, f).to_vec();
        same_for_threads(all);
        same_for_levels(all);
    }
}

#[test]
fn torch() {
    for (ty, tolerance) in [("f64", 1e-10), ("f32", 1e-5)] {
        let Some(fixture) = torch_fixture("softmax::torch", &format!("activations.{ty}")) else {
            return;
        };
        for (name, f, _) in FUNCTIONS {
            let input = Var::from_tensor(&fixture["input"]).unwrap();
            let y = f(&input).unwrap();
            assert_close(name, &y, &fixture[&format!("output.{name}")], tolerance, tolerance);
            let grads = y.mul(&fixture["probe"]).unwrap().sum_all().unwrap().backward().unwrap();
            let expected = &fixture[&format!("grad.{name}")];
            assert_close(name, grads.get(&input).unwrap(), expected, tolerance, tolerance);
        }
    }
}

#[test]
fn bad_shapes_are_named() {
    let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let mask = Tensor::zeros((2, 2), DType::U8, &Device::Cpu).unwrap();
    let error = masked_softmax(&xs, &mask).unwrap_err().to_string();
    assert!(error.contains("scores are [2, 3], the mask is [2, 2]"), "{error}");
    let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
    assert!(softmax(&scalar).unwrap_err().to_string().contains("at least one axis"));
}
