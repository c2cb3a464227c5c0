//! The fused path against the plain twin, the paper's laws, and worked examples.

use candle_core::{DType, Device};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits};
use crate::softmax::softmax;

/// Weightings that sum to less than 1.
fn weightings(dims: &[usize], phase: f64) -> Tensor {
    (softmax(&waves(dims, phase, 1.5, DType::F64)).unwrap() * 0.9).unwrap()
}

fn fractions(dims: &[usize], phase: f64) -> Tensor {
    (waves(dims, phase, 0.45, DType::F64) + 0.5).unwrap()
}

fn content_operands(b: usize, n: usize, w: usize, h: usize) -> Vec<Tensor> {
    vec![
        waves(&[b, n, w], 1., 0.8, DType::F64),
        waves(&[b, h, w], 2., 1.2, DType::F64),
        waves(&[b, h], 3., 2., DType::F64),
    ]
}

fn write_operands(b: usize, n: usize, r: usize) -> Vec<Tensor> {
    vec![
        fractions(&[b, n], 1.),
        weightings(&[b, n], 2.),
        weightings(&[b, r, n], 3.),
        weightings(&[b, n], 4.),
        waves(&[b, r + 2], 5., 1.5, DType::F64),
    ]
}

/// Links whose rows and columns sum to at most 1.
fn read_operands(b: usize, n: usize, r: usize) -> Vec<Tensor> {
    let link = (fractions(&[b, n, n], 1.) * (1. / n as f64)).unwrap();
    vec![
        link,
        weightings(&[b, n], 2.),
        weightings(&[b, n], 3.),
        weightings(&[b, r, n], 4.),
        weightings(&[b, r, n], 5.),
        waves(&[b, r, 3], 6., 1.5, DType::F64),
    ]
}

fn all_of(w: Writing) -> Vec<Tensor> {
    vec![w.usage, w.allocation, w.weights]
}

fn all_read(r: Reading) -> Vec<Tensor> {
    vec![r.link, r.precedence, r.weights]
}

fn writing(x: &[Tensor]) -> Result<Vec<Tensor>> {
    write_weights(&x[0], &x[1], &x[2], &x[3], &x[4]).map(all_of)
}

fn reading(x: &[Tensor]) -> Result<Vec<Tensor>> {
    read_weights(&x[0], &x[1], &x[2], &x[3], &x[4], &x[5]).map(all_read)
}

const SIZES: [(usize, usize, usize, usize); 5] =
    [(1, 1, 1, 1), (2, 4, 2, 1), (3, 5, 20, 2), (1, 64, 16, 4), (2, 33, 65, 3)];

#[test]
fn all_equal_plain() {
    for (b, n, w, h) in SIZES {
        agree(
            &content_operands(b, n, w, h),
            |x| Ok(vec![content_weights(&x[0], &x[1], &x[2])?]),
            |x| Ok(vec![plain::content_weights(&x[0], &x[1], &x[2])?]),
        );
        agree(&write_operands(b, n, h), writing, |x| {
            plain::write_weights(&x[0], &x[1], &x[2], &x[3], &x[4]).map(all_of)
        });
        agree(&read_operands(b, n, h), reading, |x| {
            plain::read_weights(&x[0], &x[1], &x[2], &x[3], &x[4], &x[5]).map(all_read)
        });
    }
}

/// A sum of all results with factors of their own.
fn probe(results: &[Tensor]) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for (i, result) in results.iter().enumerate() {
        let factors = waves(result.dims(), 7. + i as f64, 1., DType::F64);
        sum = (sum + (result * factors)?.sum_all()?)?;
    }
    Ok(sum)
}

fn named(x: Vec<Tensor>) -> Vec<(&'static str, Tensor)> {
    ["first", "second", "third", "fourth", "fifth", "sixth"].into_iter().zip(x).collect()
}

#[test]
fn gradients_agree_with_finite_differences() {
    check_gradients(&named(content_operands(2, 4, 3, 2)), 1e-6, |x| {
        probe(&[content_weights(&x[0], &x[1], &x[2])?])
    });
    check_gradients(&named(write_operands(2, 5, 2)), 1e-6, |x| probe(&writing(x)?));
    check_gradients(&named(read_operands(2, 4, 2)), 1e-6, |x| probe(&reading(x)?));
    // Also where only one result is used.
    for i in 0..3 {
        check_gradients(&named(write_operands(1, 4, 1)), 1e-6, |x| probe(&writing(x)?[i..=i]));
        check_gradients(&named(read_operands(1, 4, 1)), 1e-6, |x| probe(&reading(x)?[i..=i]));
    }
}

