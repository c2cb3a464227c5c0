//! The fused path against the plain twin and finite differences.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::activation::tanh;
use crate::checks::{agree, same_bits};

fn operands(x: &[usize], o: usize) -> [Tensor; 3] {
    let i = x[x.len() - 1];
    let wave = |dims: &[usize], seed| waves(dims, seed, 1., DType::F64);
    [wave(x, 1.), wave(&[o, i], 2.), wave(&[o], 3.)]
}

fn compare(x: &[usize], o: usize) {
    let all = operands(x, o);
    agree(
        &all,
        |t| Ok(vec![linear(&t[0], &t[1], Some(&t[2]))?]),
        |t| Ok(vec![plain::linear(&t[0], &t[1], Some(&t[2]))?]),
    );
    agree(
        &all[..2],
        |t| Ok(vec![linear(&t[0], &t[1], None)?]),
        |t| Ok(vec![plain::linear(&t[0], &t[1], None)?]),
    );
    // The weight as a transposed view.
    let turned = [all[0].clone(), all[1].t().unwrap().contiguous().unwrap(), all[2].clone()];
    agree(
        &turned,
        |t| Ok(vec![linear(&t[0], &t[1].t()?, Some(&t[2]))?]),
        |t| Ok(vec![plain::linear(&t[0], &t[1].t()?, Some(&t[2]))?]),
    );
    agree(
        &turned[..2],
        |t| Ok(vec![linear(&t[0], &t[1].t()?, None)?]),
        |t| Ok(vec![plain::linear(&t[0], &t[1].t()?, None)?]),
    );
}

#[test]
fn fused_equals_plain() {
    for (x, o) in [
        (&[1, 1][..], 1),
        (&[3], 5),
        (&[2, 3, 65], 63),
        (&[63, 1], 65),
        (&[1000, 7], 3),
        (&[0, 4], 3),
        (&[4, 3], 0),
        (&[2, 0, 3], 2),
        // Wide enough for the weight's gradient to be computed transposed.
        (&[1100, 17], 243),
        // So few rows that the weights are read as they lie.
        (&[1, 64], 64),
        (&[1, 67], 1100),
        (&[2, 1, 1], 5000),
        (&[8, 130], 65),
        (&[3, 5000], 2),
        // Few enough for the input to be packed instead.
        (&[9, 64], 65),
        (&[3, 11, 385], 200),
        (&[96, 67], 1100),
        (&[97, 67], 1100),
    ] {
        compare(x, o);
    }
}

/// With a weight laid out in panels, to which no gradient goes.
fn compare_panels(x: &[usize], o: usize) {
    let [x, weight, bias] = operands(x, o);
    let panels = |like: &Tensor| Panels::new(&weight.to_dtype(like.dtype())?);
    let map = |like: &Tensor, x: &Tensor, bias: Option<&Tensor>| {
        panels(like)?.expect("panels of floats on the CPU").forward(x, bias)
    };
    let weight = |like: &Tensor| weight.to_dtype(like.dtype());
    agree(
        &[x.clone(), bias],
        |t| Ok(vec![map(&t[0], &t[0], Some(&t[1]))?]),
        |t| Ok(vec![plain::linear(&t[0], &weight(&t[0])?, Some(&t[1]))?]),
    );
    agree(
        &[x],
        |t| Ok(vec![map(&t[0], &t[0], None)?]),
        |t| Ok(vec![plain::linear(&t[0], &weight(&t[0])?, None)?]),
    );
}

#[test]
fn panels_equal_plain() {
    for (x, o) in [
        (&[1, 1][..], 1),
        (&[5], 70),
        (&[2, 3, 65], 63),
        (&[63, 1], 65),
        (&[0, 4], 3),
        (&[2, 12, 300], 100),
        // Columns shared out among threads; rows.
        (&[30, 70], 1100),
        (&[500, 70], 97),
    ] {
        compare_panels(x, o);
    }
}

