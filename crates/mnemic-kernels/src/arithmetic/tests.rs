//! The fused paths against the plain twins and finite differences.

use candle_core::{DType, Device, Tensor};
use mnemic_testing::{check_gradients, waves};

use super::*;
use crate::checks::{agree, same_bits};

const SHAPES: [(&[usize], &[usize]); 7] = [
    (&[1], &[1]),
    (&[3, 4], &[3, 4]),
    (&[2, 63, 65], &[65]),
    (&[4, 5, 6], &[5, 6]),
    (&[2, 3], &[]),
    (&[700, 130], &[130]),
    (&[2, 1000, 64], &[2, 1000, 64]),
];

fn sum(x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![add(&x[0], &x[1])?])
}

fn plain_sum(x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![plain::add(&x[0], &x[1])?])
}

fn operands((a, b): (&[usize], &[usize])) -> [Tensor; 2] {
    [waves(a, 1., 2., DType::F32), waves(b, 2., 3., DType::F32)]
}

#[test]
fn fused_equals_plain() {
    for shapes in SHAPES {
        let x = operands(shapes);
        agree(&x, sum, plain_sum);
        agree(&x[..1], |x| Ok(vec![scale(&x[0], -0.7)?]), |x| Ok(vec![plain::scale(&x[0], -0.7)?]));
    }
    same_bits(&operands(SHAPES[5]), sum);
    let (none, one) = (waves(&[0, 3], 0., 1., DType::F32), waves(&[3], 0., 1., DType::F32));
    assert_eq!(add(&none, &one).unwrap().dims(), [0, 3]);
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for shapes in SHAPES {
        let (x, test) = (operands(shapes), format!("arithmetic::cuda {shapes:?}"));
        agree(&test, &x, sum, plain_sum);
        let (fast, slow) = (
            |x: &[Tensor]| Ok(vec![scale(&x[0], 3.)?]),
            |x: &[Tensor]| Ok(vec![plain::scale(&x[0], 3.)?]),
        );
        agree(&test, &x[..1], fast, slow);
        agree_in_half(&test, 1, &x, sum, plain_sum);
        agree_in_half(&test, 1, &x[..1], fast, slow);
    }
}

#[test]
fn gradients() {
    let x = [("a", waves(&[2, 3], 1., 1., DType::F64)), ("b", waves(&[3], 2., 1., DType::F64))];
    check_gradients(&x, 1e-8, |x| scale(&add(&x[0], &x[1])?, 1.5)?.sqr()?.sum_all());
    // One tensor on both sides.
    check_gradients(&x[..1], 1e-8, |x| add(&x[0], &x[0])?.sqr()?.sum_all());
}

#[test]
fn wrong_shapes_are_named() {
    let (a, b) = (waves(&[2, 3], 1., 1., DType::F32), waves(&[2], 1., 1., DType::F32));
    let error = add(&a, &b).unwrap_err().to_string();
    assert!(error.contains("[2, 3] or its last axes, got [2]"), "{error}");
    assert!(add(&b, &Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn interpolation_equals_plain() {
    let x: Vec<Tensor> = (0..3).map(|i| waves(&[3, 17], f64::from(i), 1., DType::F64)).collect();
    agree(
        &x,
        |x| Ok(vec![interpolate(&x[0], &x[1], &x[2])?]),
        |x| Ok(vec![plain::interpolate(&x[0], &x[1], &x[2])?]),
    );
    let named: Vec<_> = ["a", "b", "share"].into_iter().zip(x.clone()).collect();
    check_gradients(&named, 1e-7, |x| interpolate(&x[0], &x[1], &x[2])?.sqr()?.sum_all());
    let error = interpolate(&x[0], &x[1], &waves(&[3], 1., 1., DType::F64)).unwrap_err();
    assert!(error.to_string().contains("two of [3, 17], got [3, 17] and [3]"), "{error}");
}