#[test]
fn repeated_runs_and_threads_give_the_same_bits() {
    let single = |x: Vec<Tensor>| -> Vec<Tensor> {
        x.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect()
    };
    same_bits(&single(content_operands(9, 64, 20, 2)), |x| {
        Ok(vec![content_weights(&x[0], &x[1], &x[2])?])
    });
    same_bits(&single(write_operands(9, 64, 2)), writing);
    same_bits(&single(read_operands(9, 64, 2)), reading);
}

fn rows<const N: usize>(x: [f64; N]) -> Tensor {
    Tensor::new(&[x], &Device::Cpu).unwrap()
}

/// Gates that are wide open or shut.
fn gates(freed: &[f64], allocate: f64, write: f64) -> Tensor {
    let logit = |g: &f64| (g / (1. - g)).ln().clamp(-1e3, 1e3);
    let all: Vec<f64> = freed.iter().chain([&allocate, &write]).map(logit).collect();
    Tensor::from_vec(all.clone(), (1, all.len()), &Device::Cpu).unwrap()
}

#[test]
fn free_slots_are_allocated_in_order_of_usage() {
    let allocated = |usage: [f64; 4]| {
        let usage = rows(usage);
        let none = usage.zeros_like().unwrap();
        let head = none.unsqueeze(1).unwrap();
        write_weights(&usage, &none, &head, &none, &gates(&[0.], 1., 1.)).unwrap().weights
    };
    assert_close(
        "worked",
        &allocated([0.5, 0.2, 0.9, 0.4]),
        &rows([0.04, 0.8, 0.004, 0.12]),
        0.,
        1e-12,
    );
    assert_close("none is free", &allocated([1.; 4]), &rows([0.; 4]), 0., 0.);
    assert_close("all are", &allocated([0.; 4]), &rows([1., 0., 0., 0.]), 0., 0.);
}

#[test]
fn usage_grows_by_writing_and_shrinks_by_freeing() {
    let read = Tensor::new(&[[[0.6, 0.4, 0., 0.], [0., 0., 1., 0.]]], &Device::Cpu).unwrap();
    let writing = write_weights(
        &rows([0.5, 0.5, 0.5, 0.]),
        &rows([0., 0.5, 0., 0.5]),
        &read,
        &rows([0.25; 4]),
        &gates(&[1., 0.5], 0.5, 0.),
    )
    .unwrap();
    assert_close("usage", &writing.usage, &rows([0.2, 0.45, 0.25, 0.5]), 0., 1e-12);
    assert_close("a shut gate", &writing.weights, &rows([0.; 4]), 0., 1e-12);
}

#[test]
fn links_lead_forward_and_backward() {
    let (n, zeros) = (3, Tensor::zeros((1, 1, 3), DType::F64, &Device::Cpu).unwrap());
    let modes = |mode: usize| {
        let at: Vec<f64> = (0..3).map(|i| if i == mode { 0. } else { -1e3 }).collect();
        Tensor::from_vec(at, (1, 1, 3), &Device::Cpu).unwrap()
    };
    let mut link = Tensor::zeros((1, n, n), DType::F64, &Device::Cpu).unwrap();
    let mut precedence = rows([0.; 3]);
    for written in [[1., 0., 0.], [0., 1., 0.], [0., 0., 0.5]] {
        let next =
            read_weights(&link, &precedence, &rows(written), &zeros, &zeros, &modes(1)).unwrap();
        (link, precedence) = (next.link, next.precedence);
    }
    let expected = Tensor::new(&[[[0f64, 0., 0.], [1., 0., 0.], [0., 0.5, 0.]]], &Device::Cpu);
    assert_close("link", &link, &expected.unwrap(), 0., 0.);
    assert_close("precedence", &precedence, &rows([0., 0.5, 0.5]), 0., 0.);
    let slot = |i: usize| {
        let at: Vec<f64> = (0..n).map(|j| f64::from(i == j)).collect();
        Tensor::from_vec(at, (1, 1, n), &Device::Cpu).unwrap()
    };
    let none = rows([0.; 3]);
    let go = |from: usize, mode: usize| {
        read_weights(&link, &precedence, &none, &slot(from), &zeros, &modes(mode)).unwrap().weights
    };
    assert_close("forward", &go(0, 2), &slot(1), 0., 0.);
    assert_close("backward", &go(1, 0), &slot(0), 0., 0.);
}

