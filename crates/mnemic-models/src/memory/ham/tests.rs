use candle_core::{DType, Device, Tensor, Var};
use mnemic_layers::{ParamStore, only_fused};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::testing::without_gradient;

fn small(query_size: usize) -> Config {
    Config { node_size: 5, search_size: 6, hidden_size: 4, ..Config::lstm(3, 2, query_size) }
}

fn build(config: &Config, dtype: DType) -> (LstmHam, ParamStore) {
    let store = ParamStore::new(3);
    (LstmHam::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

fn cells(b: usize, n: usize, m: usize, dtype: DType) -> Cells {
    let bits: Vec<f64> = (0..b * m * 2).map(|i| f64::from(i % 3 == 0)).collect();
    Cells {
        inputs: waves(&[b, n, 3], 1., 1.5, dtype),
        query: None,
        targets: Tensor::from_vec(bits, (b, m, 2), &Device::Cpu).unwrap().to_dtype(dtype).unwrap(),
        symbols: false,
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for query in [0, 3] {
        let (ham, store) = build(&small(query), DType::F32);
        let mut cells = cells(4, 4, 3, DType::F32);
        if query > 0 {
            cells.query = Some(waves(&[4, 3], 2., 1., DType::F32));
        }
        let loss = ham.rollout(&cells, &Context::train(1, 0)).unwrap().loss.unwrap();
        assert!(only_fused(&loss));
        assert_eq!(without_gradient(&store, &loss), Vec::<String>::new());
    }
}

/// Every sequence of decisions, weighted by its probability: the gradient of the loss is that of the expected log-likelihood.
#[test]
fn the_mean_gradient_is_that_of_the_expected_likelihood() {
    let (ham, store) = build(&small(0), DType::F64);
    let cells = cells(1, 4, 2, DType::F64);
    // Two decisions in each of two accesses.
    let run = |choice: usize| {
        ham.run_by(
            &cells.inputs,
            None,
            2,
            &mut |t, hidden, tree| {
                let mut decide =
                    |level: usize, _: usize, _: f64| choice >> (2 * t + level) & 1 == 1;
                ham.memory.descend_by(hidden, tree, &mut decide)
            },
            &Context::eval(),
        )
        .unwrap()
    };
    let probability = |run: &Run| {
        let step = |access: &Access| {
            let logits = access.logits.get(0).unwrap().to_vec1::<f64>().unwrap();
            let p = |(z, &right): (&f64, &bool)| 1. / (1. + (if right { -z } else { *z }).exp());
            logits.iter().zip(&access.right[0]).map(p).product::<f64>()
        };
        run.accesses.iter().map(step).product::<f64>()
    };
    let expected = || {
        let total = |choice| {
            let run = run(choice);
            let (negative, _) = likelihood(&cells, &run.scores).unwrap();
            (probability(&run), probability(&run) * negative.to_scalar::<f64>().unwrap())
        };
        let all: Vec<(f64, f64)> = (0..16).map(total).collect();
        assert!((all.iter().map(|(p, _)| p).sum::<f64>() - 1.).abs() < 1e-12);
        all.iter().map(|(_, loss)| loss).sum::<f64>()
    };
    let vars: Vec<(String, Var)> = store.vars();
    let mut mean: Vec<Vec<f64>> = vars.iter().map(|(_, var)| vec![0.; var.elem_count()]).collect();
    for choice in 0..16 {
        let run = run(choice);
        let p = probability(&run);
        let (negative, rewards) = likelihood(&cells, &run.scores).unwrap();
        let grads = ham.loss(&run, negative, &rewards).unwrap().backward().unwrap();
        for ((_, var), mean) in vars.iter().zip(&mut mean) {
            let Some(grad) = grads.get(var) else { continue };
            let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            mean.iter_mut().zip(grad).for_each(|(m, g)| *m += p * g);
        }
    }
    for ((name, var), mean) in vars.iter().zip(mean) {
        let at = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let probe = at.len() / 3;
        let with = |change: f64| {
            let mut values = at.clone();
            values[probe] += change;
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
            expected()
        };
        let numeric = (with(1e-5) - with(-1e-5)) / 2e-5;
        with(0.);
        let exact = mean[probe];
        assert!((numeric - exact).abs() < 1e-6 * (1. + exact.abs()), "{name}: {numeric} {exact}");
    }
}

#[test]
fn other_rows_change_nothing_and_work_grows_by_the_depth() {
    let (ham, _) = build(&small(0), DType::F64);
    let cells = cells(3, 6, 5, DType::F64);
    let ctx = Context::eval();
    let whole = ham.run(&cells.inputs, None, 5, &ctx).unwrap();
    let row = ham.run(&cells.inputs.narrow(0, 1, 1).unwrap(), None, 5, &ctx).unwrap();
    assert_close("one row", &row.scores, &whole.scores.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
    for n in [2usize, 8, 64] {
        let inputs = waves(&[1, n, 3], 1., 1., DType::F64);
        let run = ham.run(&inputs, None, n, &ctx).unwrap();
        let depth = n.ilog2() as usize;
        let expected = Evaluations { join: n - 1 + n * depth, search: n * depth };
        assert_eq!(run.evaluations, expected);
    }
}

#[test]
fn the_same_step_draws_the_same_decisions() {
    let (ham, _) = build(&small(0), DType::F32);
    let cells = cells(8, 8, 4, DType::F32);
    let leaves = |step| {
        let run = ham.run(&cells.inputs, None, 4, &Context::train(7, step)).unwrap();
        run.accesses.into_iter().map(|access| access.leaves).collect::<Vec<_>>()
    };
    assert_eq!(leaves(1), leaves(1));
    assert_ne!(leaves(1), leaves(2));
}

#[test]
fn what_does_not_fit_is_named() {
    let (ham, _) = build(&small(0), DType::F32);
    let mut cells = cells(2, 4, 3, DType::F32);
    cells.query = Some(waves(&[2, 3], 2., 1., DType::F32));
    let error = ham.rollout(&cells, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("expected no query, got one"), "{error}");
    cells.inputs = waves(&[2, 4, 7], 2., 1., DType::F32);
    let error = ham.rollout(&cells, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("(b, n, 3)") && error.contains("[2, 4, 7]"), "{error}");
    let store = ParamStore::new(0);
    let config = Config { entropy: f64::NAN, ..small(0) };
    let error = LstmHam::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap_err();
    assert!(error.to_string().contains("entropy"), "{error}");
}
