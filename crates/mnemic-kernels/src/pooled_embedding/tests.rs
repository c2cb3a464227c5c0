//! The fused path against the plain twin, and both against finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, torch_fixture, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

fn ids(shape: &[usize], v: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let ids: Vec<u32> = (0..n).map(|i| ((i * 7 + i / 3) % v) as u32).collect();
    Tensor::from_vec(ids, shape, &Device::Cpu).unwrap()
}

/// The vectors and the gradients of the table and the weights, of a loss that all vectors enter differently.
fn run(
    table: &Tensor,
    ids: &Tensor,
    weights: Option<&Tensor>,
    padding: Option<u32>,
    fast: bool,
) -> Result<Vec<Tensor>> {
    let table = Var::from_tensor(table)?;
    let weights = weights.map(Var::from_tensor).transpose()?;
    let f = if fast { pooled_embedding } else { plain::pooled_embedding };
    let y = f(&table, ids, weights.as_ref().map(|w| w.as_tensor()), padding)?;
    let grads = y.mul(&waves(y.dims(), 4., 1., y.dtype()))?.sum_all()?.backward()?;
    let vars = std::iter::once(&table).chain(&weights);
    let mut all = vec![y];
    all.extend(vars.map(|v| grads.get(v).unwrap().clone()));
    Ok(all)
}

fn compare(shape: &[usize], v: usize, d: usize, dtype: DType, tolerance: f64) {
    let (table, ids) = (waves(&[v, d], 1., 1., dtype), ids(shape, v));
    let weights = waves(&[shape[shape.len() - 1], d], 2., 1., dtype);
    for padding in [None, Some(0), Some(2)] {
        for weights in [None, Some(&weights)] {
            let fast = run(&table, &ids, weights, padding, true).unwrap();
            let slow = run(&table, &ids, weights, padding, false).unwrap();
            for (name, (a, b)) in ["vectors", "table", "weights"].iter().zip(fast.iter().zip(&slow))
            {
                let name = format!("{name}, ids {shape:?} of {v} x {d}");
                assert_close(&name, a, b, tolerance, tolerance);
            }
        }
    }
}

