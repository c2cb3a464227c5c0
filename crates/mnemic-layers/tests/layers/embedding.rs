//! Embeddings and position weights.

use candle_core::{DType, Device, Tensor};
use mnemic_layers::{Embedding, PositionEncoding, init, position_encoding};
use mnemic_testing::{assert_close, waves};

use crate::{check_layer, error, probe, store, tensor};

fn ids() -> Tensor {
    Tensor::new(&[[[1u32, 2, 0], [3, 3, 1]], [[4, 0, 0], [0, 0, 0]]], &Device::Cpu).unwrap()
}

#[test]
fn padding_is_zero_whatever_it_holds() {
    let (store, vb) = store(1);
    let layer = Embedding::new(5, 2, init::normal(1.), Some(0), vb.clone()).unwrap();
    let var = store.get("weight").unwrap();
    let rows = var.to_vec2::<f64>().unwrap();
    assert_eq!(rows[0], [0., 0.], "the padding row starts at zero");
    assert!(rows[1..].iter().flatten().all(|v| *v != 0.));
    var.set(&waves(&[5, 2], 3., 1., DType::F64)).unwrap();
    let table = var.to_vec2::<f64>().unwrap();
    let words = layer.forward(&ids()).unwrap();
    assert_eq!(words.dims(), [2, 2, 3, 2]);
    let words = words.reshape((12, 2)).unwrap().to_vec2::<f64>().unwrap();
    for (row, id) in words.iter().zip(ids().flatten_all().unwrap().to_vec1::<u32>().unwrap()) {
        let expected = if id == 0 { &vec![0., 0.] } else { &table[id as usize] };
        assert_eq!(row, expected);
    }
    let loss = probe(&layer.forward(&ids()).unwrap()).unwrap();
    let grads = loss.backward().unwrap();
    let grad = grads.get(&var).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(grad[0], [0., 0.]);
    assert!(grad[1..].iter().flatten().all(|g| *g != 0.));
    // A table that exists is not touched.
    let again = Embedding::new(5, 2, init::normal(1.), Some(0), vb).unwrap();
    assert_eq!(again.weight().to_vec2::<f64>().unwrap(), table);
}

#[test]
fn pooled_is_the_weighted_sum() {
    let (_store, vb) = store(2);
    let layer = Embedding::new(5, 4, init::normal(1.), Some(0), vb).unwrap();
    for encoding in [PositionEncoding::BagOfWords, PositionEncoding::Paper, PositionEncoding::Code]
    {
        let weights = position_encoding(3, 4, encoding, DType::F64, &Device::Cpu).unwrap();
        let pooled = layer.pooled(&ids(), Some(&weights)).unwrap();
        let words = layer.forward(&ids()).unwrap();
        let expected = words.broadcast_mul(&weights).unwrap().sum(2).unwrap();
        assert_close(&format!("{encoding:?}"), &pooled, &expected, 0., 1e-15);
        if encoding == PositionEncoding::BagOfWords {
            assert_close("plain", &layer.pooled(&ids(), None).unwrap(), &pooled, 0., 1e-15);
        }
    }
}

#[test]
fn position_weights() {
    let l = |encoding| position_encoding(3, 4, encoding, DType::F64, &Device::Cpu).unwrap();
    let paper =
        [0.583333, 0.5, 0.416667, 0.333333, 0.416667, 0.5, 0.583333, 0.666667, 0.25, 0.5, 0.75, 1.];
    assert_close("paper", &l(PositionEncoding::Paper), &tensor(&paper, &[3, 4]), 0., 1e-6);
    let code = [1.5, 1.166667, 0.833333, 0.5, 1., 1., 1., 1., 0.5, 0.833333, 1.166667, 1.5];
    assert_close("code", &l(PositionEncoding::Code), &tensor(&code, &[3, 4]), 0., 1e-6);
    assert_close("bag", &l(PositionEncoding::BagOfWords), &tensor(&[1.; 12], &[3, 4]), 0., 0.);
    let message = error(position_encoding(0, 4, PositionEncoding::Paper, DType::F64, &Device::Cpu));
    assert!(message.contains("position_encoding: sizes must be positive, got (0, 4)"), "{message}");
}

#[test]
fn gradients() {
    let weights =
        position_encoding(3, 4, PositionEncoding::Paper, DType::F64, &Device::Cpu).unwrap();
    for padding in [None, Some(0)] {
        check_layer(&[], 1e-8, |vb, _| {
            let layer = Embedding::new(5, 4, init::normal(1.), padding, vb)?;
            let pooled = layer.pooled(&ids(), Some(&weights))?;
            probe(&layer.forward(&ids())?.sqr()?)? + probe(&pooled.tanh()?)?
        });
    }
}

#[test]
fn bad_input_is_named() {
    let (_store, vb) = store(0);
    let message = error(Embedding::new(5, 4, init::normal(1.), Some(5), vb.clone()));
    assert!(message.contains("padding id 5 is not below the vocabulary size 5"), "{message}");
    let layer = Embedding::new(5, 4, init::normal(1.), None, vb).unwrap();
    let message = error(Embedding::from_weight(layer.weight().clone(), Some(9)));
    assert!(message.contains("padding id 9"), "{message}");
    let bad = Tensor::new(&[[7u32, 1, 1]], &Device::Cpu).unwrap();
    error(layer.forward(&bad));
    error(layer.pooled(&bad, None));
    let message = error(layer.pooled(&ids(), Some(&tensor(&[1.; 8], &[2, 4]))));
    assert!(message.contains("expected (3, 4) position weights, got [2, 4]"), "{message}");
}
