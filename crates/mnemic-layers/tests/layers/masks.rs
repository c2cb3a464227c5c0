//! Masks and picked steps.

use candle_core::{DType, Device, Tensor};
use mnemic_layers::{gather_steps, last_states, length_mask};
use mnemic_testing::{assert_close, check_gradients, waves};

use crate::{error, probe};

#[test]
fn last_valid_steps() {
    let xs = waves(&[3, 4, 2], 0., 1., DType::F64);
    let rows = xs.to_vec3::<f64>().unwrap();
    let last = last_states(&xs, &[4, 0, 2]).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(last, [rows[0][3].clone(), vec![0., 0.], rows[2][1].clone()]);
    // Not contiguous: time first.
    let moved = xs.transpose(0, 1).unwrap().contiguous().unwrap().transpose(0, 1).unwrap();
    let again = last_states(&moved, &[4, 0, 2]).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(again, last);
}

#[test]
fn facts_stand_at_sentence_ends() {
    // Two sentences of 4 and 3 words end at 3 and 6; the other row has one sentence of 5.
    let xs = waves(&[2, 7, 2], 0., 1., DType::F64);
    let rows = xs.to_vec3::<f64>().unwrap();
    let facts = gather_steps(&xs, &[vec![3, 6], vec![4]]).unwrap().to_vec3::<f64>().unwrap();
    assert_eq!(facts[0], [rows[0][3].clone(), rows[0][6].clone()]);
    assert_eq!(facts[1], [rows[1][4].clone(), vec![0., 0.]]);
}

#[test]
fn missing_steps_are_zero_even_beside_nan() {
    let xs = Tensor::new(&[[[f64::NAN], [1.]], [[f64::NAN], [2.]]], &Device::Cpu).unwrap();
    let facts = gather_steps(&xs, &[vec![1], vec![]]).unwrap();
    assert_eq!(facts.to_vec3::<f64>().unwrap(), [[[1.]], [[0.]]]);
}

#[test]
fn nothing_to_pick() {
    let xs = waves(&[2, 3, 2], 0., 1., DType::F64);
    assert_eq!(gather_steps(&xs, &[vec![], vec![]]).unwrap().dims(), [2, 0, 2]);
    let none = Tensor::zeros((2, 0, 2), DType::F64, &Device::Cpu).unwrap();
    let last = last_states(&none, &[0, 0]).unwrap();
    assert_close("last", &last, &waves(&[2, 2], 0., 0., DType::F64), 0., 0.);
    assert_eq!(length_mask(&[0, 0], 0, &Device::Cpu).unwrap().dims(), [2, 0]);
}

#[test]
fn gradients() {
    let inputs = [("xs", waves(&[2, 4, 3], 0., 1., DType::F64))];
    check_gradients(&inputs, 1e-8, |t| {
        // Step 1 is picked twice: its gradients add up.
        let facts = gather_steps(&t[0], &[vec![1, 1, 3], vec![0]])?;
        probe(&facts.sqr()?)? + probe(&last_states(&t[0], &[3, 0])?.sqr()?)?
    });
}

#[test]
fn bad_input_is_named() {
    let xs = waves(&[2, 3, 2], 0., 1., DType::F64);
    let message = error(length_mask(&[4], 3, &Device::Cpu));
    assert!(message.contains("length_mask: length 4 exceeds the 3 places"), "{message}");
    let message = error(last_states(&xs, &[1]));
    assert!(message.contains("last_states: 1 lengths for a batch of 2"), "{message}");
    let message = error(last_states(&xs, &[1, 4]));
    assert!(message.contains("last_states: length 4 exceeds the 3 steps"), "{message}");
    let message = error(gather_steps(&xs, &[vec![0]]));
    assert!(message.contains("gather_steps: 1 lists of steps for a batch of 2"), "{message}");
    let message = error(gather_steps(&xs, &[vec![0], vec![3]]));
    assert!(message.contains("gather_steps: step 3 is not below the 3 steps"), "{message}");
}
