//! The fused path against the plain twin, and both against finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

type Attention = fn(&Tensor, &Tensor, &Tensor, Option<&Tensor>, bool) -> Result<(Tensor, Tensor)>;

const NAMES: [&str; 5] = ["weights", "output", "query", "keys", "values"];

/// A mask with every third place cut out, and the second row wholly.
fn mask(b: usize, n: usize) -> Tensor {
    let kept = |i: usize| u8::from(i % 3 != 1 && i / n != 1);
    Tensor::from_vec((0..b * n).map(kept).collect::<Vec<u8>>(), (b, n), &Device::Cpu).unwrap()
}

fn operands(b: usize, n: usize, d: usize, d_v: usize, dtype: DType) -> [Tensor; 3] {
    [
        waves(&[b, d], 1., 0.8, dtype),
        waves(&[b, n, d], 2., 0.8, dtype),
        waves(&[b, n, d_v], 3., 0.8, dtype),
    ]
}

fn content(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    linear: bool,
) -> Result<(Tensor, Tensor)> {
    let read = content_attention(q, k, v, Content { mask, linear, absent: None })?;
    Ok((read.weights, read.output))
}

fn plain_content(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    linear: bool,
) -> Result<(Tensor, Tensor)> {
    let read = plain::content_attention(q, k, v, Content { mask, linear, absent: None })?;
    Ok((read.weights, read.output))
}

/// A scalar that weights and output enter with their own factors.
fn probe((weights, output): &(Tensor, Tensor)) -> Result<Tensor> {
    let weigh = |t: &Tensor, seed| t.mul(&waves(t.dims(), seed, 1., t.dtype()))?.sum_all();
    weigh(weights, 0.5)? + weigh(output, 0.9)?
}

/// Weights, output, and the gradients of the operands.
fn run(f: Attention, x: &[Tensor; 3], mask: Option<&Tensor>, linear: bool) -> Vec<Tensor> {
    let x: Vec<Var> = x.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let y = f(&x[0], &x[1], &x[2], mask, linear).unwrap();
    let grads = probe(&y).unwrap().backward().unwrap();
    let mut all = vec![y.0, y.1];
    all.extend(x.iter().map(|v| grads.get(v).unwrap().clone()));
    all
}

fn compare(x: &[Tensor; 3], mask: Option<&Tensor>, tolerance: f64) {
    for linear in [false, true] {
        let fast = run(content, x, mask, linear);
        let slow = run(plain_content, x, mask, linear);
        for (name, (a, b)) in NAMES.iter().zip(fast.iter().zip(&slow)) {
            let name = format!("{name}, keys {:?}, linear {linear}", x[1].dims());
            assert_close(&name, a, b, tolerance, tolerance);
        }
    }
}

