use candle_core::{DType, Device};
use mnemic_testing::{assert_close, check_gradients, waves};

use super::*;
use crate::checks::agree;

fn choices(n: usize, actions: usize) -> (Vec<usize>, Vec<f64>) {
    let chosen = (0..n).map(|i| (i * 7 + 1) % actions.max(2)).collect();
    (chosen, (0..n).map(|i| (i as f64 * 0.7).sin() * 2.).collect())
}

#[test]
fn equals_plain_and_finite_differences() {
    for (n, actions) in [(1, 1), (5, 1), (4, 2), (7, 3), (3, 17)] {
        for entropy in [0., 0.3] {
            let (chosen, advantages) = choices(n, actions);
            let logits = waves(&[n, actions], 1., 2., DType::F64);
            agree(
                std::slice::from_ref(&logits),
                |x| Ok(vec![policy_gradient(&x[0], &chosen, &advantages, entropy)?]),
                |x| Ok(vec![plain::policy_gradient(&x[0], &chosen, &advantages, entropy)?]),
            );
            check_gradients(&[("logits", logits)], 1e-6, |x| {
                policy_gradient(&x[0], &chosen, &advantages, entropy)
            });
        }
    }
}

/// The mean over all actions of each one's gradient, weighted by its probability, is that of the expected reward; a baseline changes nothing.
#[test]
fn the_mean_gradient_is_that_of_the_expected_reward() {
    let logits = waves(&[1, 3], 1., 1.5, DType::F64);
    let rewards = [0.3, -1.2, 2.];
    let p = crate::softmax::softmax(&logits).unwrap().to_vec2::<f64>().unwrap().remove(0);
    let mean: f64 = p.iter().zip(rewards).map(|(p, r)| p * r).sum();
    for baseline in [0., 0.7] {
        let mut gradient = [0.; 3];
        for action in 0..3 {
            let all = crate::checks::run(std::slice::from_ref(&logits), &|x: &[Tensor]| {
                Ok(vec![policy_gradient(&x[0], &[action], &[rewards[action] - baseline], 0.)?])
            });
            // The probe's factor of the loss.
            let probe = waves(&[], 5., 1., DType::F64).to_scalar::<f64>().unwrap();
            let d = all[1].to_vec2::<f64>().unwrap().remove(0);
            (0..3).for_each(|i| gradient[i] -= p[action] * d[i] / probe);
        }
        let expected: Vec<f64> = (0..3).map(|i| p[i] * (rewards[i] - mean)).collect();
        let tensor = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
        assert_close("gradient", &tensor(&gradient), &tensor(&expected), 1e-12, 1e-12);
    }
}

#[test]
fn what_is_forbidden_stays_finite() {
    let logits = Tensor::new(&[[0f32, -1e10, 1.]], &Device::Cpu).unwrap();
    let all = crate::checks::run(&[logits], &|x: &[Tensor]| {
        Ok(vec![policy_gradient(&x[0], &[2], &[1.], 0.1)?])
    });
    let gradient = all[1].to_vec2::<f32>().unwrap().remove(0);
    assert!(gradient.iter().all(|g| g.is_finite()) && gradient[1] == 0., "{gradient:?}");
}

#[test]
fn wrong_rows_and_actions_are_named() {
    let logits = waves(&[2, 3], 1., 1., DType::F64);
    let error = policy_gradient(&logits, &[0], &[1., 1.], 0.).unwrap_err().to_string();
    assert!(error.contains("expected 2 actions and advantages, got 1 and 2"), "{error}");
    let error = policy_gradient(&logits, &[0, 3], &[1., 1.], 0.).unwrap_err().to_string();
    assert!(error.contains("one of 3 actions, got 3"), "{error}");
}
