//! Initial values.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::Init;
use mnemic_layers::{
    AttentionGru, Gru, Lstm, ParamStore, RecurrentConfig, RecurrentInit, init, linear,
};
use mnemic_testing::{assert_close, check_gradients, waves};

use crate::{check_layer, error, probe, store};

fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

fn drawn(init: Init) -> Vec<f64> {
    let (_store, vb) = store(3);
    let w = vb.get_with_hints((100, 50), "w", init).unwrap();
    w.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn bounds_and_variances() {
    let xavier = drawn(init::xavier_uniform(50, 100));
    let bound = (6f64 / 150.).sqrt();
    assert!(xavier.iter().all(|v| v.abs() <= bound));
    let (mean, variance) = moments(&xavier);
    assert!(mean.abs() < 0.01 && (variance * 75. - 1.).abs() < 0.06, "{mean} {variance}");
    let (_, variance) = moments(&drawn(init::xavier_normal(50, 100)));
    assert!((variance * 75. - 1.).abs() < 0.1, "{variance}");
    assert_eq!(drawn(init::constant(0.3)), vec![0.3; 5000]);
    let (_, variance) = moments(&drawn(init::normal(0.1)));
    assert!((variance * 100. - 1.).abs() < 0.1, "{variance}");
    assert!(drawn(init::uniform(0.2)).iter().all(|v| v.abs() <= 0.2));
}

#[test]
fn orthogonal_blocks() {
    // Gates of a recurrent weight, a wide matrix and a tall one.
    for (rows, cols, blocks) in [(12, 4, 3), (4, 7, 1), (7, 4, 1)] {
        let (store, vb) = store(5);
        let w = vb.get((rows, cols), "w").unwrap();
        init::orthogonal(&store, "w", blocks).unwrap();
        let size = rows / blocks;
        for k in 0..blocks {
            let block = w.narrow(0, k * size, size).unwrap();
            let small = if size <= cols {
                block.matmul(&block.t().unwrap()).unwrap()
            } else {
                block.t().unwrap().matmul(&block).unwrap()
            };
            let eye = Tensor::eye(size.min(cols), DType::F64, &Device::Cpu).unwrap();
            assert_close(&format!("block {k} of {rows} x {cols}"), &small, &eye, 0., 1e-13);
        }
        let first = w.copy().unwrap();
        init::orthogonal(&store, "w", blocks).unwrap();
        assert_close("repeats", &w, &first, 0., 0.);
    }
    let (store, vb) = store(5);
    vb.get((6, 3), "w").unwrap();
    vb.get(6, "b").unwrap();
    assert!(error(init::orthogonal(&store, "v", 1)).contains("no parameter v"));
    assert!(error(init::orthogonal(&store, "b", 1)).contains("b is [6], not a matrix"));
    assert!(error(init::orthogonal(&store, "w", 4)).contains("6 rows, which are not 4 blocks"));
}

#[test]
fn truncated_normal_is_cut_at_two_deviations() {
    let (store, vb) = store(6);
    let w = vb.get((100, 100), "w").unwrap();
    init::truncated_normal(&store, "w", 0.5, 0.1).unwrap();
    let values: Vec<f64> = w.flatten_all().unwrap().to_vec1().unwrap();
    assert!(values.iter().all(|v| (v - 0.5).abs() <= 0.2));
    let (mean, variance) = moments(&values);
    // A normal cut at ±2 has the variance 0.7737.
    assert!((mean - 0.5).abs() < 0.005 && (variance * 100. - 0.7737).abs() < 0.03, "{variance}");
    assert!(error(init::truncated_normal(&store, "v", 0., 1.)).contains("no parameter v"));
}

#[test]
fn recurrent_schemes() {
    let cfg = RecurrentConfig::new(6, 4);
    let (pytorch, vb) = store(1);
    Lstm::new(cfg, vb).unwrap();
    for (name, var) in pytorch.vars() {
        let values: Vec<f64> = var.flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|v| v.abs() <= 0.5), "{name}");
        assert!(values.iter().any(|v| v.abs() > 0.25), "{name}");
    }
    let (orthogonal, vb) = store(1);
    let init = RecurrentInit::orthogonal().with_gate_bias(1.);
    Lstm::with_init(cfg, init, vb.clone()).unwrap();
    let w = orthogonal.get("weight_hh_l0").unwrap();
    for k in 0..4 {
        let block = w.narrow(0, 4 * k, 4).unwrap();
        let square = block.matmul(&block.t().unwrap()).unwrap();
        assert_close(
            "gate",
            &square,
            &Tensor::eye(4, DType::F64, &Device::Cpu).unwrap(),
            0.,
            1e-13,
        );
    }
    let bias = |name| orthogonal.get(name).unwrap().to_vec1::<f64>().unwrap();
    let mut expected = vec![0.; 16];
    expected[4..8].fill(1.);
    assert_eq!(bias("bias_ih_l0"), expected);
    assert_eq!(bias("bias_hh_l0"), vec![0.; 16]);
    // With random biases too the two forget biases sum to what was asked for.
    let (random, vb2) = store(1);
    Lstm::with_init(cfg, RecurrentInit::pytorch().with_gate_bias(2.), vb2).unwrap();
    let sum = (random.get("bias_ih_l0").unwrap().as_tensor()
        + random.get("bias_hh_l0").unwrap().as_tensor())
    .unwrap()
    .to_vec1::<f64>()
    .unwrap();
    assert_eq!(sum[4..8], [2.; 4]);
    assert!(sum[..4].iter().all(|v| *v != 2.));
    // A GRU holds on to its state through both gates, an attention GRU resets less.
    let (gru, vb2) = store(1);
    Gru::with_init(cfg, RecurrentInit::xavier().with_gate_bias(1.), vb2).unwrap();
    let bias = gru.get("bias_ih_l0").unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(bias, [[1.; 8].as_slice(), &[0.; 4]].concat());
    let (attention, vb2) = store(1);
    AttentionGru::with_init(4, 4, RecurrentInit::xavier().with_gate_bias(1.), vb2).unwrap();
    let bias = attention.get("bias_ih").unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(bias, [[1.; 4], [0.; 4]].concat());
    // A second layer on the same, by now trained, parameters leaves them as they are.
    w.set(&waves(&[16, 4], 0., 1., DType::F64)).unwrap();
    Lstm::with_init(cfg, init, vb).unwrap();
    assert_close("kept", &w, &waves(&[16, 4], 0., 1., DType::F64), 0., 0.);
    // Xavier counts the fans of one gate.
    let (xavier, vb) = store(1);
    Gru::with_init(cfg, RecurrentInit::xavier(), vb).unwrap();
    let w: Vec<f64> = xavier.get("weight_ih_l0").unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let largest = w.iter().fold(0f64, |m, v| m.max(v.abs()));
    assert!(largest <= 0.6f64.sqrt() && largest > 0.7, "{largest}");
}

