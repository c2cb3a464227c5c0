//! Attention of one query over a memory.

use candle_core::{DType, Device, Tensor, Var};
use mnemic_layers::{dot_attention, length_mask};
use mnemic_testing::{assert_close, check_gradients, waves};

use crate::{error, probe, tensor};

#[test]
fn worked_numbers() {
    let query = tensor(&[1., 0.5], &[1, 2]);
    let keys = tensor(&[1., 0., 0., 1., 1., 1.], &[1, 3, 2]);
    let values = tensor(&[2., 0., 0., 2., 1., -1.], &[1, 3, 2]);
    let (p, o) = dot_attention(&query, &keys, &values, None, false).unwrap();
    assert_close("p", &p, &tensor(&[0.307196, 0.186324, 0.506480], &[1, 3]), 0., 1e-6);
    assert_close("o", &o, &tensor(&[1.120872, -0.133833], &[1, 2]), 0., 1e-6);
    let (p, o) = dot_attention(&query, &keys, &values, None, true).unwrap();
    assert_close("linear p", &p, &tensor(&[1., 0.5, 1.5], &[1, 3]), 0., 0.);
    assert_close("linear o", &o, &tensor(&[3.5, -0.5], &[1, 2]), 0., 0.);
}

#[test]
fn one_memory_and_empty_slots() {
    let query = waves(&[2, 3], 0., 1., DType::F64);
    let memory = waves(&[2, 1, 3], 1., 1., DType::F64);
    let (p, o) = dot_attention(&query, &memory, &memory, None, false).unwrap();
    assert_eq!(p.to_vec2::<f64>().unwrap(), [[1.], [1.]]);
    assert_close("o = c", &o, &memory.squeeze(1).unwrap(), 0., 0.);

    // An empty slot scores 0: unmasked, it scales p by Z / (Z + 1); masked, it changes nothing.
    let memory = waves(&[2, 4, 3], 1., 1., DType::F64);
    let empty = Tensor::zeros((2, 1, 3), DType::F64, &Device::Cpu).unwrap();
    let more = Tensor::cat(&[&memory, &empty], 1).unwrap();
    let (p, o) = dot_attention(&query, &memory, &memory, None, false).unwrap();
    let mask = length_mask(&[4, 4], 5, &Device::Cpu).unwrap();
    let (masked, output) = dot_attention(&query, &more, &more, Some(&mask), false).unwrap();
    assert_close("masked p", &masked.narrow(1, 0, 4).unwrap(), &p, 0., 1e-16);
    assert_close("masked o", &output, &o, 0., 1e-15);
    let (open, _) = dot_attention(&query, &more, &more, None, false).unwrap();
    let scores = memory.matmul(&query.unsqueeze(2).unwrap()).unwrap().squeeze(2).unwrap();
    let z = scores.exp().unwrap().sum_keepdim(1).unwrap(); // (b, 1)
    let factor = (&z / (&z + 1.).unwrap()).unwrap();
    let expected = p.broadcast_mul(&factor).unwrap();
    assert_close("unmasked p", &open.narrow(1, 0, 4).unwrap(), &expected, 0., 1e-15);
}

#[test]
fn masked_places_matter_not_at_all() {
    let query = waves(&[2, 3], 0., 1., DType::F64);
    let memory = waves(&[2, 4, 3], 1., 1., DType::F64);
    let mask = length_mask(&[2, 0], 4, &Device::Cpu).unwrap();
    let noise = waves(&[2, 4, 3], 8., 50., DType::F64);
    let valid = mask.unsqueeze(2).unwrap().broadcast_as((2, 4, 3)).unwrap();
    let noisy = Var::from_tensor(&valid.where_cond(&memory, &noise).unwrap()).unwrap();
    for linear in [false, true] {
        let (p, o) = dot_attention(&query, &memory, &memory, Some(&mask), linear).unwrap();
        let (q, r) = dot_attention(&query, &noisy, &noisy, Some(&mask), linear).unwrap();
        assert_close("p", &p, &q, 0., 0.);
        assert_close("o", &o, &r, 0., 0.);
        let zero = p.narrow(0, 1, 1).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(zero.to_scalar::<f64>().unwrap(), 0., "a wholly masked row");
        let grads = probe(&r).unwrap().backward().unwrap();
        let grad = grads.get(&noisy).unwrap();
        let outside = valid.where_cond(&grad.zeros_like().unwrap(), grad).unwrap();
        assert_close("gradient", &outside, &grad.zeros_like().unwrap(), 0., 0.);
        assert!(grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap() > 0.);
    }
}

#[test]
fn extreme_scores_stay_finite() {
    for scale in [200., 1e30] {
        let query = tensor(&[scale, -scale], &[1, 2]).to_dtype(DType::F32).unwrap();
        let memory = Var::from_tensor(
            &tensor(&[1., 0., 0., 1., 0.5, 0.5], &[1, 3, 2]).to_dtype(DType::F32).unwrap(),
        )
        .unwrap();
        let (p, o) = dot_attention(&query, &memory, &memory, None, false).unwrap();
        assert_eq!(p.to_vec2::<f32>().unwrap(), [[1., 0., 0.]]);
        let grads = probe(&o).unwrap().backward().unwrap();
        let grad = grads.get(&memory).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    }
}

#[test]
fn gradients() {
    let inputs = [
        ("query", waves(&[2, 3], 0., 1., DType::F64)),
        ("keys", waves(&[2, 4, 3], 1., 1., DType::F64)),
        ("values", waves(&[2, 4, 2], 2., 1., DType::F64)),
    ];
    let mask = length_mask(&[4, 2], 4, &Device::Cpu).unwrap();
    for linear in [false, true] {
        for mask in [None, Some(&mask)] {
            check_gradients(&inputs, 1e-7, |t| {
                let (weights, output) = dot_attention(&t[0], &t[1], &t[2], mask, linear)?;
                probe(&weights)? + probe(&output)?
            });
        }
    }
}

#[test]
fn bad_input_is_named() {
    let (query, keys) = (waves(&[2, 3], 0., 1., DType::F64), waves(&[2, 4, 3], 0., 1., DType::F64));
    let wide = waves(&[2, 4], 0., 1., DType::F64);
    let message = error(dot_attention(&wide, &keys, &keys, None, false));
    assert!(message.contains("expected the query (2, 3), got [2, 4]"), "{message}");
    let short = waves(&[2, 3, 3], 0., 1., DType::F64);
    let message = error(dot_attention(&query, &keys, &short, None, false));
    assert!(message.contains("expected values (2, 4, d_v), got [2, 3, 3]"), "{message}");
    let mask = length_mask(&[1, 1], 3, &Device::Cpu).unwrap();
    let message = error(dot_attention(&query, &keys, &keys, Some(&mask), true));
    assert!(message.contains("expected the mask (2, 4) of U8, got [2, 3]"), "{message}");
}
