use candle_core::{DType, Device, Tensor};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits};

const NAMES: [&str; 9] =
    ["sentences", "keys", "initial", "state", "key", "input", "bias", "slopes", "gate_bias"];

fn operands(b: usize, n: usize, m: usize, d: usize, dtype: DType) -> Vec<Tensor> {
    let shapes: [&[usize]; 9] =
        [&[b, n, d], &[m, d], &[m, d], &[d, d], &[d, d], &[d, d], &[d], &[d], &[m]];
    let scale = |i: usize| if (3..6).contains(&i) { 1.5 / (d as f64).sqrt() } else { 0.7 };
    shapes.iter().enumerate().map(|(i, s)| waves(s, 2.9 * i as f64, scale(i), dtype)).collect()
}

fn weights(x: &[Tensor]) -> EntityWeights<'_> {
    EntityWeights {
        state: &x[3],
        key: &x[4],
        input: &x[5],
        bias: &x[6],
        slopes: &x[7],
        gate_bias: x.get(8),
    }
}

type Scan = fn(&[Tensor], Option<&[usize]>) -> Result<Vec<Tensor>>;

fn fused(x: &[Tensor], lengths: Option<&[usize]>) -> Result<Vec<Tensor>> {
    let scan = entity_scan(&x[0], &x[1], &x[2], weights(x), lengths)?;
    Ok(vec![scan.state, scan.gates])
}

fn plain(x: &[Tensor], lengths: Option<&[usize]>) -> Result<Vec<Tensor>> {
    let (b, n, _) = x[0].dims3()?;
    let full = vec![n; b];
    let lengths = lengths.unwrap_or(&full);
    let scan = plain::entity_scan(&x[0], &x[1], &x[2], weights(x), lengths)?;
    Ok(vec![scan.state, scan.gates])
}

/// Lengths from 0 to `n`.
fn mixed(b: usize, n: usize) -> Vec<usize> {
    (0..b).map(|i| (i * 3 + 1) % (n + 1)).collect()
}

#[test]
fn fused_equals_plain_on_awkward_sizes() {
    for (b, n, m, d) in [(1, 1, 1, 1), (3, 4, 5, 7), (2, 3, 20, 16), (5, 3, 3, 33), (2, 2, 25, 65)]
    {
        let x = operands(b, n, m, d, DType::F64);
        agree(&x, |x| fused(x, None), |x| plain(x, None));
        let lengths = mixed(b, n);
        agree(&x, |x| fused(x, Some(&lengths)), |x| plain(x, Some(&lengths)));
        agree(&x[..8], |x| fused(x, Some(&lengths)), |x| plain(x, Some(&lengths)));
    }
}

#[test]
fn many_sentences_are_read_in_blocks() {
    // More slots than a block of the gradient of U, and groups of rows of different lengths.
    let x = operands(3, 70, 20, 9, DType::F64);
    agree(&x, |x| fused(x, Some(&[70, 0, 33])), |x| plain(x, Some(&[70, 0, 33])));
    let x = operands(7, 40, 5, 9, DType::F64);
    let lengths = [3, 40, 0, 39, 17, 1, 24];
    agree(&x, |x| fused(x, Some(&lengths)), |x| plain(x, Some(&lengths)));
}

#[test]
fn gradients() {
    let x: Vec<_> = NAMES.into_iter().zip(operands(3, 3, 2, 3, DType::F64)).collect();
    let probe = |y: &Tensor, seed| y.mul(&waves(y.dims(), seed, 1., DType::F64))?.sum_all();
    check_gradients(&x, 1e-7, |x| {
        let y = fused(x, Some(&[3, 1, 2]))?;
        probe(&y[0], 0.3)? + probe(&y[1], 0.8)?
    });
    // Each result alone.
    for k in 0..2 {
        check_gradients(&x, 1e-7, |x| probe(&fused(x, None)?[k], 0.3));
    }
}

#[test]
fn one_tensor_may_be_keys_and_initial_states() {
    let x = operands(2, 3, 4, 5, DType::F64);
    let run = |f: Scan, x: &[Tensor]| {
        let mut all = x.to_vec();
        all[2] = all[1].clone();
        f(&all, None)
    };
    agree(&x, |x| run(fused, x), |x| run(plain, x));
}

