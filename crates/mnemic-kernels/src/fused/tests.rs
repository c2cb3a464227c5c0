use candle_core::{Device, Var};
use mnemic_testing::{assert_close, check_gradients, waves};

use super::backward::VARIABLES;
use super::graph::results;
use super::*;

/// From vectors `x_1 … x_n` of one length: their sum, `x_1 x_n`, and the sum of squares of `x_2`.
struct Toy;

impl FusedOp for Toy {
    const NAME: &'static str = "toy";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let n = x[0].data.len();
        let sum = (0..n).map(|i| x.iter().map(|v| v.data[i]).sum::<T>()).collect();
        let last = x[x.len() - 1].data;
        let product = x[0].data.iter().zip(last).map(|(a, b)| *a * *b).collect();
        let squares = x[1].data.iter().map(|a| *a * *a).sum::<T>();
        Ok((vec![(sum, vec![n]), (product, vec![n]), (vec![squares], vec![])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Backward { inputs: x, outputs, grads, wanted, .. } = pass;
        assert_eq!(outputs.len(), 3);
        let (n, last) = (x[0].data.len(), x.len() - 1);
        let at = |k: usize, i: usize| grads[k].map_or(T::ZERO, |g| g.data[i]);
        let one = |k: usize| {
            let mut d: Vec<T> = (0..n).map(|i| at(0, i)).collect();
            for (i, d) in d.iter_mut().enumerate() {
                if k == 0 {
                    *d += at(1, i) * x[last].data[i];
                }
                if k == last {
                    *d += at(1, i) * x[0].data[i];
                }
                if k == 1 {
                    *d += at(2, 0) * (x[1].data[i] + x[1].data[i]);
                }
            }
            d
        };
        Ok((0..x.len()).map(|k| wanted[k].then(|| one(k))).collect())
    }
}

fn vectors(n: usize) -> Vec<Tensor> {
    (0..n).map(|k| waves(&[3], k as f64, 1., DType::F64)).collect()
}

#[test]
fn gradients_of_many_operands_and_results() {
    for n in 2..=8 {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let inputs: Vec<_> = names.into_iter().zip(vectors(n)).collect();
        check_gradients(&inputs, 1e-8, |x| {
            let y = apply(Toy, &x.iter().collect::<Vec<_>>())?;
            (y[0].sin()?.sum_all()? + y[1].exp()?.sum_all()?)? + &y[2]
        });
        // Only one of the results in use.
        check_gradients(&inputs, 1e-8, |x| {
            apply(Toy, &x.iter().collect::<Vec<_>>())?[0].sqr()?.sum_all()
        });
    }
}

#[test]
fn operands_that_need_no_gradient_repeat_or_lie_scattered() {
    let v = vectors(3);
    let a = Var::from_tensor(&v[0]).unwrap();
    let y = apply(Toy, &[&a, &v[1], &a]).unwrap();
    let grads = (y[0].sum_all().unwrap() + y[1].sum_all().unwrap()).unwrap();
    let (first, second) = (grads.backward().unwrap(), grads.backward().unwrap());
    // 2 x_1 + x_2 + x_1^2
    let expected = ((a.as_tensor() * 2.).unwrap() + 2.).unwrap();
    assert_close("repeated", first.get(&a).unwrap(), &expected, 1e-12, 1e-12);
    assert_close("twice", second.get(&a).unwrap(), &expected, 1e-12, 1e-12);
    assert!(first.get(&v[1]).is_none());
    let wide = waves(&[3, 2], 1., 1., DType::F64);
    let column = wide.narrow(1, 1, 1).unwrap().squeeze(1).unwrap();
    let plain = apply(Toy, &[&column, &column]).unwrap();
    assert!(!plain[0].track_op());
    assert_close("column", &plain[0], &(&column * 2.).unwrap(), 0., 0.);
}

#[test]
fn chains_of_operations_and_variables() {
    // Results that feed several operations, fused and plain, and variables that are read more than once.
    let run = |x: &[Tensor]| -> Result<Tensor> {
        let y = apply(Toy, &[&x[0], &x[1], &x[2]])?;
        let z = apply(Toy, &[&y[0], &y[1], &y[0], &x[0], &x[1]])?;
        let w = apply(Toy, &[&z[0], &(&y[1] + 1.)?, &z[1]])?;
        ((w[0].sin()?.sum_all()? + w[1].sum_all()?)? + (&w[2] + &z[2])?)? + y[0].sqr()?.sum_all()?
    };
    let named: Vec<_> = ["a", "b", "c"].into_iter().zip(vectors(3)).collect();
    check_gradients(&named, 1e-6, run);
    let vars: Vec<Var> = vectors(3).iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let loss = run(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>()).unwrap();
    // A variable that plain operations read, too.
    let loss = (loss + vars[0].as_tensor().sqr().unwrap().sum_all().unwrap()).unwrap();
    let (ours, theirs) = (backward(&loss).unwrap(), loss.backward().unwrap());
    for v in &vars {
        assert_close("backward", ours.get(v).unwrap(), theirs.get(v).unwrap(), 1e-12, 1e-12);
    }
    assert!(VARIABLES.with_borrow(Option::is_none));
}

#[test]
fn a_given_gradient_of_the_output() {
    let v: Vec<Var> = vectors(2).iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let y = apply(Toy, &[&v[0], &v[1]]).unwrap();
    let gradient = waves(&[3], 9., 1., DType::F64);
    // A fused result, and one of a plain operation.
    for output in [y[1].clone(), (&y[0] * 2.).unwrap()] {
        let given = backward_from(&output, &gradient).unwrap();
        let loss = (&output * &gradient).unwrap().sum_all().unwrap().backward().unwrap();
        for v in &v {
            assert_close("given", given.get(v).unwrap(), loss.get(v).unwrap(), 1e-12, 1e-12);
        }
    }
    let error = backward_from(&y[0], &y[2]).err().unwrap().to_string();
    assert!(error.contains("expected a gradient [3] of F64, got []"), "{error}");
}

/// A graph of fused operations alone is walked without candle, through reshaped and permuted results too; one operation of candle
/// in it, and candle walks. Both give the same.
#[test]
fn views_of_results_and_the_walk_without_candle() {
    let v: Vec<Var> =
        (0..2).map(|k| Var::from_tensor(&waves(&[6], k as f64, 1., DType::F64)).unwrap()).collect();
    let loss = |between: fn(&Tensor) -> Tensor| {
        let y = apply(Toy, &[&v[0], &v[1]]).unwrap();
        let grid = y[0].reshape((2, 3)).unwrap();
        let turned = between(&grid.t().unwrap()).contiguous().unwrap().flatten_all().unwrap();
        // One view that only a copy can read, one that shares the numbers.
        let z = apply(Toy, &[&y[1].reshape((6,)).unwrap(), &turned]).unwrap();
        apply(Toy, &[&z[0], &z[1]]).unwrap()[2].clone()
    };
    let fused = loss(Tensor::clone);
    let plain = loss(|t| (t * 1.0000000001).unwrap());
    let grads = [backward(&fused), backward(&plain), fused.backward()].map(Result::unwrap);
    for v in &v {
        for other in &grads[1..] {
            let (a, b) = (grads[0].get(v).unwrap(), other.get(v).unwrap());
            assert_close("views", a, b, 1e-7, 1e-7);
        }
    }
    assert_eq!(grads[0].get_ids().count(), 2);
}

#[test]
fn permuted_operands_hand_their_gradient_back() {
    let v = Var::from_tensor(&waves(&[12], 0., 1., DType::F64)).unwrap();
    let probe = waves(&[12], 3., 1., DType::F64);
    let square = |x: &Tensor| apply(Toy, &[x, x, &probe]).unwrap()[2].clone();
    let y = apply(Toy, &[&v, &probe]).unwrap()[1].clone();
    // The operation flattens its operands: it sees the permuted order.
    let permuted = y.reshape((2, 3, 2)).unwrap().permute((2, 0, 1)).unwrap();
    let loss = (square(&permuted) + square(&y).affine(0., 0.).unwrap()).unwrap();
    let walked = backward(&square(&permuted)).unwrap();
    let candle = loss.backward().unwrap();
    assert_close("permuted", walked.get(&v).unwrap(), candle.get(&v).unwrap(), 1e-12, 1e-12);
}

#[test]
fn a_chain_longer_than_candle_can_recurse() {
    let v = Var::from_tensor(&waves(&[3], 0., 1., DType::F64)).unwrap();
    let zero = Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap();
    let mut y = v.as_tensor().clone();
    let mut all = vec![];
    for _ in 0..20_000 {
        y = apply(Toy, &[&y, &zero]).unwrap()[0].clone();
        all.push(y.clone());
    }
    let grads = backward_from(&y, &Tensor::ones(3, DType::F64, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(grads.get(&v).unwrap().to_vec1::<f64>().unwrap(), [1.; 3]);
    // From the end: what is dropped holds nothing else then.
    drop(y);
    while all.pop().is_some() {}
}

#[test]
fn results_leave_the_list_when_they_are_dropped() {
    let v = Var::from_tensor(&vectors(1)[0]).unwrap();
    let y = apply(Toy, &[&v, &v]).unwrap();
    let z = apply(Toy, &[&y[0], &y[1]]).unwrap();
    let ids: Vec<_> = y.iter().chain(&z).map(Tensor::id).collect();
    let alive = || results(|all| ids.iter().filter(|id| all.has(**id)).count());
    assert_eq!(alive(), 6);
    drop(y);
    // Nobody can use them as operands any more, but their tokens live on in the graph of `z`.
    assert_eq!(alive(), 3);
    let grads = z[0].sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&v).is_some());
    drop(z);
    assert_eq!(alive(), 0);
}

#[test]
fn half_precision_and_mixed_types() {
    let a = Var::from_tensor(&waves(&[3], 1., 1., DType::BF16)).unwrap();
    let y = apply(Toy, &[&a, &a]).unwrap();
    assert_eq!(y[0].dtype(), DType::BF16);
    let grads = y[0].sum_all().unwrap().backward().unwrap();
    assert_eq!(
        grads.get(&a).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(),
        [2.; 3]
    );
    let b = Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap();
    assert!(apply(Toy, &[&a, &b]).unwrap_err().to_string().contains("floats of one type"));
}
