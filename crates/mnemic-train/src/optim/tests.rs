use super::*;

fn vars(values: &[(&str, &[f64])]) -> Vec<(String, Var)> {
    let var = |v: &[f64]| Var::from_slice(v, (v.len(), 1), &Device::Cpu).unwrap();
    values.iter().map(|(n, v)| ((*n).to_string(), var(v))).collect()
}

fn gradients(vars: &[(String, Var)], scale: f64) -> Gradients {
    let g = |v: &Var| ((v.as_tensor() * 3.).unwrap().sin().unwrap() * scale).unwrap();
    let list: Vec<_> = vars.iter().map(|(n, v)| (n.clone(), Some(g(v)))).collect();
    Gradients::from_tensors(&list).unwrap()
}

fn every() -> Vec<OptimizerConfig> {
    vec![
        OptimizerConfig::Sgd(Sgd::new(0.1)),
        OptimizerConfig::Sgd(Sgd { momentum: 0.9, nesterov: true, ..Sgd::new(0.1) }),
        OptimizerConfig::Adam(Adam { weight_decay: 0.1, ..Adam::new(0.1) }),
        OptimizerConfig::AdamW(Adam { amsgrad: true, weight_decay: 0.1, ..Adam::new(0.1) }),
        OptimizerConfig::Adagrad(Adagrad { initial_accumulator: 0.1, ..Adagrad::new(0.1) }),
        OptimizerConfig::RmsProp(RmsProp::new(0.1)),
        OptimizerConfig::RmsProp(RmsProp { centered: true, ..RmsProp::new(0.1) }),
        OptimizerConfig::RmsProp(RmsProp { momentum: 0.5, ..RmsProp::new(0.1) }),
        OptimizerConfig::RmsPropGraves(RmsPropGraves::new(0.01)),
    ]
}