#[test]
fn rows_in_panels_depend_on_no_other_row() {
    let [x, weight, bias] = operands(&[301, 67], 1100).map(|t| t.to_dtype(DType::F32).unwrap());
    let panels = Panels::new(&weight).unwrap().unwrap();
    same_bits(&[x.clone(), bias.clone()], |t| Ok(vec![panels.forward(&t[0], Some(&t[1]))?]));
    let all = panels.forward(&x, Some(&bias)).unwrap();
    for (from, count) in [(0, 1), (7, 25), (290, 11)] {
        let some = panels.forward(&x.narrow(0, from, count).unwrap(), Some(&bias)).unwrap();
        let expected = all.narrow(0, from, count).unwrap();
        assert_eq!(some.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
    }
}

#[test]
fn panels_are_for_weights_that_stay() {
    let [x, weight, _] = operands(&[3, 4], 5);
    let var = Var::from_tensor(&weight).unwrap();
    assert!(Panels::new(&var).unwrap().is_none());
    assert!(Panels::new(&weight.to_dtype(DType::F16).unwrap()).unwrap().is_none());
    assert!(Panels::new(&weight.narrow(0, 0, 0).unwrap()).unwrap().is_none());
    let panels = Panels::new(&weight).unwrap().unwrap();
    let error = panels.forward(&x.narrow(1, 0, 3).unwrap(), None).unwrap_err().to_string();
    assert!(error.contains("expected input (…, 4) and bias (5), got [3, 3]"), "{error}");
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for (x, o) in [
        (&[1usize, 1] as &[usize], 1),
        (&[3], 5),
        (&[2, 3, 65], 63),
        (&[63, 1], 65),
        (&[100, 80], 240),
        (&[2100, 7], 9),
    ] {
        let all = operands(x, o);
        let test = format!("linear::cuda {x:?} {o}");
        let fused = |t: &[Tensor]| Ok(vec![linear(&t[0], &t[1], t.get(2))?]);
        let plain = |t: &[Tensor]| Ok(vec![plain::linear(&t[0], &t[1], t.get(2))?]);
        agree(&test, &all, fused, plain);
        agree(&test, &all[..2], fused, plain);
        agree_in_half(&test, 1, &all, fused, plain);
        let (fused, twin) = (column_sum, plain::column_sum);
        let sum = |t: &[Tensor]| Ok(vec![fused(&t[0])?]);
        agree(&format!("{test} columns"), &all[..1], sum, |t| Ok(vec![twin(&t[0])?]));
    }
}

#[test]
fn without_input_features_the_bias_is_left() {
    let [xs, weight, bias] = operands(&[4, 0], 3);
    let y = linear(&xs, &weight, Some(&bias)).unwrap();
    assert_eq!(y.to_vec2::<f64>().unwrap(), vec![bias.to_vec1::<f64>().unwrap(); 4]);
    let y = linear(&xs, &weight, None).unwrap();
    assert_eq!(y.to_vec2::<f64>().unwrap(), vec![vec![0.; 3]; 4]);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let [xs, weight, bias] = operands(&[2, 3, 4], 5);
    check_gradients(&[("xs", xs), ("weight", weight), ("bias", bias)], 1e-8, |t| {
        linear(&t[0], &t[1], Some(&t[2]))?.sqr()?.sum_all()
    });
    check_gradients(&[("xs", waves(&[3, 2, 4], 1., 1., DType::F64))], 1e-8, |t| {
        column_sum(&t[0])?.sqr()?.sum_all()
    });
}

/// The ways of few rows, of some dozens and of weights in panels.
#[test]
fn gradients_beside_large_weights_agree_with_finite_differences() {
    for rows in [2, 9] {
        let [xs, weight, bias] = operands(&[rows, 64], 65);
        let named = [("xs", xs), ("bias", bias)];
        check_gradients(&named, 1e-7, |t| linear(&t[0], &weight, Some(&t[1]))?.sqr()?.mean_all());
        let panels = Panels::new(&weight).unwrap().unwrap();
        check_gradients(&named, 1e-7, |t| panels.forward(&t[0], Some(&t[1]))?.sqr()?.mean_all());
    }
}

#[test]
fn scattered_operands_and_gradients() {
    let inputs = operands(&[6, 4], 5);
    let swap = |t: &Tensor| t.t().and_then(|t| t.contiguous()).and_then(|t| t.t());
    agree(
        &inputs,
        |t| Ok(vec![linear(&swap(&t[0])?, &swap(&t[1])?, Some(&t[2]))?.t()?]),
        |t| Ok(vec![plain::linear(&t[0], &t[1], Some(&t[2]))?.t()?]),
    );
}

#[test]
fn columns_are_summed() {
    for dims in [&[1][..], &[7], &[65, 63], &[5, 0, 3], &[3, 0], &[1000, 3], &[40, 50, 65]] {
        let xs = waves(dims, 1., 1., DType::F64);
        let (fused, twin) = (column_sum, plain::column_sum);
        agree(&[xs], |t| Ok(vec![fused(&t[0])?]), |t| Ok(vec![twin(&t[0])?]));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let inputs = operands(&[700, 80], 240).map(|t| t.to_dtype(DType::F32).unwrap());
    same_bits(&inputs, |t| Ok(vec![linear(&t[0], &t[1], Some(&t[2]))?]));
    same_bits(&inputs[..1], |t| Ok(vec![column_sum(&t[0])?]));
    for rows in [3, 30] {
        let inputs = operands(&[rows, 300], 700).map(|t| t.to_dtype(DType::F32).unwrap());
        same_bits(&inputs, |t| Ok(vec![linear(&t[0], &t[1], Some(&t[2]))?]));
    }
}

#[test]
fn only_wanted_gradients_are_computed() {
    let [xs, weight, bias] = operands(&[3, 4], 5);
    let weight = candle_core::Var::from_tensor(&weight).unwrap();
    let y = linear(&xs, &weight, Some(&bias)).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&weight).is_some() && grads.get(&xs).is_none() && grads.get(&bias).is_none());
}

