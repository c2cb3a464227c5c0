//! The fused path against the plain twin: values, indices, gradients.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits};
use crate::rng::Philox;

fn compare(xs: &Tensor, k: usize) {
    let (fast, slow) = (top_k(xs, k).unwrap(), plain::top_k(xs, k).unwrap());
    assert_eq!(fast.1.dtype(), DType::U32);
    assert_close("indices", &fast.1, &slow.1, 0., 0.);
    agree(
        std::slice::from_ref(xs),
        |t| Ok(vec![top_k(&t[0], k)?.0]),
        |t| Ok(vec![plain::top_k(&t[0], k)?.0]),
    );
}

#[test]
fn fused_equals_plain() {
    for (dims, k) in [
        (&[1][..], 1),
        (&[5], 0),
        (&[0, 4], 2),
        (&[3, 0], 0),
        (&[65], 65),
        (&[2, 3, 63], 7),
        (&[3, 1000], 1),
        (&[2, 1000], 300),
        (&[2, 1000], 1000),
    ] {
        compare(&waves(dims, 1., 1., DType::F64), k);
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half, places};
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let hostile = [1., -inf, -nan, inf, 1e-45, nan, -1e4, 0., -0., 0., -0., 1., 1.];
    let ties = |n: usize| {
        let rng = Philox::new(3, 1);
        let few = (0..n).map(|i| rng.below(i as u64, 5) as f32 - 2.).collect::<Vec<_>>();
        Tensor::from_vec(few, n, &Device::Cpu).unwrap()
    };
    let mut all = vec![(Tensor::new(&hostile, &Device::Cpu).unwrap(), vec![1, 2, 5, 9, 13])];
    all.push((ties(3000), vec![1, 7, 600, 1000, 3000]));
    for (dims, ks) in [
        (&[1usize][..], vec![1]),
        (&[65], vec![65]),
        (&[2, 3, 63], vec![7]),
        (&[3, 1000], vec![1, 31, 300, 1000]),
    ] {
        all.push((waves(dims, 1., 1., DType::F32), ks));
    }
    for (xs, ks) in all {
        for k in ks {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let xs = xs.to_dtype(dtype).unwrap();
                let (values, indices) = plain::top_k(&xs, k).unwrap();
                for place in places("top_k::cuda") {
                    let got = place.run(|device| {
                        let (v, i) = top_k(&xs.to_device(device).unwrap(), k).unwrap();
                        [v, i].map(|t| t.to_device(&Device::Cpu).unwrap())
                    });
                    let test = format!("{place:?} {dtype:?} {:?} {k}", xs.dims());
                    let got_indices = got[1].flatten_all().unwrap().to_vec1::<u32>().unwrap();
                    assert_eq!(
                        got_indices,
                        indices.flatten_all().unwrap().to_vec1::<u32>().unwrap(),
                        "{test}"
                    );
                    let numbers = |t: &Tensor| {
                        let t = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
                        t.to_vec1::<f32>().unwrap()
                    };
                    for (a, b) in numbers(&got[0]).iter().zip(numbers(&values)) {
                        assert!(*a == b || a.is_nan() && b.is_nan(), "{test}: {a} {b}");
                    }
                }
            }
        }
    }
    let xs = [waves(&[3, 200], 1., 1., DType::F32)];
    let (fused, twin) = (
        |t: &[Tensor]| Ok(vec![top_k(&t[0], 9)?.0]),
        |t: &[Tensor]| Ok(vec![plain::top_k(&t[0], 9)?.0]),
    );
    agree("top_k::cuda", &xs, fused, twin);
    agree_in_half("top_k::cuda", 1, &xs, fused, twin);
}

#[test]
fn ascending_and_descending_rows() {
    let up = Tensor::arange(0f64, 3000., &Device::Cpu).unwrap();
    compare(&up, 40);
    compare(&up.neg().unwrap(), 40);
}

#[test]
fn ties_go_to_the_lower_index() {
    let (values, indices) =
        top_k(&Tensor::zeros(1000, DType::F32, &Device::Cpu).unwrap(), 300).unwrap();
    assert_eq!(indices.to_vec1::<u32>().unwrap(), (0..300).collect::<Vec<_>>());
    assert_eq!(values.to_vec1::<f32>().unwrap(), vec![0.; 300]);
    let xs = Tensor::new(&[-0f32, 0., -1., 0., -0.], &Device::Cpu).unwrap();
    assert_eq!(top_k(&xs, 4).unwrap().1.to_vec1::<u32>().unwrap(), [0, 1, 3, 4]);
}

#[test]
fn hostile_values() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let xs = Tensor::new(&[1., -inf, -nan, inf, 1e-45, nan, -1e4, 0.], &Device::Cpu).unwrap();
    let (values, indices) = top_k(&xs, 8).unwrap();
    assert_eq!(indices.to_vec1::<u32>().unwrap(), [2, 5, 3, 0, 4, 7, 6, 1]);
    assert_eq!(plain::top_k(&xs, 8).unwrap().1.to_vec1::<u32>().unwrap(), [2, 5, 3, 0, 4, 7, 6, 1]);
    assert!(values.to_vec1::<f32>().unwrap()[1].is_nan());
    // Far behind a full list of candidates, and more of them than fit.
    let mut row = vec![1f32; 2000];
    row[1999] = nan;
    let xs = Tensor::from_vec(row, 2000, &Device::Cpu).unwrap();
    assert_eq!(top_k(&xs, 2).unwrap().1.to_vec1::<u32>().unwrap(), [1999, 0]);
    let xs = Tensor::full(nan, 2000, &Device::Cpu).unwrap();
    assert_eq!(top_k(&xs, 3).unwrap().1.to_vec1::<u32>().unwrap(), [0, 1, 2]);
}

#[test]
fn gradients_go_to_the_chosen() {
    check_gradients(&[("xs", waves(&[7, 4], 1., 1., DType::F64))], 1e-8, |x| {
        top_k(&x[0].t()?, 3)?.0.sqr()?.sum_all()
    });
    let xs = Var::new(&[1f32, 9., 4.], &Device::Cpu).unwrap();
    let grads = top_k(&xs, 2).unwrap().0.sum_all().unwrap().backward().unwrap();
    assert_eq!(grads.get(&xs).unwrap().to_vec1::<f32>().unwrap(), [0., 1., 1.]);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    same_bits(&[waves(&[200, 500], 1., 1., DType::F32)], |t| {
        let (values, indices) = top_k(&t[0], 9)?;
        Ok(vec![values, indices.to_dtype(DType::F32)?])
    });
}

#[test]
fn too_large_k_is_named() {
    let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let error = top_k(&xs, 4).unwrap_err().to_string();
    assert!(error.contains('4') && error.contains("[2, 3]"), "{error}");
    assert!(top_k(&xs.sum_all().unwrap(), 1).unwrap_err().to_string().contains("scalar"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_rows(rows in 1usize..4, n in 1usize..900, share in 0f64..1., values in 1u64..2000, seed: u64) {
        // Few different values: many ties.
        let rng = Philox::new(seed, 0);
        let xs = (0..rows * n).map(|i| rng.below(i as u64, values) as f64).collect::<Vec<_>>();
        let xs = Tensor::from_vec(xs, (rows, n), &Device::Cpu).unwrap();
        compare(&xs, (share * n as f64) as usize);
    }
}