#[test]
fn oracle_one_sentence() {
    let cpu = &Device::Cpu;
    let eye = Tensor::eye(2, DType::F64, cpu).unwrap();
    let ones = Tensor::ones(2, DType::F64, cpu).unwrap();
    let x = [
        Tensor::new(&[[[0.5, 0.5]]], cpu).unwrap(),
        Tensor::new(&[[0., 1.]], cpu).unwrap(),
        Tensor::new(&[[1., 0.]], cpu).unwrap(),
        eye.clone(),
        eye.clone(),
        eye,
        ones.zeros_like().unwrap(),
        ones,
    ];
    for f in [fused, plain] {
        let y = f(&x, None).unwrap();
        let expected = Tensor::new(&[[[0.886114, 0.463468]]], cpu).unwrap();
        assert_close("state", &y[0], &expected, 0., 1e-6);
        assert_close("gate", &y[1], &Tensor::new(&[[[0.731059]]], cpu).unwrap(), 0., 1e-6);
    }
    // A slot whose key and state are orthogonal to the sentence still opens half.
    let mut y = x.to_vec();
    y[0] = Tensor::new(&[[[0., 0.5]]], cpu).unwrap();
    y[1] = y[2].clone();
    assert_eq!(fused(&y, None).unwrap()[1].flatten_all().unwrap().to_vec1::<f64>().unwrap(), [0.5]);
}

#[test]
fn states_have_norm_one() {
    let x = operands(4, 6, 7, 20, DType::F64);
    let norms = fused(&x, None).unwrap()[0].sqr().unwrap().sum(2).unwrap();
    assert_close("norms", &norms, &norms.ones_like().unwrap(), 0., 1e-12);
}

#[test]
fn permuted_slots_give_permuted_results() {
    let mut x = operands(3, 5, 6, 10, DType::F64);
    let order = Tensor::new(&[4u32, 0, 5, 2, 1, 3], &Device::Cpu).unwrap();
    let before = fused(&x, None).unwrap();
    for i in [1, 2, 8] {
        x[i] = x[i].index_select(&order, 0).unwrap();
    }
    let after = fused(&x, None).unwrap();
    assert_close("states", &after[0], &before[0].index_select(&order, 1).unwrap(), 0., 1e-14);
    assert_close("gates", &after[1], &before[1].index_select(&order, 2).unwrap(), 0., 1e-14);
}

#[test]
fn closed_gates_leave_unit_states() {
    let mut x = operands(2, 3, 4, 5, DType::F64);
    let norms = x[2].sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap();
    x[2] = x[2].broadcast_div(&norms).unwrap();
    x[8] = (x[8].zeros_like().unwrap() - 1e4).unwrap();
    let y = fused(&x, None).unwrap();
    assert_close("states", &y[0], &x[2].broadcast_as((2, 4, 5)).unwrap(), 0., 1e-14);
    assert!(y[1].flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().all(|g| *g == 0.));
}

#[test]
fn padding_has_no_effect_even_when_poisoned() {
    let lengths = [2, 4, 0, 1];
    for f in [fused, plain] {
        let mut x = operands(4, 4, 3, 6, DType::F32);
        let clean = crate::checks::run(&x, &|x: &[Tensor]| f(x, Some(&lengths)));
        let mut xs = x[0].to_vec3::<f32>().unwrap();
        for (row, &n) in xs.iter_mut().zip(&lengths) {
            row[n..].iter_mut().for_each(|s| s.fill(f32::NAN));
        }
        x[0] = Tensor::new(xs, &Device::Cpu).unwrap();
        let poisoned = crate::checks::run(&x, &|x: &[Tensor]| f(x, Some(&lengths)));
        for (k, (a, b)) in poisoned.iter().zip(&clean).enumerate() {
            assert_close(&format!("tensor {k}"), a, b, 0., 0.);
        }
        // A row without sentences keeps the initial state, to the last bit.
        assert_close("state", &clean[0].get(2).unwrap(), &x[2], 0., 0.);
        // More padding changes nothing either.
        x[0] = x[0].pad_with_zeros(1, 0, 3).unwrap();
        let wider = f(&x, Some(&lengths)).unwrap();
        assert_close("wider state", &wider[0], &clean[0], 0., 0.);
        assert_close("wider gates", &wider[1].narrow(1, 0, 4).unwrap(), &clean[1], 0., 0.);
    }
}

#[test]
fn results_are_the_same_without_a_backward_pass() {
    let x = operands(5, 6, 7, 18, DType::F32);
    let lengths = mixed(5, 6);
    let tracked = crate::checks::run(&x, &|x: &[Tensor]| fused(x, Some(&lengths)));
    for (k, y) in fused(&x, Some(&lengths)).unwrap().iter().enumerate() {
        assert_close(&format!("result {k}"), y, &tracked[k], 0., 0.);
    }
}

