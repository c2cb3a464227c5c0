//! The fused path against the plain twins and finite differences, with zeros among the factors.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits, same_bits_at_every_level};

fn compare(xs: &Tensor) {
    for exclusive in [false, true] {
        let xs = std::slice::from_ref(xs);
        agree(
            xs,
            |t| Ok(vec![cumsum(&t[0], exclusive)?, cumprod(&t[0], exclusive)?]),
            |t| Ok(vec![plain::cumsum(&t[0], exclusive)?, plain::cumprod(&t[0], exclusive)?]),
        );
    }
}

#[test]
fn fused_equals_plain() {
    for dims in [&[1][..], &[0], &[3, 0], &[0, 3], &[65, 7], &[2, 3, 9], &[17, 63]] {
        compare(&waves(dims, 1., 1., DType::F64));
    }
    compare(&(waves(&[3, 1000], 1., 1e-2, DType::F64) + 1.).unwrap());
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    let rows = [[2f32, 0., 3., 4.], [0., 0., 5., 1.], [1., 2., 3., 0.], [0., 0., 0., 0.]];
    let mut all = vec![Tensor::new(&rows, &Device::Cpu).unwrap()];
    for dims in [&[1usize][..], &[65, 7], &[2, 3, 9], &[17, 63], &[3, 1000], &[2, 9001]] {
        all.push((waves(dims, 1., 1e-2, DType::F32) + 1.).unwrap());
    }
    for xs in all {
        for exclusive in [false, true] {
            let test = format!("cumulative::cuda {:?} {exclusive}", xs.dims());
            let fused =
                |t: &[Tensor]| Ok(vec![cumsum(&t[0], exclusive)?, cumprod(&t[0], exclusive)?]);
            let plain = |t: &[Tensor]| {
                Ok(vec![plain::cumsum(&t[0], exclusive)?, plain::cumprod(&t[0], exclusive)?])
            };
            agree(&test, std::slice::from_ref(&xs), fused, plain);
            if xs.elem_count() < 600 {
                agree_in_half(&test, 2, std::slice::from_ref(&xs), fused, plain);
            }
        }
    }
}

#[test]
fn zeros_among_the_factors() {
    let rows = [[2., 0., 3., 4.], [0., 0., 5., 1.], [1., 2., 3., 0.], [0., 0., 0., 0.]];
    let xs = Tensor::new(&rows, &Device::Cpu).unwrap();
    compare(&xs);
    let probe = waves(&[4, 4], 2., 1., DType::F64);
    for exclusive in [false, true] {
        check_gradients(&[("xs", xs.clone())], 1e-8, |x| {
            cumprod(&x[0], exclusive)?.mul(&probe)?.sum_all()
        });
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for exclusive in [false, true] {
        for f in [cumsum, cumprod] {
            check_gradients(&[("xs", waves(&[5, 3], 1., 1., DType::F64))], 1e-7, |x| {
                f(&x[0].t()?, exclusive)?.sqr()?.sum_all()
            });
        }
    }
}

#[test]
fn known_gradients() {
    let xs = Var::new(&[2f32, 3., 4.], &Device::Cpu).unwrap();
    let slope = |y: Tensor| {
        let grads = y.sum_all().unwrap().backward().unwrap();
        grads.get(&xs).unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(slope(cumsum(&xs, false).unwrap()), [3., 2., 1.]);
    assert_eq!(slope(cumsum(&xs, true).unwrap()), [2., 1., 0.]);
    // x1 + x1 x2 + x1 x2 x3, and 1 + x1 + x1 x2
    assert_eq!(slope(cumprod(&xs, false).unwrap()), [16., 10., 6.]);
    assert_eq!(slope(cumprod(&xs, true).unwrap()), [4., 2., 0.]);
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let xs = waves(&[19, 33], 1., 1e4, DType::F32);
    let all = cumsum(&xs, false).unwrap();
    for row in 0..19 {
        let one = cumsum(&xs.get(row).unwrap(), false).unwrap();
        assert_close("row", &all.get(row).unwrap(), &one, 0., 0.);
    }
}

#[test]
fn same_bits_for_threads_and_levels() {
    let xs = [(waves(&[300, 301], 1., 0.1, DType::F32) + 1.).unwrap()];
    for f in [cumsum, cumprod] {
        same_bits(&xs, |t| Ok(vec![f(&t[0], true)?]));
        same_bits_at_every_level(&xs, |t| Ok(vec![f(&t[0], false)?]));
    }
}

#[test]
fn hostile_values() {
    let xs = Tensor::new(&[1e-45f32, 1e4, -1e4, 0.], &Device::Cpu).unwrap();
    let y = cumprod(&xs, false).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(y[3], 0.);
    assert!(y.iter().all(|y| y.is_finite()));
    for f in [cumsum, cumprod] {
        let error = f(&Tensor::new(1f32, &Device::Cpu).unwrap(), false).unwrap_err().to_string();
        assert!(error.contains("scalar"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn random_shapes(a in 1usize..12, n in 1usize..20, zero in 0usize..20) {
        let keep = (0..n).map(|i| f64::from(u8::from(i != zero))).collect::<Vec<_>>();
        let keep = Tensor::from_vec(keep, n, &Device::Cpu).unwrap();
        compare(&waves(&[a, n], 1., 1.5, DType::F64).broadcast_mul(&keep).unwrap());
    }
}
