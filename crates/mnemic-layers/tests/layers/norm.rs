//! Layer and RMS normalisation.

use candle_core::{DType, Module, Tensor};
use mnemic_layers::{LayerNorm, LayerNormConfig, RmsNorm};
use mnemic_testing::{assert_close, waves};

use crate::{against_torch, check_layer, error, probe, shapes, store, tensor};

#[test]
fn layer_norm_agrees_with_torch() {
    let plain = LayerNormConfig { eps: 1e-3, weight: false, bias: false };
    let forms: [(&str, &[usize], LayerNormConfig); 3] = [
        ("layer_norm", &[6], LayerNormConfig::default()),
        ("layer_norm_2d", &[4, 6], LayerNormConfig::default()),
        ("layer_norm_plain", &[6], plain),
    ];
    for (name, shape, config) in forms {
        let run = against_torch("layer_norm_agrees_with_torch", name, |tensors, vb| {
            LayerNorm::new(shape, config, vb)?.forward(&tensors["input"])
        });
        if run.is_none() {
            return;
        }
    }
}

#[test]
fn gradients_reach_the_input_and_every_parameter() {
    let xs = waves(&[2, 3, 4], 0.3, 1., DType::F64);
    for (weight, bias) in [(true, true), (true, false), (false, false)] {
        let config = LayerNormConfig { weight, bias, ..LayerNormConfig::default() };
        check_layer(&[("xs", xs.clone())], 1e-7, |vb, xs| {
            probe(&LayerNorm::new(4, config, vb)?.forward(&xs[0])?)
        });
    }
    check_layer(&[("xs", xs.clone())], 1e-7, |vb, xs| {
        probe(&LayerNorm::new((3, 4), LayerNormConfig::default(), vb)?.forward(&xs[0])?)
    });
    check_layer(&[("xs", xs)], 1e-7, |vb, xs| probe(&RmsNorm::new(4, 1e-6, vb)?.forward(&xs[0])?));
}

#[test]
fn rows_are_normal() {
    let (store, vb) = store(1);
    let xs = waves(&[5, 64], 0.1, 30., DType::F64);
    let ys = LayerNorm::new(64, LayerNormConfig::default(), vb.pp("layer")).unwrap();
    let ys = ys.forward(&xs).unwrap();
    assert_close("mean", &ys.mean(1).unwrap(), &tensor(&[0.; 5], &[5]), 0., 1e-12);
    let ones = tensor(&[1.; 5], &[5]);
    assert_close("variance", &ys.sqr().unwrap().mean(1).unwrap(), &ones, 0., 1e-6);
    let ys = RmsNorm::new(64, 1e-6, vb.pp("rms")).unwrap().forward(&xs).unwrap();
    assert_close("mean square", &ys.sqr().unwrap().mean(1).unwrap(), &ones, 0., 1e-6);
    // RMSNorm keeps the direction, LayerNorm keeps differences.
    let ratio = ys.broadcast_div(&ys.narrow(1, 0, 1).unwrap()).unwrap();
    let expected = xs.broadcast_div(&xs.narrow(1, 0, 1).unwrap()).unwrap();
    assert_close("direction", &ratio, &expected, 1e-12, 1e-12);
    let names: Vec<_> = shapes(&store).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["layer.bias", "layer.weight", "rms.weight"]);
}

#[test]
fn bad_input_is_named() {
    let (_store, vb) = store(1);
    let config = LayerNormConfig::default();
    let layer = LayerNorm::new((2, 3), config, vb.pp("a")).unwrap();
    let message = error(layer.forward(&tensor(&[0.; 6], &[3, 2])));
    assert!(message.contains("[2, 3]") && message.contains("[3, 2]"), "{message}");
    let zero: &[usize] = &[];
    assert!(error(LayerNorm::new(zero, config, vb.pp("b"))).contains("positive sizes"));
    assert!(error(RmsNorm::new(0, 1e-6, vb.pp("b"))).contains("positive sizes"));
    for eps in [-1., f64::NAN] {
        assert!(error(RmsNorm::new(2, eps, vb.pp("b"))).contains("eps"), "{eps}");
    }
    let config = LayerNormConfig { weight: false, ..config };
    assert!(error(LayerNorm::new(2, config, vb.pp("b"))).contains("needs a weight"));
    let none = Tensor::zeros((0, 2, 3), DType::F64, vb.device()).unwrap();
    assert_eq!(layer.forward(&none).unwrap().dims(), [0, 2, 3]);
}
