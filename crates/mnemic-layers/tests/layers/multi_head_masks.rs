//! Multi-head attention over padded, masked and causal sequences.

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use mnemic_layers::{AttentionOptions, Bias, Context, Mask, length_mask};
use mnemic_testing::{assert_close, waves};

use crate::multi_head::{SMALL, attend, inputs, layer, unmasked};
use crate::{probe, tensor};

#[test]
fn padding_changes_nothing() {
    let layer = layer(SMALL());
    let xs = waves(&[2, 5, 4], 0.2, 1., DType::F64);
    let lengths = [5, 3];
    let alone = attend(&layer, &xs.i((1..2, ..3)).unwrap(), &AttentionOptions::default());
    let mask = length_mask(&lengths, 5, &Device::Cpu).unwrap();
    let by_mask = AttentionOptions { key_mask: Some(&mask), ..AttentionOptions::default() };
    for options in [AttentionOptions::padded(&lengths), by_mask] {
        for junk in [0., 1., 1e6] {
            let noise = waves(&[2, 5, 4], 9., junk, DType::F64);
            let there = mask.unsqueeze(2).unwrap().broadcast_as((2, 5, 4)).unwrap();
            let xs = Var::from_tensor(&there.where_cond(&xs, &noise).unwrap()).unwrap();
            let ys = attend(&layer, &xs, &options).i((1..2, ..3)).unwrap();
            assert_close("valid outputs", &ys, &alone, 1e-13, 1e-14);
            let grads = probe(&ys).unwrap().backward().unwrap();
            let padding = grads.get(&xs).unwrap().i((1, 3..)).unwrap();
            assert_close("no gradient", &padding, &tensor(&[0.; 8], &[2, 4]), 0., 0.);
        }
    }
}

#[test]
fn masks_with_gaps() {
    // Rows padded on the left, and with a hole: as if the masked keys were not there.
    let layer = layer(SMALL());
    let xs = waves(&[2, 5, 4], 0.2, 1., DType::F64);
    let keep = [vec![2, 3, 4], vec![0, 2, 4]];
    let mask = Tensor::new(&[[0u8, 0, 1, 1, 1], [1, 0, 1, 0, 1]], &Device::Cpu).unwrap();
    let masked = AttentionOptions { key_mask: Some(&mask), ..AttentionOptions::default() };
    let kept = mnemic_layers::gather_steps(&xs, &keep).unwrap();
    let (all, alone) = (attend(&layer, &xs, &masked), attend(&layer, &kept, &unmasked()));
    let all = mnemic_layers::gather_steps(&all, &keep).unwrap();
    assert_close("as if not there", &all, &alone, 1e-13, 1e-14);
    // Together with a bias and a causal mask.
    let bias = waves(&[2, 2, 5, 5], 0.4, 1., DType::F64);
    let (causal, full) = (Mask::causal(), Bias::Full(&bias));
    let both = AttentionOptions { mask: causal, bias: full, ..masked };
    let ctx = Context::eval().watching();
    layer.forward(&xs, &xs, &xs, &both, &ctx).unwrap();
    let weights = ctx.take_trace().remove(0).value;
    let free = AttentionOptions { mask: causal, bias: full, ..AttentionOptions::default() };
    layer.forward(&xs, &xs, &xs, &free, &ctx).unwrap();
    let free = ctx.take_trace().remove(0).value;
    // Renormalised over the keys that are left.
    let there = mask.to_dtype(DType::F64).unwrap().reshape((2, 1, 1, 5)).unwrap();
    let left = free.broadcast_mul(&there).unwrap();
    let sum = left.sum_keepdim(3).unwrap();
    let sum = sum.maximum(&sum.ones_like().unwrap().affine(1e-300, 0.).unwrap()).unwrap();
    assert_close("weights", &weights, &left.broadcast_div(&sum).unwrap(), 1e-12, 1e-14);
}

#[test]
fn lengths_and_mask_join() {
    let layer = layer(SMALL());
    let xs = waves(&[2, 5, 4], 0.2, 1., DType::F64);
    let mask = length_mask(&[2, 5], 5, &Device::Cpu).unwrap();
    let both = AttentionOptions { key_mask: Some(&mask), ..AttentionOptions::padded(&[4, 3]) };
    let (a, b) = (attend(&layer, &xs, &both), AttentionOptions::padded(&[2, 3]));
    assert_close("the shorter", &a, &attend(&layer, &xs, &b), 0., 0.);
}

#[test]
fn a_row_without_keys_gives_the_bias() {
    let layer = layer(SMALL());
    let xs = Var::from_tensor(&inputs()).unwrap();
    let mask = Tensor::new(&[[1u8, 1, 1], [0, 0, 0]], &Device::Cpu).unwrap();
    let ys = attend(&layer, &xs, &AttentionOptions { key_mask: Some(&mask), ..unmasked() });
    let bias = waves(&[4], 2., 0.5, DType::F64).broadcast_as((3, 4)).unwrap();
    assert_close("output", &ys.i(1).unwrap(), &bias, 0., 1e-15);
    let grads = probe(&ys).unwrap().backward().unwrap();
    let none = grads.get(&xs).unwrap().i(1).unwrap();
    assert_close("gradient", &none, &tensor(&[0.; 12], &[3, 4]), 0., 0.);
    for (b, n_q, n_k) in [(0, 3, 3), (2, 0, 3), (2, 3, 0)] {
        let empty = |n| Tensor::zeros((b, n, 4), DType::F64, &Device::Cpu).unwrap();
        let (q, k) = (empty(n_q), empty(n_k));
        let ys = layer.forward(&q, &k, &k, &unmasked(), &Context::eval()).unwrap();
        assert_eq!(ys.dims(), [b, n_q, 4]);
    }
}

#[test]
fn no_query_sees_the_future() {
    let layer = layer(SMALL());
    let xs = Var::from_tensor(&waves(&[1, 5, 4], 0.2, 1., DType::F64)).unwrap();
    let ys = attend(&layer, &xs, &AttentionOptions::causal());
    for t in 0..5 {
        let grads = probe(&ys.i((.., t)).unwrap()).unwrap().backward().unwrap();
        let reach = grads.get(&xs).unwrap().abs().unwrap().sum(2).unwrap();
        let reach = reach.to_vec2::<f64>().unwrap().remove(0);
        assert!(reach[..=t].iter().all(|&g| g > 0.), "{t}: {reach:?}");
        assert!(reach[t + 1..].iter().all(|&g| g == 0.), "{t}: {reach:?}");
    }
}
