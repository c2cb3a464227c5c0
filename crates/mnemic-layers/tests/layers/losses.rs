//! Losses.

use candle_core::{DType, Tensor, Var};
use mnemic_layers::losses::{Reduction, bce_with_logits, l2_penalty, margin_ranking, mse};
use mnemic_layers::{init, linear};
use mnemic_testing::{assert_close, check_gradients, waves};

use crate::{error, store, tensor};

#[test]
fn binary_cross_entropy() {
    let logits = waves(&[3, 4], 0., 3., DType::F64);
    let targets = waves(&[3, 4], 5., 0.5, DType::F64).affine(1., 0.5).unwrap(); // in [0, 1]
    let p = ((logits.neg().unwrap().exp().unwrap() + 1.).unwrap()).recip().unwrap();
    let positive = targets.mul(&p.log().unwrap()).unwrap();
    let rest = targets.affine(-1., 1.).unwrap().mul(&p.affine(-1., 1.).unwrap().log().unwrap());
    let expected = (positive + rest.unwrap()).unwrap().neg().unwrap();
    let each = bce_with_logits(&logits, &targets, Reduction::None).unwrap();
    assert_close("each", &each, &expected, 0., 1e-13);
    let sum = bce_with_logits(&logits, &targets, Reduction::Sum).unwrap();
    assert_close("sum", &sum, &expected.sum_all().unwrap(), 0., 1e-12);
    let mean = bce_with_logits(&logits, &targets, Reduction::Mean).unwrap();
    assert_close("mean", &mean, &expected.mean_all().unwrap(), 0., 1e-13);
    check_gradients(&[("logits", logits)], 1e-7, |t| {
        bce_with_logits(&t[0], &targets, Reduction::Mean)
    });
}

#[test]
fn extreme_logits_stay_finite() {
    for dtype in [DType::F32, DType::F64] {
        let logits = tensor(&[200., -200., 200., -200., 0., 1e30, -1e30], &[7]);
        let logits = Var::from_tensor(&logits.to_dtype(dtype).unwrap()).unwrap();
        let targets = tensor(&[1., 0., 0., 1., 1., 1., 0.], &[7]).to_dtype(dtype).unwrap();
        let losses = bce_with_logits(&logits, &targets, Reduction::None).unwrap();
        let expected = tensor(&[0., 0., 200., 200., 2f64.ln(), 0., 0.], &[7]);
        assert_close("losses", &losses, &expected, 0., 1e-6);
        let grads = losses.sum_all().unwrap().backward().unwrap();
        let expected = tensor(&[0., 0., 1., -1., -0.5, 0., 0.], &[7]);
        assert_close("gradient", grads.get(&logits).unwrap(), &expected, 0., 1e-6);
    }
}

#[test]
fn margins() {
    let gold = tensor(&[1., 0.2], &[2, 1]);
    let negative = tensor(&[0.5, 0.95, 2., 0., 0.15, -1.], &[2, 3]);
    let losses = margin_ranking(&gold, &negative, 0.1, Reduction::None).unwrap();
    let expected = tensor(&[0., 0.05, 1.1, 0., 0.05, 0.], &[2, 3]);
    assert_close("losses", &losses, &expected, 0., 1e-15);
    let sum = margin_ranking(&gold, &negative, 0.1, Reduction::Sum).unwrap();
    assert_close("sum", &sum, &tensor(&[1.2], &[]), 0., 1e-15);
    check_gradients(&[("gold", gold), ("negative", negative)], 1e-8, |t| {
        margin_ranking(&t[0], &t[1], 0.1, Reduction::Mean)
    });
    error(margin_ranking(&tensor(&[1., 1.], &[2]), &tensor(&[1.; 3], &[3]), 0.1, Reduction::Sum));
}

#[test]
fn squares() {
    let (a, b) = (tensor(&[1., 2., 3.], &[3]), tensor(&[1., 0., 0.], &[3]));
    assert_close("mse", &mse(&a, &b).unwrap(), &tensor(&[13. / 3.], &[]), 0., 1e-15);
    check_gradients(&[("a", a.clone()), ("b", b)], 1e-8, |t| mse(&t[0], &t[1]));
    let message = error(mse(&a, &tensor(&[1.], &[1])));
    assert!(message.contains("mse: expected targets [3], got [1]"), "{message}");
    let message = error(bce_with_logits(&a, &tensor(&[1.], &[1]), Reduction::Sum));
    assert!(message.contains("bce_with_logits: expected targets [3], got [1]"), "{message}");
}

#[test]
fn penalty_on_chosen_parameters() {
    let (store, vb) = store(1);
    linear(2, 3, true, init::constant(2.), vb.pp("a")).unwrap();
    linear(1, 2, true, init::constant(3.), vb.pp("b")).unwrap();
    let vars = store.vars();
    let penalty = l2_penalty(&vars, |name| name.ends_with("weight")).unwrap();
    assert_close("penalty", &penalty, &tensor(&[24. + 18.], &[]), 0., 0.);
    let grads = penalty.backward().unwrap();
    for (name, var) in &vars {
        match grads.get(var) {
            Some(grad) => {
                assert!(name.ends_with("weight"), "{name}");
                let twice: Tensor = (var.as_tensor() * 2.).unwrap();
                assert_close(name, grad, &twice, 0., 0.);
            }
            None => assert!(name.ends_with("bias"), "{name}"),
        }
    }
    let message = error(l2_penalty(&vars, |_| false));
    assert!(message.contains("l2_penalty: none of the 4 parameters is accepted"), "{message}");
}