#[test]
fn non_contiguous_operands() {
    let mut x = operands(3, 4, 5, 6, DType::F64);
    x[0] = waves(&[4, 3, 6], 1., 0.7, DType::F64).transpose(0, 1).unwrap();
    x[1] = waves(&[6, 5], 1., 0.7, DType::F64).t().unwrap();
    x[3] = x[3].t().unwrap();
    let (fast, slow) = (fused(&x, None).unwrap(), plain(&x, None).unwrap());
    assert_close("states", &fast[0], &slow[0], 1e-12, 1e-12);
    assert_close("gates", &fast[1], &slow[1], 1e-12, 1e-12);
}

#[test]
fn bits_do_not_depend_on_threads() {
    let lengths = mixed(33, 9);
    same_bits(&operands(33, 9, 20, 40, DType::F32), |x| fused(x, Some(&lengths)));
    same_bits(&operands(33, 9, 5, 20, DType::F32), |x| fused(x, Some(&lengths)));
}

#[test]
fn states_of_norm_zero_stay_zero_without_gradient() {
    for f in [fused, plain] {
        let mut x = operands(2, 3, 4, 5, DType::F64);
        for i in [2, 3, 4, 5, 6] {
            x[i] = x[i].zeros_like().unwrap();
        }
        for (k, t) in crate::checks::run(&x, &|x: &[Tensor]| f(x, None)).iter().enumerate() {
            let all = t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(all.iter().all(|v| v.is_finite()), "tensor {k}");
            assert!(k != 0 || all.iter().all(|v| *v == 0.), "state");
            // The candidates' weights get none (the gates' gradient comes by another way).
            assert!(![5, 6, 7, 8].contains(&k) || all.iter().all(|v| *v == 0.), "tensor {k}");
        }
    }
}

#[test]
fn hostile_values_give_numbers() {
    for scale in [1e4, 1e-40] {
        let mut x = operands(3, 4, 5, 6, DType::F32);
        x[0] = (&x[0] * scale).unwrap();
        x[2] = (&x[2] * scale).unwrap();
        for (k, t) in crate::checks::run(&x, &|x: &[Tensor]| fused(x, None)).iter().enumerate() {
            let all = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(all.iter().all(|v| v.is_finite()), "tensor {k} at {scale}");
        }
    }
}

#[test]
fn empty_batches_and_stories() {
    for (b, n, m) in [(0, 3, 2), (2, 0, 3), (2, 3, 0)] {
        let y = fused(&operands(b, n, m, 4, DType::F32), None).unwrap();
        assert_eq!((y[0].dims(), y[1].dims()), ([b, m, 4].as_slice(), [b, n, m].as_slice()));
    }
    let x = operands(2, 0, 3, 4, DType::F32);
    let state = &fused(&x, None).unwrap()[0];
    assert_close("state", state, &x[2].broadcast_as((2, 3, 4)).unwrap(), 0., 0.);
}

#[test]
fn wrong_shapes_are_named() {
    let message = |place: usize, shape: &[usize], lengths: Option<&[usize]>| {
        let mut x = operands(2, 3, 4, 5, DType::F32);
        x[place] = waves(shape, 0., 1., DType::F32);
        fused(&x, lengths).unwrap_err().to_string()
    };
    assert!(message(1, &[4, 6], None).contains("expected keys [4, 5], got [4, 6]"));
    assert!(message(2, &[3, 5], None).contains("expected initial [4, 5], got [3, 5]"));
    assert!(message(3, &[5, 4], None).contains("expected state [5, 5], got [5, 4]"));
    assert!(message(7, &[1], None).contains("expected slopes [5], got [1]"));
    assert!(message(8, &[5], None).contains("expected gate_bias [4], got [5]"));
    assert!(message(8, &[4], Some(&[1])).contains("1 lengths for a batch of 2"));
    assert!(message(8, &[4], Some(&[1, 4])).contains("length 4 exceeds the 3 sentences"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn fused_equals_plain(
        b in 1usize..6, n in 1usize..6, m in 1usize..9, d in 1usize..20, seed in 0usize..1000,
    ) {
        let lengths: Vec<usize> = (0..b).map(|i| (seed / (i + 1)) % (n + 1)).collect();
        let x = operands(b, n, m, d, DType::F64);
        let (fast, slow) = (fused(&x, Some(&lengths)).unwrap(), plain(&x, Some(&lengths)).unwrap());
        assert_close("states", &fast[0], &slow[0], 1e-11, 1e-11);
        assert_close("gates", &fast[1], &slow[1], 1e-11, 1e-11);
    }
}