#[test]
fn fused_equals_plain() {
    let shapes = [vec![3, 4], vec![2, 3, 4], vec![1], vec![90, 9], vec![2, 1, 3, 5]];
    for shape in shapes {
        for d in [1, 5, 16, 20, 33, 63, 64, 65, 130] {
            for v in [3, 11, 400] {
                compare(&shape, v, d, DType::F64, 1e-12);
                compare(&shape, v, d, DType::F32, 1e-5);
            }
        }
    }
    compare(&[4, 9], 7, 1000, DType::F64, 1e-12);
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for (shape, v, d) in [
        (&[1usize] as &[usize], 1, 1),
        (&[3, 4], 11, 5),
        (&[30, 11], 23, 80),
        (&[2, 40, 9], 300, 33),
        (&[500, 3], 3, 8),
        (&[7, 5], 1000, 65),
    ] {
        let ids = ids(shape, v);
        let words = shape[shape.len() - 1];
        let x = [waves(&[v, d], 1., 1., DType::F32), waves(&[words, d], 2., 1., DType::F32)];
        for padding in [None, Some(0)] {
            let test = format!("pooled_embedding::cuda {shape:?} {v} {d} {padding:?}");
            let there = |x: &[Tensor]| ids.to_device(x[0].device());
            let fast =
                |x: &[Tensor]| Ok(vec![pooled_embedding(&x[0], &there(x)?, x.get(1), padding)?]);
            let slow =
                |x: &[Tensor]| Ok(vec![plain::pooled_embedding(&x[0], &ids, x.get(1), padding)?]);
            agree(&test, &x, fast, slow);
            agree(&test, &x[..1], fast, slow);
            agree_in_half(&test, 1, &x, fast, slow);
            let fast = |x: &[Tensor]| Ok(vec![embedding(&x[0], &there(x)?, padding)?]);
            let slow = |x: &[Tensor]| Ok(vec![plain::embedding(&x[0], &ids, padding)?]);
            agree(&format!("{test} rows"), &x[..1], fast, slow);
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda_padding_and_unknown_ids() {
    let rows = Tensor::new(&[[f32::NAN, f32::NAN], [1., 2.]], &Device::Cpu).unwrap();
    let ids = Tensor::new(&[[1u32, 0], [1, 7]], &Device::Cpu).unwrap();
    for place in crate::cuda::tests::places("pooled_embedding::cuda_padding_and_unknown_ids") {
        place.run(|device| {
            let table = Var::from_tensor(&rows.to_device(device).unwrap()).unwrap();
            let ids = ids.to_device(device).unwrap();
            let y = pooled_embedding(&table, &ids, None, Some(0)).unwrap();
            let grads = y.sum_all().unwrap().backward().unwrap();
            let y = y.to_vec2::<f32>().unwrap();
            assert!(y[0] == [1., 2.] && y[1].iter().all(|x| x.is_nan()), "{y:?}");
            let grad = grads.get(&table).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(grad, [[0.; 2], [2.; 2]]);
        });
    }
}

#[test]
fn one_row_an_id() {
    for (v, d) in [(5, 3), (11, 20), (300, 65)] {
        let table = Var::from_tensor(&waves(&[v, d], 1., 1., DType::F32)).unwrap();
        let ids = ids(&[4, 7], v);
        for padding in [None, Some(1)] {
            let fast = embedding(&table, &ids, padding).unwrap();
            let slow = plain::embedding(&table, &ids, padding).unwrap();
            assert_close("embedding", &fast, &slow, 0., 0.);
            let grad = |y: Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let (fast, slow) = (grad(fast), grad(slow));
            assert_close("table", fast.get(&table).unwrap(), slow.get(&table).unwrap(), 1e-6, 1e-6);
        }
    }
}

#[test]
fn gradients() {
    let (ids, weights) = (ids(&[2, 3, 4], 5), waves(&[4, 3], 2., 1., DType::F64));
    let probe = waves(&[2, 3, 3], 4., 1., DType::F64);
    let table = waves(&[5, 3], 1., 1., DType::F64);
    check_gradients(&[("table", table.clone())], 1e-8, |t| {
        pooled_embedding(&t[0], &ids, Some(&weights), Some(0))?.mul(&probe)?.sum_all()
    });
    check_gradients(&[("table", table.clone()), ("weights", weights.clone())], 1e-8, |t| {
        pooled_embedding(&t[0], &ids, Some(&t[1]), Some(3))?.mul(&probe)?.sum_all()
    });
    // Only the weights are trained.
    check_gradients(&[("weights", weights)], 1e-8, |t| {
        pooled_embedding(&table, &ids, Some(&t[0]), None)?.mul(&probe)?.sum_all()
    });
}

#[test]
fn strided_operands() {
    let table = waves(&[20, 11], 1., 1., DType::F64).t().unwrap();
    let weights = waves(&[20, 6], 2., 1., DType::F64).t().unwrap();
    let ids = ids(&[6, 8], 11).t().unwrap();
    let fast = pooled_embedding(&table, &ids, Some(&weights), Some(1)).unwrap();
    let slow = plain::pooled_embedding(&table, &ids.contiguous().unwrap(), Some(&weights), Some(1));
    assert_close("strided", &fast, &slow.unwrap(), 1e-12, 1e-12);
    let tail = ids.narrow(0, 3, 5).unwrap();
    let fast = embedding(&table, &tail, None).unwrap();
    let slow = plain::embedding(&table, &tail.contiguous().unwrap(), None).unwrap();
    assert_close("narrowed", &fast, &slow, 0., 0.);
}

#[test]
fn padding_reads_as_zero_whatever_it_holds() {
    for v in [4, 100] {
        let mut rows = waves(&[v, 20], 1., 1e4, DType::F32).to_vec2::<f32>().unwrap();
        let ids = Tensor::new(&[[1u32, 2, 0], [0, 0, 0], [2, 0, 1]], &Device::Cpu).unwrap();
        let weights = waves(&[3, 20], 2., 1e-40, DType::F32);
        rows[0].fill(0.);
        let clean = Tensor::new(rows.clone(), &Device::Cpu).unwrap();
        rows[0].fill(f32::NAN);
        let poisoned = Tensor::new(rows, &Device::Cpu).unwrap();
        let clean = run(&clean, &ids, Some(&weights), Some(0), true).unwrap();
        let poisoned = run(&poisoned, &ids, Some(&weights), Some(0), true).unwrap();
        for (a, b) in poisoned.iter().zip(&clean) {
            assert_close("poisoned", a, b, 0., 0.);
        }
    }
}

#[test]
fn bits_depend_on_neither_threads_nor_level() {
    for (v, d) in [(200, 20), (50_000, 65)] {
        let (table, ids) = (waves(&[v, d], 1., 1., DType::F32), ids(&[40, 50, 11], v));
        let weights = waves(&[11, d], 2., 1., DType::F32);
        let all = || run(&table, &ids, Some(&weights), Some(0), true).unwrap();
        same_for_threads(all);
        same_for_levels(all);
    }
}

#[test]
fn pytorch_embedding() {
    for name in ["embedding.f64", "embedding.f32"] {
        let Some(fixture) = torch_fixture("pytorch_embedding", name) else { return };
        let table = Var::from_tensor(&fixture["param.weight"]).unwrap();
        let ids = fixture["input"].to_dtype(DType::U32).unwrap();
        // The row of the padding id is not zeroed by PyTorch; it only gets no gradient.
        let y = embedding(&table, &ids, None).unwrap();
        assert_close(name, &y, &fixture["output"], 0., 0.);
        let padded = embedding(&table, &ids, Some(0)).unwrap();
        let loss = padded.mul(&fixture["probe.output"]).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let expected = &fixture["grad.param.weight"];
        assert_close(name, grads.get(&table).unwrap(), expected, 1e-5, 1e-6);
    }
}

#[test]
fn empty_and_wrong_ids() {
    let table = waves(&[5, 3], 1., 1., DType::F32);
    let none = Tensor::zeros((2, 0, 4), DType::U32, &Device::Cpu).unwrap();
    assert_eq!(pooled_embedding(&table, &none, None, None).unwrap().dims(), [2, 0, 3]);
    let no_words = Tensor::zeros((2, 0), DType::U32, &Device::Cpu).unwrap();
    let zeros = pooled_embedding(&table, &no_words, None, None).unwrap();
    assert_eq!(zeros.to_vec2::<f32>().unwrap(), [[0.; 3]; 2]);
    let bad = Tensor::new(&[[1u32, 5]], &Device::Cpu).unwrap();
    let error = |ids: &Tensor| pooled_embedding(&table, ids, None, None).unwrap_err().to_string();
    assert!(error(&bad).contains("id 5 is not below the table's 5 rows"), "{}", error(&bad));
    let signed = bad.to_dtype(DType::I64).unwrap();
    assert!(error(&signed).contains("expected u32 ids, got I64"), "{}", error(&signed));
    let weights = waves(&[3, 3], 1., 1., DType::F32);
    let error = pooled_embedding(&table, &none, Some(&weights), None).unwrap_err().to_string();
    assert!(error.contains("expected (4, 3) position weights, got [3, 3]"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn fused_equals_plain_at_random(
        rows in 1usize..20, words in 1usize..12, d in 1usize..80, v in 1usize..60,
    ) {
        compare(&[rows, words], v, d, DType::F64, 1e-12);
    }
}