#[test]
fn state_goes_on_bit_for_bit() {
    for config in every() {
        let run = |reload: bool| {
            let vars = vars(&[("a", &[0.3, -0.7, 1.1]), ("b", &[2.])]);
            let mut optimizer = Optimizer::new(config.clone(), vars.clone()).unwrap();
            for step in 0..6 {
                if reload && step == 3 {
                    let state = optimizer.state().unwrap();
                    optimizer = Optimizer::new(config.clone(), vars.clone()).unwrap();
                    optimizer.load_state(&state).unwrap();
                }
                optimizer.step(&gradients(&vars, 1.), 0.1 / (1. + f64::from(step))).unwrap();
            }
            vars.iter().map(|(_, v)| v.to_vec2::<f64>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(false), run(true), "{config:?}");
    }
}

#[test]
fn wrong_state_is_named() {
    let vars = vars(&[("a", &[1., 2.])]);
    let mut optimizer =
        Optimizer::new(OptimizerConfig::Adam(Adam::new(0.1)), vars.clone()).unwrap();
    let good = optimizer.state().unwrap();
    let mut error = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut state = good.clone();
        change(&mut state);
        optimizer.load_state(&state).unwrap_err().to_string()
    };
    let missing = error(&|s| drop(s.remove("exp_avg_sq/a")));
    assert_eq!(missing, "optimizer state: tensor exp_avg_sq/a is missing");
    let wrong = error(&|s| {
        s.insert("exp_avg/a".into(), Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap());
    });
    assert!(wrong.contains("exp_avg/a: expected [2, 1] F64, got [3] F64"), "{wrong}");
    let unknown = error(&|s| {
        s.insert("sum/z".into(), Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap());
    });
    assert!(unknown.contains(r#"unknown tensors ["sum/z"]"#), "{unknown}");
}

#[test]
fn decay_spares_biases_and_embeddings() {
    assert!(Decay::Weights.applies("layer.weight", 2));
    assert!(!Decay::Weights.applies("layer.bias", 1));
    assert!(!Decay::Weights.applies("word_Embeddings.weight", 2));
    assert!(Decay::All.applies("layer.bias", 1));
    let vars = vars(&[("embedding.weight", &[1.]), ("weight", &[1.])]);
    let config = OptimizerConfig::Sgd(Sgd { weight_decay: 0.5, ..Sgd::new(1.) });
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    optimizer.step(&gradients(&vars, 0.), 1.).unwrap();
    let value = |i: usize| vars[i].1.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
    assert_eq!((value(0), value(1)), (1., 0.5));
}

#[test]
fn a_parameter_without_gradient_stays() {
    let vars = vars(&[("a", &[1.])]);
    let config = OptimizerConfig::AdamW(Adam { weight_decay: 0.5, ..Adam::new(1.) });
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    optimizer.step(&Gradients::from_tensors(&[("a".into(), None)]).unwrap(), 1.).unwrap();
    assert_eq!(vars[0].1.to_vec2::<f64>().unwrap(), [[1.]]);
    let state = optimizer.state().unwrap();
    assert_eq!(state["step/a"].to_scalar::<i64>().unwrap(), 0);
    let other = Gradients::from_tensors(&[("b".into(), None)]).unwrap();
    let error = optimizer.step(&other, 1.).unwrap_err().to_string();
    assert!(error.contains("expected the gradient of a, got that of b"), "{error}");
}

#[test]
fn bad_settings_and_types_are_refused() {
    let parse = |s: &str| serde_json::from_str::<OptimizerConfig>(s).map_err(|e| e.to_string());
    let unknown = parse(r#"{"name": "adam", "lr": 0.1, "beta": 1}"#).unwrap_err();
    assert!(unknown.contains("unknown field `beta`"), "{unknown}");
    assert!(parse(r#"{"name": "adamx", "lr": 0.1}"#).unwrap_err().contains("`rmsprop-graves`"));
    assert!(parse(r#"{"name": "sgd"}"#).unwrap_err().contains("missing field `lr`"));
    for config in every() {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config);
        config.validate().unwrap();
    }
    let error = |c: OptimizerConfig| c.validate().unwrap_err().to_string();
    let betas = error(OptimizerConfig::Adam(Adam { betas: [0.9, 1.], ..Adam::new(0.1) }));
    assert!(betas.starts_with("optimizer.betas[1]: expected"), "{betas}");
    assert!(error(OptimizerConfig::Sgd(Sgd::new(f64::NAN))).contains("got NaN"));
    let nesterov = error(OptimizerConfig::Sgd(Sgd { nesterov: true, ..Sgd::new(0.1) }));
    assert!(nesterov.contains("a momentum for nesterov"), "{nesterov}");
    let half = vec![("h".to_string(), Var::zeros(2, DType::BF16, &Device::Cpu).unwrap())];
    let refused = Optimizer::new(OptimizerConfig::Sgd(Sgd::new(0.1)), half).unwrap_err();
    assert!(refused.to_string().contains("only f32 and f64"), "{refused}");
}

/// Graves 2013, eq. 38 to 41, written as plain scalar arithmetic for two steps.
#[test]
fn graves_by_hand() {
    let vars = vars(&[("w", &[0.5])]);
    let config = OptimizerConfig::RmsPropGraves(RmsPropGraves::new(0.01));
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    let (mut n, mut m, mut d, mut w) = (0f64, 0f64, 0f64, 0.5f64);
    for g in [0.4f64, -0.3] {
        let t = Tensor::new(&[[g]], &Device::Cpu).unwrap();
        optimizer.step(&Gradients::from_tensors(&[("w".into(), Some(t))]).unwrap(), 0.01).unwrap();
        n = 0.95 * n + 0.05 * g.powi(2);
        m = 0.95 * m + 0.05 * g;
        d = 0.9 * d - 0.01 * g / (n - m.powi(2) + 1e-4).sqrt();
        w += d;
    }
    let got = vars[0].1.to_vec2::<f64>().unwrap()[0][0];
    assert!((got - w).abs() < 1e-14, "{got} {w}");
}

#[test]
fn clipping_on_the_way_equals_clipping_first() {
    for config in every() {
        let run = |first: bool| {
            let vars = vars(&[("a", &[0.3, -0.7, 1.1]), ("b", &[2.])]);
            let mut optimizer = Optimizer::new(config.clone(), vars.clone()).unwrap();
            for _ in 0..4 {
                let mut g = gradients(&vars, 10.);
                let clip = crate::Clip { global_norm: Some(0.3), ..Default::default() };
                assert!(clip.apply(&mut g).unwrap() > 0.3);
                if first {
                    g = Gradients::from_tensors(&g.to_tensors().unwrap()).unwrap();
                }
                assert!((g.norm().unwrap() - 0.3).abs() < 1e-12);
                optimizer.step(&g, 0.05).unwrap();
            }
            vars.iter().map(|(_, v)| v.to_vec2::<f64>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(true), run(false), "{config:?}");
    }
}

#[test]
fn whoever_holds_the_parameter_sees_the_step() {
    let w = Var::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
    let vars = vec![("w".to_string(), w.clone())];
    let (clone, view) = (w.as_tensor().clone(), w.t().unwrap());
    let mut optimizer = Optimizer::new(OptimizerConfig::Sgd(Sgd::new(1.)), vars.clone()).unwrap();
    // A transposed gradient, and one that is the parameter itself.
    let g = Tensor::new(&[[1f32, 0.], [2., 0.]], &Device::Cpu).unwrap().t().unwrap();
    for (g, wanted) in [(g, [[0., 0.], [3., 4.]]), (clone.clone(), [[0.; 2]; 2])] {
        let g = Gradients::from_tensors(&[("w".into(), Some(g))]).unwrap();
        optimizer.step(&g, 1.).unwrap();
        assert_eq!(clone.to_vec2::<f32>().unwrap(), wanted);
        assert_eq!(view.t().unwrap().to_vec2::<f32>().unwrap(), wanted);
    }
}

#[test]
fn saved_state_is_a_copy() {
    let vars = vars(&[("a", &[1., 2.])]);
    let config = OptimizerConfig::Sgd(Sgd { momentum: 0.9, ..Sgd::new(0.1) });
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    optimizer.step(&gradients(&vars, 1.), 0.1).unwrap();
    let state = optimizer.state().unwrap();
    let numbers = |s: &BTreeMap<String, Tensor>| {
        s["momentum_buffer/a"].flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    let before = numbers(&state);
    optimizer.load_state(&state).unwrap();
    optimizer.step(&gradients(&vars, 1.), 0.1).unwrap();
    assert_eq!(numbers(&state), before);
    assert_ne!(numbers(&optimizer.state().unwrap()), before);
}

#[test]
fn a_gradient_of_another_shape_is_named() {
    let vars = vars(&[("a", &[1., 2.])]);
    let mut optimizer = Optimizer::new(OptimizerConfig::Sgd(Sgd::new(0.1)), vars.clone()).unwrap();
    for (t, got) in [
        (Tensor::zeros(3, DType::F64, &Device::Cpu), "got [3] F64"),
        (Tensor::zeros((2, 1), DType::F32, &Device::Cpu), "got [2, 1] F32"),
    ] {
        let g = Gradients::from_tensors(&[("a".into(), Some(t.unwrap()))]).unwrap();
        let error = optimizer.step(&g, 0.1).unwrap_err().to_string();
        assert!(error.contains("gradient of a: expected [2, 1] F64") && error.contains(got));
    }
    assert_eq!(optimizer.state().unwrap()["step/a"].to_scalar::<i64>().unwrap(), 0);
}