#[test]
fn hostile_operands_give_finite_weights_and_gradients() {
    for value in [-1e4f64, -20., 0., 20., 1e4] {
        let mut x = content_operands(1, 8, 4, 1);
        x[0] = x[0].zeros_like().unwrap();
        x[2] = x[2].affine(0., value).unwrap();
        let mut y = write_operands(1, 8, 1);
        y[0] = y[0].affine(0., if value > 0. { 1. } else { 0. }).unwrap();
        y[4] = y[4].affine(0., value).unwrap();
        let mut z = read_operands(1, 8, 1);
        z[5] = z[5].affine(value, value).unwrap();
        let content =
            crate::checks::run(&x, &|x: &[Tensor]| Ok(vec![content_weights(&x[0], &x[1], &x[2])?]));
        for t in
            [content, crate::checks::run(&y, &writing), crate::checks::run(&z, &reading)].concat()
        {
            let values = t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(values.iter().all(|v| v.is_finite()), "{value}: {values:?}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let x = content_operands(2, 4, 3, 2);
    let error = content_weights(&x[0], &x[1], &waves(&[2, 3], 1., 1., DType::F64)).unwrap_err();
    assert!(error.to_string().contains("strengths (2, h), got [2, 2, 3] and [2, 3]"), "{error}");
    let mut x = write_operands(2, 4, 1);
    x[4] = waves(&[2, 4], 1., 1., DType::F64);
    let error = writing(&x).unwrap_err().to_string();
    assert!(error.contains("[2, 3]]") && error.contains("[2, 4]]"), "{error}");
    let mut x = read_operands(2, 4, 1);
    x[0] = waves(&[2, 4, 5], 1., 1., DType::F64);
    assert!(reading(&x).unwrap_err().to_string().contains("[2, 4, 5]"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bounds_hold_over_many_steps(n in 1usize..7, r in 1usize..3, phase in 0f64..9.) {
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F64, &Device::Cpu).unwrap();
        let (mut usage, mut written) = (zeros(&[1, n]), zeros(&[1, n]));
        let (mut link, mut precedence) = (zeros(&[1, n, n]), zeros(&[1, n]));
        let mut read = zeros(&[1, r, n]);
        for t in 0..12 {
            let at = phase + t as f64;
            let softly = |dims: &[usize], at| softmax(&waves(dims, at, 3., DType::F64)).unwrap();
            let gates = waves(&[1, r + 2], at, 3., DType::F64);
            let w = write_weights(&usage, &written, &read, &softly(&[1, n], at), &gates).unwrap();
            let modes = waves(&[1, r, 3], 2. * at, 3., DType::F64);
            let content = softly(&[1, r, n], 3. * at);
            let x = read_weights(&link, &precedence, &w.weights, &read, &content, &modes).unwrap();
            (usage, written) = (w.usage, w.weights);
            (link, precedence, read) = (x.link, x.precedence, x.weights);
            let most = |t: &Tensor| t.max_all().unwrap().to_scalar::<f64>().unwrap();
            let least = |t: &Tensor| t.min_all().unwrap().to_scalar::<f64>().unwrap();
            let sums = [
                link.sum(1).unwrap(), link.sum(2).unwrap(), precedence.sum(1).unwrap(),
                written.sum(1).unwrap(), read.sum(2).unwrap(), usage.clone(),
            ];
            prop_assert!(sums.iter().all(|s| most(s) <= 1. + 1e-12));
            prop_assert!([&link, &usage, &read, &written].iter().all(|t| least(t) >= -1e-12));
        }
    }

    #[test]
    fn slots_have_no_names(n in 2usize..8, by in 1usize..7) {
        let roll = |t: &Tensor, dim: usize| t.roll((by % n) as i32, dim).unwrap();
        let x = write_operands(1, n, 2);
        let rolled = [roll(&x[0], 1), roll(&x[1], 1), roll(&x[2], 2), roll(&x[3], 1), x[4].clone()];
        for (a, b) in writing(&x).unwrap().iter().zip(writing(&rolled).unwrap()) {
            assert_close("writing", &b, &roll(a, 1), 1e-12, 1e-12);
        }
        let x = read_operands(1, n, 2);
        let rolled = [
            roll(&roll(&x[0], 1), 2), roll(&x[1], 1), roll(&x[2], 1), roll(&x[3], 2), roll(&x[4], 2),
            x[5].clone(),
        ];
        let (a, b) = (reading(&x).unwrap(), reading(&rolled).unwrap());
        assert_close("link", &b[0], &roll(&roll(&a[0], 1), 2), 1e-12, 1e-12);
        assert_close("weights", &b[2], &roll(&a[2], 2), 1e-12, 1e-12);
    }
}
