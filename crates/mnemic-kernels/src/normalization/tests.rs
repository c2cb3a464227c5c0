//! The fused path against the plain twin, finite differences and PyTorch.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, torch_fixture, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{same_for_levels, same_for_threads};

/// Which operation, and which of its operands: rows, weight, bias.
#[derive(Debug, Clone, Copy)]
struct Form {
    rms: bool,
    weight: bool,
    bias: bool,
}

const fn form(rms: bool, weight: bool, bias: bool) -> Form {
    Form { rms, weight, bias }
}

const FORMS: [Form; 6] = [
    form(false, false, false),
    form(false, true, false),
    form(false, false, true),
    form(false, true, true),
    form(true, false, false),
    form(true, true, false),
];

impl Form {
    fn run(self, x: &[Tensor], eps: f64, fused: bool) -> Result<Tensor> {
        let (w, b) = (self.weight.then(|| &x[1]), self.bias.then(|| &x[2]));
        match (self.rms, fused) {
            (false, true) => layer_norm(&x[0], w, b, eps),
            (false, false) => plain::layer_norm(&x[0], w, b, eps),
            (true, true) => rms_norm(&x[0], w, eps),
            (true, false) => plain::rms_norm(&x[0], w, eps),
        }
    }

    fn operands(shape: &[usize], scale: f64, dtype: DType) -> Vec<Tensor> {
        let d = &shape[shape.len() - 1..];
        let weight = (waves(d, 2., 0.3, dtype) + 1.).unwrap();
        vec![waves(shape, 1., scale, dtype), weight, waves(d, 3., 1., dtype)]
    }

    /// The result, and the gradients of a probed sum with respect to the operands in use.
    fn pass(self, operands: &[Tensor], fused: bool) -> Vec<Tensor> {
        let vars: Vec<Var> = operands.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let x: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = self.run(&x, 1e-5, fused).unwrap();
        let probe = waves(y.dims(), 5., 1., DType::F64).to_dtype(y.dtype()).unwrap();
        let grads = y.mul(&probe).unwrap().sum_all().unwrap().backward().unwrap();
        let used = [true, self.weight, self.bias];
        let used = vars.iter().zip(used).filter_map(|(var, used)| used.then_some(var));
        let mut all = vec![y.detach()];
        all.extend(used.map(|var| grads.get(var).unwrap().clone()));
        all
    }
}

fn compare(shape: &[usize], scale: f64, dtype: DType, tolerance: f64) {
    let operands = Form::operands(shape, scale, dtype);
    for form in FORMS {
        for (a, b) in form.pass(&operands, true).iter().zip(&form.pass(&operands, false)) {
            assert_close(&format!("{form:?} {shape:?}"), a, b, tolerance, tolerance);
        }
    }
}