#[test]
fn fused_equals_plain() {
    for (b, n, d, d_v) in
        [(1, 1, 1, 1), (3, 5, 20, 20), (2, 63, 65, 7), (4, 17, 16, 33), (2, 3, 1000, 256)]
    {
        let mask = mask(b, n);
        for mask in [None, Some(&mask)] {
            compare(&operands(b, n, d, d_v, DType::F64), mask, 1e-11);
            compare(&operands(b, n, d, d_v, DType::F32), mask, 3e-5);
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for (b, n, d, d_v) in
        [(1, 1, 1, 1), (3, 5, 20, 20), (2, 63, 65, 7), (4, 17, 16, 33), (2, 3, 1000, 300)]
    {
        let x = operands(b, n, d, d_v, DType::F32);
        let (places, absent) = (mask(b, n), [0.7, f64::NEG_INFINITY, -0.2, 3.]);
        for (mask, linear, absent) in [
            (None, false, None),
            (Some(&places), false, None),
            (None, true, None),
            (Some(&places), true, None),
            (Some(&places), false, Some(&absent[..b])),
        ] {
            let all = |read: Addressed| vec![read.scores, read.weights, read.output];
            let fast = |x: &[Tensor]| {
                let mask = mask.map(|m| m.to_device(x[0].device())).transpose()?;
                let options = Content { mask: mask.as_ref(), linear, absent };
                Ok(all(content_attention(&x[0], &x[1], &x[2], options)?))
            };
            let slow = |x: &[Tensor]| {
                let options = Content { mask, linear, absent };
                Ok(all(plain::content_attention(&x[0], &x[1], &x[2], options)?))
            };
            let test = format!("content::cuda {b} {n} {d} {d_v} {linear}");
            agree(&test, &x, fast, slow);
            // One result in use.
            agree(&test, &x, |x| Ok(fast(x)?.split_off(2)), |x| Ok(slow(x)?.split_off(2)));
            if d < 100 {
                agree_in_half(&test, 3, &x, fast, slow);
            }
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda_masked_places_may_hold_anything() {
    let (mask, x) = (mask(3, 5), operands(3, 5, 20, 20, DType::F32));
    let poison = Tensor::full(f32::NAN, (3, 5, 20), &Device::Cpu).unwrap();
    let wide = mask.unsqueeze(2).unwrap().broadcast_as((3, 5, 20)).unwrap();
    let poisoned = [1, 2].map(|i: usize| wide.where_cond(&x[i], &poison).unwrap());
    let poisoned = [x[0].clone(), poisoned[0].clone(), poisoned[1].clone()];
    for place in crate::cuda::tests::places("content::cuda_masked_places_may_hold_anything") {
        for linear in [false, true] {
            let all = |x: &[Tensor]| {
                place.run(|device| {
                    crate::cuda::tests::run(device, x, &|x: &[Tensor]| {
                        let mask = mask.to_device(x[0].device())?;
                        let (p, o) = content(&x[0], &x[1], &x[2], Some(&mask), linear)?;
                        Ok(vec![p, o])
                    })
                })
            };
            for (name, (a, b)) in NAMES.iter().zip(all(&poisoned).iter().zip(&all(&x))) {
                assert_close(name, a, b, 0., 0.);
            }
        }
    }
}

#[test]
fn gradients() {
    let mask = mask(3, 4);
    let [q, k, v] = operands(3, 4, 3, 5, DType::F64);
    for mask in [None, Some(&mask)] {
        for linear in [false, true] {
            check_gradients(
                &[("query", q.clone()), ("keys", k.clone()), ("values", v.clone())],
                1e-7,
                |x| probe(&content(&x[0], &x[1], &x[2], mask, linear)?),
            );
        }
    }
    // One result in use, and one operand trained; the memory its own value.
    check_gradients(&[("query", q.clone()), ("keys", k.clone())], 1e-7, |x| {
        content(&x[0], &x[1], &v, None, false)?.0.exp()?.sum_all()
    });
    check_gradients(&[("values", v.clone())], 1e-7, |x| {
        content(&q, &k, &x[0], Some(&mask), false)?.1.exp()?.sum_all()
    });
    check_gradients(&[("memory", k.clone())], 1e-7, |x| {
        probe(&content(&q, &x[0], &x[0], None, false)?)
    });
}

#[test]
fn absent_places_and_scores() {
    let (mask, absent) = (mask(3, 4), [f64::NEG_INFINITY, 0.7, -0.2]);
    let x = operands(3, 4, 3, 5, DType::F64);
    for mask in [None, Some(&mask)] {
        let options = Content { mask, absent: Some(&absent), ..Content::default() };
        let probe = |read: &Addressed| {
            probe(&(read.weights.clone(), read.output.clone()))? + read.scores.sin()?.sum_all()?
        };
        let fast = content_attention(&x[0], &x[1], &x[2], options).unwrap();
        let slow = plain::content_attention(&x[0], &x[1], &x[2], options).unwrap();
        assert_close("weights", &fast.weights, &slow.weights, 1e-12, 1e-12);
        assert_close("output", &fast.output, &slow.output, 1e-12, 1e-12);
        assert_close("scores", &fast.scores, &slow.scores, 1e-12, 1e-12);
        let named = ["query", "keys", "values"].into_iter().zip(x.clone()).collect::<Vec<_>>();
        check_gradients(&named, 1e-7, |x| probe(&content_attention(&x[0], &x[1], &x[2], options)?));
    }
    let two = Content { absent: Some(&absent[..2]), ..Content::default() };
    let error = content_attention(&x[0], &x[1], &x[2], two).unwrap_err().to_string();
    assert!(error.contains("2 absent scores for a batch of 3"), "{error}");
}

#[test]
fn worked_numbers_of_the_paper_page() {
    let query = Tensor::new(&[[1f64, 0.5]], &Device::Cpu).unwrap();
    let keys = Tensor::new(&[[[1f64, 0.], [0., 1.], [1., 1.]]], &Device::Cpu).unwrap();
    let values = Tensor::new(&[[[2f64, 0.], [0., 2.], [1., -1.]]], &Device::Cpu).unwrap();
    let (p, o) = content(&query, &keys, &values, None, false).unwrap();
    let expected = Tensor::new(&[[0.307196, 0.186324, 0.506480]], &Device::Cpu).unwrap();
    assert_close("weights", &p, &expected, 0., 1e-6);
    let expected = Tensor::new(&[[1.120872, -0.133833]], &Device::Cpu).unwrap();
    assert_close("output", &o, &expected, 0., 1e-6);
    let (_, o) = content(&query, &keys, &values, None, true).unwrap();
    assert_close("linear", &o, &Tensor::new(&[[3.5, -0.5]], &Device::Cpu).unwrap(), 0., 1e-12);
}

#[test]
fn strided_operands() {
    let q = waves(&[5, 3], 1., 0.8, DType::F64).t().unwrap();
    let k = waves(&[7, 3, 5], 2., 0.8, DType::F64).transpose(0, 1).unwrap();
    let v = waves(&[3, 6, 7], 3., 0.8, DType::F64).transpose(1, 2).unwrap();
    let mask = mask(7, 3).t().unwrap();
    let fast = content(&q, &k, &v, Some(&mask), false).unwrap();
    let v = v.contiguous().unwrap();
    let slow = plain_content(&q, &k, &v, Some(&mask), false).unwrap();
    assert_close("weights", &fast.0, &slow.0, 1e-12, 1e-12);
    assert_close("output", &fast.1, &slow.1, 1e-12, 1e-12);
}

#[test]
fn masked_places_may_hold_anything() {
    let (b, n, d) = (3, 5, 20);
    let mask = mask(b, n);
    let x = operands(b, n, d, d, DType::F32);
    let poison = Tensor::full(f32::NAN, (b, n, d), &Device::Cpu).unwrap();
    let wide = mask.unsqueeze(2).unwrap().broadcast_as((b, n, d)).unwrap();
    let poisoned = [1, 2].map(|i: usize| wide.where_cond(&x[i], &poison).unwrap());
    let poisoned = [x[0].clone(), poisoned[0].clone(), poisoned[1].clone()];
    for linear in [false, true] {
        for f in [content as Attention, plain_content] {
            let (clean, dirty) =
                (run(f, &x, Some(&mask), linear), run(f, &poisoned, Some(&mask), linear));
            for (name, (a, b)) in NAMES.iter().zip(dirty.iter().zip(&clean)) {
                assert_close(name, a, b, 0., 0.);
            }
        }
    }
    let all = run(content, &poisoned, Some(&mask), false);
    assert!(all[0].get(1).unwrap().to_vec1::<f32>().unwrap().iter().all(|x| *x == 0.));
    assert!(all[1].get(1).unwrap().to_vec1::<f32>().unwrap().iter().all(|x| *x == 0.));
}

#[test]
fn hostile_values() {
    for scale in [1e4, 1e-40] {
        let x = operands(2, 9, 20, 5, DType::F32).map(|t| (t * scale).unwrap());
        let (p, o) = content(&x[0], &x[1], &x[2], None, false).unwrap();
        let sums = p.sum(1).unwrap();
        assert_close("sums", &sums, &sums.ones_like().unwrap(), 0., 1e-5);
        let all = run(content, &x, None, false);
        for t in all.iter().chain([&o]) {
            assert!(
                t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_finite())
            );
        }
    }
}

#[test]
fn bits_depend_on_neither_threads_nor_level() {
    let x = operands(37, 50, 65, 20, DType::F32);
    let mask = mask(37, 50);
    let all = || run(content, &x, Some(&mask), false);
    same_for_threads(all);
    same_for_levels(all);
}

#[test]
fn empty_memories_and_wrong_shapes() {
    for (b, n) in [(0, 3), (2, 0)] {
        let [q, k, v] = operands(b, n, 4, 5, DType::F32);
        let (p, o) = content(&q, &k, &v, None, false).unwrap();
        assert_eq!((p.dims(), o.dims()), ([b, n].as_slice(), [b, 5].as_slice()));
    }
    let [q, k, v] = operands(2, 3, 4, 5, DType::F32);
    let error = |q: &Tensor, v: &Tensor, m: Option<&Tensor>| {
        content(q, &k, v, m, false).unwrap_err().to_string()
    };
    let short = q.narrow(1, 0, 3).unwrap();
    assert!(error(&short, &v, None).contains("expected the query (2, 4), got [2, 3]"));
    let short = v.narrow(1, 0, 2).unwrap();
    assert!(error(&q, &short, None).contains("expected values (2, 3, d_v), got [2, 2, 5]"));
    assert!(error(&q, &v, Some(&q)).contains("the mask (2, 3) of U8, got [2, 4] of F32"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn fused_equals_plain_at_random(
        b in 1usize..5, n in 1usize..40, d in 1usize..40, d_v in 1usize..40, masked: bool,
    ) {
        let mask = mask(b, n);
        compare(&operands(b, n, d, d_v, DType::F64), masked.then_some(&mask), 1e-11);
    }
}