#[test]
fn f32_and_f64_start_alike() {
    let weights = |dtype| {
        let store = ParamStore::new(9);
        let vb = store.builder(dtype, &Device::Cpu);
        Gru::with_init(RecurrentConfig::new(3, 4), RecurrentInit::orthogonal(), vb).unwrap();
        store.get("weight_hh_l0").unwrap()
    };
    assert_close("weight", &weights(DType::F32), &weights(DType::F64), 0., 1e-5);
}

#[test]
fn linear_is_affine() {
    let (store, vb) = store(4);
    let layer = linear(3, 2, true, init::xavier_uniform(3, 2), vb.pp("l")).unwrap();
    let names: Vec<String> = store.vars().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["l.bias", "l.weight"]);
    assert_eq!(store.get("l.bias").unwrap().to_vec1::<f64>().unwrap(), [0., 0.]);
    let xs = waves(&[4, 3], 0., 1., DType::F64);
    let expected = xs.matmul(&store.get("l.weight").unwrap().t().unwrap()).unwrap();
    assert_close("l", &layer.forward(&xs).unwrap(), &expected, 0., 1e-15);
    check_layer(&[("xs", xs.clone())], 1e-8, |vb, t| {
        probe(&linear(3, 2, true, init::normal(1.), vb)?.forward(&t[0])?)
    });
    let free = linear(3, 2, false, init::normal(1.), vb.pp("free")).unwrap();
    assert!(free.bias().is_none());
    check_gradients(&[("xs", xs)], 1e-8, |t| probe(&free.forward(&t[0])?));
}