#[test]
fn fused_equals_plain() {
    let shapes: [&[usize]; 7] =
        [&[1, 2], &[2, 3, 63], &[5, 64], &[4, 65], &[3, 1000], &[2000, 20], &[129, 257]];
    for shape in shapes {
        compare(shape, 3., DType::F64, 1e-10);
        compare(shape, 1e4, DType::F64, 1e-10);
        if shape[0] < 100 {
            compare(shape, 3., DType::F32, 2e-5);
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    use crate::cuda::tests::{agree, agree_in_half};
    let shapes: [&[usize]; 8] = [
        &[1, 3],
        &[2, 3, 63],
        &[5, 64],
        &[4, 65],
        &[3, 1000],
        &[1500, 20],
        &[129, 264],
        &[2, 17001],
    ];
    for shape in shapes {
        let operands = Form::operands(shape, 3., DType::F32);
        for form in FORMS {
            let test = format!("normalization::cuda {form:?} {shape:?}");
            let run = |fused: bool| move |x: &[Tensor]| Ok(vec![form.run(x, 1e-5, fused)?]);
            agree(&test, &operands, run(true), run(false));
            if shape[0] != 2 {
                agree_in_half(&test, 1, &operands, run(true), run(false));
            }
        }
    }
    let far = [(waves(&[5, 300], 1., 1., DType::F32) + 1e4).unwrap()];
    let run = |x: &[Tensor]| Ok(vec![layer_norm(&x[0], None, None, 1e-5)?]);
    let plain = |x: &[Tensor]| Ok(vec![plain::layer_norm(&x[0], None, None, 1e-5)?]);
    agree("normalization::cuda far", &far, run, plain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_shapes(n in 1usize..9, width in 2usize..200, scale in 0.1f64..30.) {
        compare(&[n, width], scale, DType::F64, 1e-9);
    }
}

#[test]
fn gradients() {
    let operands = Form::operands(&[3, 7], 2., DType::F64);
    let probe = waves(&[3, 7], 4., 1., DType::F64);
    for form in FORMS {
        let names = [("xs", true), ("weight", form.weight), ("bias", form.bias)];
        let used = |k: usize| names[k].1;
        let inputs: Vec<_> =
            (0..3).filter(|&k| used(k)).map(|k| (names[k].0, operands[k].clone())).collect();
        check_gradients(&inputs, 1e-7, |x| {
            let mut given = x.iter();
            let all: Vec<Tensor> = (0..3)
                .map(|k| if used(k) { given.next().unwrap() } else { &operands[k] }.clone())
                .collect();
            form.run(&all, 1e-5, true)?.mul(&probe)?.sum_all()
        });
    }
}

#[test]
fn only_the_gradients_that_are_wanted() {
    let x = Form::operands(&[4, 9], 2., DType::F64);
    let weight = Var::from_tensor(&x[1]).unwrap();
    let y = layer_norm(&x[0], Some(&weight), Some(&x[2]), 1e-5).unwrap();
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let twin = plain::layer_norm(&x[0], Some(&weight), Some(&x[2]), 1e-5).unwrap();
    let expected = twin.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let (a, b) = (grads.get(&weight).unwrap(), expected.get(&weight).unwrap());
    assert_close("weight", a, b, 1e-12, 1e-12);
    assert!(grads.get(&x[0]).is_none() && grads.get(&x[2]).is_none());
}

#[test]
fn rows_far_from_zero_constant_and_empty() {
    // f32 against f64 on the same numbers.
    let xs = (waves(&[5, 300], 1., 1., DType::F32) + 1e4).unwrap();
    let wide = xs.to_dtype(DType::F64).unwrap();
    let expected = plain::layer_norm(&wide, None, None, 1e-5).unwrap();
    assert_close("mean 1e4", &layer_norm(&xs, None, None, 1e-5).unwrap(), &expected, 0., 3e-6);
    let constant = (Tensor::ones((2, 65), DType::F32, &Device::Cpu).unwrap() * 1e4).unwrap();
    for form in FORMS {
        let mut operands = Form::operands(&[2, 65], 1., DType::F32);
        for rows in [&constant, &(&constant * 1e-44).unwrap(), &constant.zeros_like().unwrap()] {
            operands[0] = rows.clone();
            for t in form.pass(&operands, true) {
                let sum = t.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(sum.is_finite(), "{form:?}: {t}");
            }
        }
        for shape in [[0, 3], [3, 0]] {
            for t in form.pass(&Form::operands(&shape, 1., DType::F32), true).iter().take(2) {
                assert_eq!(t.dims(), shape);
            }
        }
    }
}

#[test]
fn equal_numbers_far_from_zero_have_no_variance() {
    for level in [1e4, 172_739.19, -3.3e6] {
        for width in [63, 65, 1000, 4097] {
            let rows =
                (Tensor::ones((3, width), DType::F32, &Device::Cpu).unwrap() * level).unwrap();
            let y = layer_norm(&rows, None, None, 1e-12).unwrap().abs().unwrap();
            // A sum, since a NaN goes into it.
            let sum = y.sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum <= 0.01 * (3 * width) as f32, "{level}, {width}: {sum}");
        }
    }
}

#[test]
fn non_contiguous_every_level_and_pool() {
    let scattered = waves(&[65, 40], 1., 3., DType::F32).t().unwrap();
    let a = layer_norm(&scattered, None, None, 1e-5).unwrap();
    let b = layer_norm(&scattered.contiguous().unwrap(), None, None, 1e-5).unwrap();
    assert_close("scattered", &a, &b, 0., 0.);
    let operands = Form::operands(&[600, 131], 3., DType::F32);
    for form in [FORMS[3], FORMS[5]] {
        let all = || form.pass(&operands, true);
        same_for_threads(all);
        same_for_levels(all);
    }
}

#[test]
fn torch() {
    for (ty, tolerance) in [("f64", 1e-10), ("f32", 1e-5)] {
        for (name, eps) in
            [("layer_norm", 1e-5), ("layer_norm_plain", 1e-3), ("layer_norm_2d", 1e-5)]
        {
            let Some(fixture) = torch_fixture("normalization::torch", &format!("{name}.{ty}"))
            else {
                return;
            };
            let names = ["input", "param.weight", "param.bias"];
            let vars = names.map(|n| fixture.get(n).map(|t| Var::from_tensor(t).unwrap()));
            // The last two axes of `_2d` are one.
            let flat = |t: &Tensor| match (name, t.rank()) {
                ("layer_norm_2d", 3) => t.flatten(1, 2),
                ("layer_norm_2d", _) => t.flatten_all(),
                _ => Ok(t.clone()),
            };
            let [x, w, b] = vars.clone().map(|v| v.map(|v| flat(&v).unwrap()));
            let x = x.unwrap();
            assert_eq!(w.is_some(), name != "layer_norm_plain");
            let y = layer_norm(&x, w.as_ref(), b.as_ref(), eps).unwrap();
            let y = y.reshape(fixture["output"].dims()).unwrap();
            assert_close(name, &y, &fixture["output"], tolerance, tolerance);
            let loss = y.mul(&fixture["probe.output"]).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            for (key, var) in names.iter().zip(vars) {
                let Some(var) = var else { continue };
                let expected = &fixture[&format!("grad.{key}")];
                assert_close(key, grads.get(&var).unwrap(), expected, tolerance, tolerance);
            }
        }
    }
}

#[test]
fn bad_operands_are_named() {
    let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let error = |r: Result<Tensor>| r.unwrap_err().to_string();
    let bad = error(layer_norm(&xs, Some(&xs), None, 1e-5));
    assert!(bad.contains("expected a weight (3), got [2, 3]"), "{bad}");
    let bad = error(rms_norm(&xs, None, f64::NAN));
    assert!(bad.contains("eps must be finite"), "{bad}");
    assert!(error(rms_norm(&Tensor::new(1f32, &Device::Cpu).unwrap(), None, 1.)).contains("axis"));
}