#[test]
fn wrong_shapes_are_named() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    for (x, w, b) in [
        (&[2, 3][..], &[4, 2][..], &[4][..]),
        (&[2, 3], &[4, 3], &[3]),
        (&[2, 3], &[3], &[3]),
        (&[], &[4, 3], &[4]),
    ] {
        let error = linear(&zeros(x), &zeros(w), Some(&zeros(b))).unwrap_err().to_string();
        assert!(error.contains(&format!("{x:?}, {w:?}")), "{error}");
    }
    assert!(column_sum(&zeros(&[])).unwrap_err().to_string().contains("scalar"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_shapes(b in 1usize..5, t in 1usize..40, i in 1usize..70, o in 1usize..70) {
        compare(&[b, t, i], o);
    }
}

/// Weights that are used many times: their gradients are made in one product by our backward pass, one by one by candle's.
#[test]
fn gradients_of_many_uses_are_those_of_each() {
    for (rows, uses) in [(1, 5), (3, 4), (65, 2), (64, 3)] {
        let var =
            |dims: &[usize], phase| Var::from_tensor(&waves(dims, phase, 0.5, DType::F64)).unwrap();
        let (w, b, x) = (var(&[6, 6], 1.), var(&[6], 2.), var(&[rows, 6], 3.));
        let mut y = x.as_tensor().clone();
        for _ in 0..uses {
            y = tanh(&linear(&y, &w, Some(&b)).unwrap()).unwrap();
        }
        assert!(crate::only_fused(&y));
        let ones = y.ones_like().unwrap();
        let ours = crate::backward_from(&y, &ones).unwrap();
        let theirs = y.sum_all().unwrap().backward().unwrap();
        for (name, var) in [("w", &w), ("b", &b), ("x", &x)] {
            assert_close(name, ours.get(var).unwrap(), theirs.get(var).unwrap(), 1e-12, 1e-12);
        }
    }
}
