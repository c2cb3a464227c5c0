//! Ten steps of each optimiser beside PyTorch's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use candle_core::{DType, Tensor, Var};
use mnemic_testing::{assert_close, torch_fixture};
use mnemic_train::Gradients;
use mnemic_train::optim::{
    Adagrad, Adam, Decay, Optimizer, OptimizerConfig as Config, RmsProp, Sgd,
};

fn cases() -> Vec<(&'static str, Config)> {
    let decay = Decay::All;
    vec![
        ("sgd", Config::Sgd(Sgd::new(0.1))),
        ("sgd_momentum", Config::Sgd(Sgd { momentum: 0.9, ..Sgd::new(0.1) })),
        ("sgd_nesterov", Config::Sgd(Sgd { momentum: 0.9, nesterov: true, ..Sgd::new(0.1) })),
        (
            "sgd_momentum_dampening_decay",
            Config::Sgd(Sgd {
                momentum: 0.8,
                dampening: 0.3,
                weight_decay: 0.05,
                decay,
                ..Sgd::new(0.1)
            }),
        ),
        ("adam", Config::Adam(Adam::new(0.05))),
        (
            "adam_decay",
            Config::Adam(Adam {
                betas: [0.8, 0.95],
                eps: 1e-6,
                weight_decay: 0.1,
                decay,
                ..Adam::new(0.05)
            }),
        ),
        ("adam_amsgrad", Config::Adam(Adam { amsgrad: true, ..Adam::new(0.05) })),
        ("adamw", Config::AdamW(Adam { weight_decay: 0.1, decay, ..Adam::new(0.05) })),
        ("adagrad", Config::Adagrad(Adagrad::new(0.1))),
        (
            "adagrad_decay",
            Config::Adagrad(Adagrad {
                lr_decay: 0.1,
                weight_decay: 0.05,
                initial_accumulator: 0.1,
                decay,
                ..Adagrad::new(0.1)
            }),
        ),
        ("rmsprop", Config::RmsProp(RmsProp::new(0.02))),
        (
            "rmsprop_momentum_centered",
            Config::RmsProp(RmsProp {
                alpha: 0.9,
                momentum: 0.9,
                centered: true,
                ..RmsProp::new(0.02)
            }),
        ),
    ]
}

/// `false` where the fixtures are not there.
fn agrees(
    test: &str,
    name: &str,
    config: Config,
    (suffix, dtype, tolerance): (&str, DType, f64),
) -> bool {
    let Some(fixture) = torch_fixture(test, &format!("optim_{name}.{suffix}")) else {
        return false;
    };
    let row = |key: &str, i: usize| -> Tensor { fixture[key].get(i).unwrap() };
    let vars: Vec<(String, Var)> = ["b", "w"]
        .iter()
        .map(|n| (n.to_string(), Var::from_tensor(&row(&format!("params.{n}"), 0)).unwrap()))
        .collect();
    assert_eq!(vars[0].1.dtype(), dtype);
    let lr = config.lr();
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    for step in 0..10 {
        let gradients: Vec<_> =
            vars.iter().map(|(n, _)| (n.clone(), Some(row(&format!("grads.{n}"), step)))).collect();
        optimizer.step(&Gradients::from_tensors(&gradients).unwrap(), lr).unwrap();
        for (n, var) in &vars {
            let expected = row(&format!("params.{n}"), step + 1);
            let what = format!("{name}.{suffix} {n} after step {}", step + 1);
            assert_close(&what, var.as_tensor(), &expected, tolerance, tolerance);
        }
    }
    true
}

#[test]
fn optimizers_agree_with_pytorch_f64() {
    for (name, config) in cases() {
        if !agrees("optimizers_agree_with_pytorch_f64", name, config, ("f64", DType::F64, 1e-12)) {
            return;
        }
    }
}

#[test]
fn optimizers_agree_with_pytorch_f32() {
    for (name, config) in cases() {
        if !agrees("optimizers_agree_with_pytorch_f32", name, config, ("f32", DType::F32, 1e-6)) {
            return;
        }
    }
}
