//! The fused path against the plain twins and finite differences.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits};

fn compare(dims: &[usize]) {
    let xs = waves(dims, 1., 1., DType::F64);
    agree(std::slice::from_ref(&xs), |x| unbind(&x[0]), |x| plain::unbind(&x[0]));
    let steps = plain::unbind(&xs).unwrap();
    let steps: Vec<Tensor> = steps.iter().map(|s| s.contiguous().unwrap()).collect();
    if !steps.is_empty() {
        agree(&steps, |x| Ok(vec![stack(x)?]), |x| Ok(vec![plain::stack(x)?]));
    }
}

#[test]
fn fused_equals_plain() {
    for dims in
        [&[1, 1, 1][..], &[3, 5], &[2, 1, 65], &[5, 9, 3, 2], &[0, 3, 2], &[2, 3, 0], &[2, 0, 3]]
    {
        compare(dims);
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    for dims in [&[1usize, 1, 1] as &[usize], &[3, 5], &[2, 33, 64], &[5, 70, 3, 2], &[2, 3, 1]] {
        let test = format!("time_steps::cuda {dims:?}");
        let xs = waves(dims, 1., 1., DType::F32);
        // Some of the steps are not used.
        let some = |steps: Vec<Tensor>| steps.into_iter().step_by(2).collect();
        let inputs = std::slice::from_ref(&xs);
        agree(&test, inputs, |x| Ok(some(unbind(&x[0])?)), |x| Ok(some(plain::unbind(&x[0])?)));
        let steps = plain::unbind(&xs).unwrap();
        let steps: Vec<Tensor> = steps.iter().map(|s| s.contiguous().unwrap()).collect();
        agree(&test, &steps, |x| Ok(vec![stack(x)?]), |x| Ok(vec![plain::stack(x)?]));
        let all = |x: &[Tensor]| Ok(vec![stack(&unbind(&x[0])?)?]);
        agree_in_half(&test, 1, inputs, all, |x| Ok(vec![x[0].affine(1., 0.)?]));
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    check_gradients(&[("xs", waves(&[2, 4, 3], 1., 1., DType::F64))], 1e-8, |x| {
        // A step that the loss does not depend on gets zeros; the operand lies scattered.
        let steps = unbind(&x[0].transpose(0, 1)?)?;
        (steps[0].sqr()?.sum_all()? + steps[1].exp()?.sum_all()?)? * 0.5
    });
    let names = ["a", "b", "c", "d", "e"];
    let steps = names.map(|n| (n, waves(&[2, 3], n.len() as f64, 1., DType::F64)));
    check_gradients(&steps, 1e-8, |x| stack(x)?.sqr()?.sum_all());
}

#[test]
fn there_and_back() {
    let xs = Var::from_tensor(&waves(&[3, 200, 4], 1., 1., DType::F32)).unwrap();
    let ys = stack(&unbind(&xs).unwrap()).unwrap();
    assert_close("values", &ys, &xs, 0., 0.);
    let probe = waves(&[3, 200, 4], 2., 1., DType::F32);
    let grads = ys.mul(&probe).unwrap().sum_all().unwrap().backward().unwrap();
    assert_close("gradient", grads.get(&xs).unwrap(), &probe, 0., 0.);
}

#[test]
fn one_step_used_twice() {
    let x = Var::from_tensor(&waves(&[2, 3], 1., 1., DType::F64)).unwrap();
    let twice = [x.as_tensor().clone(), x.as_tensor().clone()];
    let grads = stack(&twice).unwrap().sum_all().unwrap().backward().unwrap();
    let two = (x.ones_like().unwrap() * 2.).unwrap();
    assert_close("twice", grads.get(&x).unwrap(), &two, 0., 0.);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    same_bits(&[waves(&[7, 50, 300], 1., 1., DType::F32)], |x| unbind(&x[0]));
}

#[test]
fn wrong_shapes_are_named() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    assert!(unbind(&zeros(&[3])).unwrap_err().to_string().contains("[3]"));
    assert!(stack(&[]).unwrap_err().to_string().contains("no time steps"));
    assert!(stack(&[zeros(&[])]).unwrap_err().to_string().contains("scalars"));
    let error = stack(&[zeros(&[2, 3]), zeros(&[2, 4])]).unwrap_err().to_string();
    assert!(error.contains("step 1 is [2, 4]"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_shapes(b in 1usize..5, t in 1usize..12, d in 1usize..20) {
        compare(&[b, t, d]);
    }
}
