//! The fused path against the plain twin, finite differences and the law that the paper states.

use candle_core::{DType, Device, Tensor};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits, same_bits_at_every_level};

const LAYOUTS: [Layout; 2] = [Layout::Halves, Layout::Interleaved];

/// Cosines and sines of irregular angles.
fn tables(rows: usize, n: usize, half: usize) -> [Tensor; 2] {
    let angles = waves(&[rows, n, half], 3., 4., DType::F64);
    [angles.cos().unwrap(), angles.sin().unwrap()]
}

fn compare([b, h, n, d]: [usize; 4], rows: usize, half: usize) {
    let [cos, sin] = tables(rows, n, half);
    let table = |t: &Tensor, like: &Tensor| t.to_dtype(like.dtype()).unwrap();
    for layout in LAYOUTS {
        agree(
            &[waves(&[b, h, n, d], 1., 1., DType::F64)],
            |t| Ok(vec![rotary(&t[0], &table(&cos, &t[0]), &table(&sin, &t[0]), layout)?]),
            |t| Ok(vec![plain::rotary(&t[0], &table(&cos, &t[0]), &table(&sin, &t[0]), layout)?]),
        );
    }
}

#[test]
fn fused_equals_plain() {
    for (dims, rows, half) in [
        ([1, 1, 1, 2], 1, 1),
        ([2, 3, 5, 8], 2, 4),
        ([2, 3, 5, 8], 1, 4),
        ([2, 2, 7, 65], 2, 31),
        ([3, 1, 63, 64], 3, 32),
        ([1, 2, 65, 126], 1, 63),
        ([2, 4, 130, 80], 2, 40),
    ] {
        compare(dims, rows, half);
    }
}

#[test]
fn empty_operands() {
    for (dims, half) in [([0, 2, 3, 4], 2), ([2, 0, 3, 4], 2), ([2, 1, 0, 4], 2)] {
        let xs = Tensor::zeros(&dims, DType::F32, &Device::Cpu).unwrap();
        let table = Tensor::zeros((1, dims[2], half), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(rotary(&xs, &table, &table, Layout::Halves).unwrap().dims(), dims);
    }
    let xs = waves(&[1, 2, 3, 4], 1., 1., DType::F32);
    let none = Tensor::zeros((1, 3, 0), DType::F32, &Device::Cpu).unwrap();
    assert_close(
        "nothing turned",
        &rotary(&xs, &none, &none, Layout::Halves).unwrap(),
        &xs,
        0.,
        0.,
    );
}

#[test]
fn gradients_agree_with_finite_differences() {
    let [cos, sin] = tables(2, 3, 2);
    let probe = waves(&[2, 2, 3, 5], 2., 1., DType::F64);
    for layout in LAYOUTS {
        check_gradients(&[("xs", waves(&[2, 2, 3, 5], 1., 1., DType::F64))], 1e-8, |t| {
            rotary(&t[0], &cos, &sin, layout)?.mul(&probe)?.sum_all()
        });
    }
}

/// Products of turned vectors depend on the distance of their places alone (the paper's eq. 16).
#[test]
fn products_depend_on_distance_alone() {
    let (n, half) = (9usize, 3usize);
    let angles: Vec<f64> =
        (0..n * half).map(|k| (k / half) as f64 * 0.3f64.powi((k % half) as i32)).collect();
    let angles = Tensor::from_vec(angles, (1, n, half), &Device::Cpu).unwrap();
    let same = |seed| {
        let row = waves(&[1, 1, 1, 2 * half], seed, 1., DType::F64);
        row.broadcast_as((1, 1, n, 2 * half)).unwrap().contiguous().unwrap()
    };
    for layout in LAYOUTS {
        let turned = |xs: &Tensor| {
            rotary(xs, &angles.cos().unwrap(), &angles.sin().unwrap(), layout).unwrap()
        };
        let (q, k) = (turned(&same(1.)), turned(&same(2.)));
        let scores = q.matmul(&k.t().unwrap()).unwrap().squeeze(0).unwrap().squeeze(0).unwrap();
        let scores = scores.to_vec2::<f64>().unwrap();
        for i in 1..n {
            for j in 1..n {
                assert!((scores[i][j] - scores[i - 1][j - 1]).abs() < 1e-12, "{layout:?} {i} {j}");
            }
        }
        assert!((scores[0][0] - scores[0][1]).abs() > 1e-3);
    }
}

#[test]
fn half_precision() {
    let [cos, sin] = tables(1, 5, 4);
    for dtype in [DType::F16, DType::BF16] {
        let all = [
            waves(&[2, 3, 5, 8], 1., 1., dtype),
            cos.to_dtype(dtype).unwrap(),
            sin.to_dtype(dtype).unwrap(),
        ];
        let wide = all.clone().map(|t| t.to_dtype(DType::F32).unwrap());
        let expected = rotary(&wide[0], &wide[1], &wide[2], Layout::Halves).unwrap();
        let got = rotary(&all[0], &all[1], &all[2], Layout::Halves).unwrap();
        assert_close("half", &got, &expected.to_dtype(dtype).unwrap(), 0., 0.);
    }
}

#[test]
fn same_bits_for_threads_and_levels() {
    let xs = [waves(&[2, 8, 150, 64], 1., 1., DType::F32)];
    let [cos, sin] = tables(2, 150, 32).map(|t| t.to_dtype(DType::F32).unwrap());
    for layout in LAYOUTS {
        same_bits(&xs, |t| Ok(vec![rotary(&t[0], &cos, &sin, layout)?]));
        same_bits_at_every_level(&xs, |t| Ok(vec![rotary(&t[0], &cos, &sin, layout)?]));
    }
}

#[test]
fn wrong_shapes_are_named() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let good = [2, 1, 3, 4];
    for (xs, cos, sin) in [
        (&good[..], &[3usize, 3, 2] as &[usize], &[3usize, 3, 2] as &[usize]),
        (&good, &[2, 4, 2], &[2, 4, 2]),
        (&good, &[2, 3, 3], &[2, 3, 3]),
        (&good, &[2, 3, 2], &[1, 3, 2]),
        (&[2, 3, 4], &[2, 3, 2], &[2, 3, 2]),
    ] {
        let error = rotary(&zeros(xs), &zeros(cos), &zeros(sin), Layout::Halves).unwrap_err();
        assert!(error.to_string().contains(&format!("{xs:?}, {cos:?}")), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn random_shapes(b in 1usize..4, h in 1usize..4, n in 1usize..20, half in 1usize..40, rest in 0usize..9) {
        compare([b, h, n, 2 * half + rest], b, half);
    }
}
