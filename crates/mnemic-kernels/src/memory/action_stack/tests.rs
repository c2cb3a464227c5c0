//! The fused path against the plain twin, worked numbers, discrete machines and laws.

use candle_core::{DType, Device};
use mnemic_testing::{assert_close, check_gradients, waves};

use super::*;
use crate::checks::{agree, same_bits};
use crate::softmax::softmax;

const ALL: [Structure; 2] = [Structure::Stack, Structure::List];

/// Cells, actions that sum to 1, values.
fn operands(structure: Structure, (b, s, n): (usize, usize, usize), no_op: bool) -> [Tensor; 3] {
    let a = structure.num_actions(no_op);
    let actions = softmax(&waves(&[b, s, a], 2., 1.5, DType::F64)).unwrap();
    [waves(&[b, s, n], 1., 0.9, DType::F64), actions, waves(&[b, s], 3., 0.8, DType::F64)]
}

fn both(step: Step) -> Vec<Tensor> {
    vec![step.cells, step.visible]
}

#[test]
fn a_step_equals_plain() {
    for structure in ALL {
        for no_op in [false, true] {
            for (b, s, n, capacity, visible) in [
                (1, 1, 1, 1, 1),
                (2, 3, 1, 9, 2),
                (1, 2, 3, 3, 5),
                (3, 2, 5, 6, 3),
                (2, 10, 63, 200, 2),
                (2, 2, 65, 65, 1),
            ] {
                let x = operands(structure, (b, s, n), no_op);
                let step = |x: &[Tensor]| {
                    update(structure, &x[0], &x[1], &x[2], capacity, visible).map(both)
                };
                agree(&x, step, |x| {
                    plain::update(structure, &x[0], &x[1], &x[2], capacity, visible).map(both)
                });
            }
        }
    }
}

/// From nothing, as long as cells are gained and for some steps more; what is seen at every step and the last cells.
fn run(structure: Structure, x: &[Tensor], capacity: usize) -> Result<Vec<Tensor>> {
    let (b, s, _) = x[0].dims3()?;
    let mut cells = Tensor::full(EMPTY, (b, s, structure.first_cells()), x[0].device())?
        .to_dtype(x[0].dtype())?;
    let mut out = vec![];
    for x in x.chunks_exact(2) {
        let step = update(structure, &cells, &x[0], &x[1], capacity, 3)?;
        (cells, out) = (step.cells, [out, vec![step.visible]].concat());
    }
    Ok([out, vec![cells]].concat())
}

fn sequence(structure: Structure, (b, s, t): (usize, usize, usize)) -> Vec<Tensor> {
    let step = |t: usize| {
        let a = structure.num_actions(true);
        let logits = waves(&[b, s, a], 0.7 * t as f64, 2., DType::F64);
        [softmax(&logits).unwrap(), waves(&[b, s], 1.3 * t as f64, 0.9, DType::F64)]
    };
    (0..t).flat_map(step).collect()
}

#[test]
fn gradients_agree_with_finite_differences() {
    for structure in ALL {
        let x = sequence(structure, (2, 2, 7));
        let names: Vec<String> = (0..x.len()).map(|i| format!("operand {i}")).collect();
        let named: Vec<(&str, Tensor)> =
            names.iter().map(String::as_str).zip(x.iter().cloned()).collect();
        check_gradients(&named, 1e-6, |x| {
            let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu)?;
            for (i, out) in run(structure, x, 5)?.iter().enumerate() {
                let factors = waves(out.dims(), i as f64, 1., DType::F64);
                sum = (sum + (out * factors)?.sum_all()?)?;
            }
            Ok(sum)
        });
    }
}

#[test]
fn repeated_runs_and_threads_give_the_same_bits() {
    for structure in ALL {
        let x: Vec<Tensor> = sequence(structure, (40, 10, 12))
            .iter()
            .map(|t| t.to_dtype(DType::F32).unwrap())
            .collect();
        same_bits(&x, |x| run(structure, x, 9));
        // Many cells, so that threads share the rows.
        let x = operands(structure, (40, 10, 199), true).map(|t| t.to_dtype(DType::F32).unwrap());
        same_bits(&x, |x| update(structure, &x[0], &x[1], &x[2], 201, 2).map(both));
    }
}

#[test]
fn steps_worked_by_hand() {
    let tensor =
        |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap().reshape((1, 1, x.len())).unwrap();
    let value = |x: f64| Tensor::new(&[[x]], &Device::Cpu).unwrap();
    let empty = Tensor::zeros((1, 1, 0), DType::F64, &Device::Cpu).unwrap();
    let one = update(Structure::Stack, &empty, &tensor(&[0.7, 0.2, 0.1]), &value(0.6), 4, 4);
    let one = one.unwrap();
    assert_close("first", &one.visible, &tensor(&[0.12, -1., -1., -1.]), 0., 1e-12);
    let two = update(Structure::Stack, &one.cells, &tensor(&[0.5, 0.5, 0.]), &value(0.9), 4, 4);
    assert_close("second", &two.unwrap().visible, &tensor(&[-0.05, -0.44, -1., -1.]), 0., 1e-12);
    // (1, 2, 3) with 2 under the head; INSERT 0.5, LEFT 0.25, RIGHT 0.125, NO-OP 0.125 of 8.
    let actions = tensor(&[0.5, 0.25, 0.125, 0.125]);
    let list = update(Structure::List, &tensor(&[1., 2., 3.]), &actions, &value(8.), 5, 5).unwrap();
    let expected = [
        0.5 - 0.25 + 0.125 - 0.125, // 1 from the right; -1 from the left and here
        0.5 * 2. - 0.25 + 0.125 * 2. + 0.125, // the old head moves here; 1 was here
        0.5 * 8. + 0.25 * 1. + 0.125 * 3. + 0.125 * 2.,
        0.5 * 3. + 0.25 * 2. - 0.125 + 0.125 * 3.,
        -0.5 + 0.25 * 3. - 0.125 - 0.125,
    ];
    assert_close("list", &list.visible, &tensor(&expected), 0., 1e-12);
}

/// A random whole number below `n`.
fn draw(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as usize % n
}

/// One command in full, the others not at all.
fn command(i: usize, count: usize) -> Tensor {
    let all: Vec<f64> = (0..count).map(|j| f64::from(i == j)).collect();
    Tensor::from_vec(all, (1, 1, count), &Device::Cpu).unwrap()
}

#[test]
fn whole_actions_are_those_of_an_ordinary_stack() {
    let (mut held, mut state, capacity): (Vec<f64>, _, _) = (vec![], 7, 6);
    let mut cells = Tensor::zeros((1, 1, 0), DType::F64, &Device::Cpu).unwrap();
    for t in 0..200 {
        let (action, value) = (draw(&mut state, 3), t as f64);
        match action {
            0 => held.insert(0, value),
            1 if !held.is_empty() => drop(held.remove(0)),
            _ => {}
        }
        held.truncate(capacity);
        let pushed = Tensor::new(&[[value]], &Device::Cpu).unwrap();
        let step =
            update(Structure::Stack, &cells, &command(action, 3), &pushed, capacity, 8).unwrap();
        let expected: Vec<f64> = (0..8).map(|i| held.get(i).copied().unwrap_or(EMPTY)).collect();
        assert_eq!(step.visible.flatten_all().unwrap().to_vec1::<f64>().unwrap(), expected);
        cells = step.cells;
    }
    assert_eq!(cells.dims(), [1, 1, capacity]);
}

/// Two stacks and what lies under the head between them make the list; beyond the capacity it forgets.
#[test]
fn whole_actions_are_those_of_a_linked_list() {
    let (mut left, mut right): (Vec<f64>, Vec<f64>) = (vec![], vec![]);
    let (mut head, mut state, side) = (EMPTY, 3, 4);
    let mut cells = Tensor::full(EMPTY, (1, 1, 1), &Device::Cpu).unwrap();
    for t in 0..300 {
        let (action, value) = (draw(&mut state, 4), t as f64);
        match action {
            0 => {
                left.insert(0, head);
                head = value;
            }
            1 => {
                right.insert(0, head);
                head = if left.is_empty() { EMPTY } else { left.remove(0) };
            }
            2 => {
                left.insert(0, head);
                head = if right.is_empty() { EMPTY } else { right.remove(0) };
            }
            _ => {}
        }
        left.truncate(side);
        right.truncate(side);
        let written = Tensor::new(&[[value]], &Device::Cpu).unwrap();
        let step = update(Structure::List, &cells, &command(action, 4), &written, 2 * side + 1, 4)
            .unwrap();
        let at = |side: &[f64], i: usize| side.get(i).copied().unwrap_or(EMPTY);
        let expected = [at(&left, 0), head, at(&right, 0), at(&right, 1)];
        assert_eq!(step.visible.flatten_all().unwrap().to_vec1::<f64>().unwrap(), expected);
        cells = step.cells;
    }
    assert_eq!(cells.dims(), [1, 1, 2 * side + 1]);
}

#[test]
fn cells_stay_in_their_range_and_popping_empties() {
    for structure in ALL {
        let all = run(structure, &sequence(structure, (3, 2, 30)), 11).unwrap();
        for out in &all {
            let values = out.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(values.iter().all(|x| x.abs() <= 1. + 1e-12), "{values:?}");
        }
    }
    let mut cells = waves(&[1, 1, 9], 1., 0.9, DType::F64);
    let value = Tensor::new(&[[0.5f64]], &Device::Cpu).unwrap();
    for _ in 0..9 {
        cells = update(Structure::Stack, &cells, &command(1, 2), &value, 9, 1).unwrap().cells;
    }
    assert_eq!(cells.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [EMPTY; 9]);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let [cells, actions, values] = operands(Structure::Stack, (2, 3, 4), false);
    let error = |structure, cells: &Tensor, actions: &Tensor, capacity, visible| {
        update(structure, cells, actions, &values, capacity, visible).unwrap_err().to_string()
    };
    let four = waves(&[2, 3, 4], 1., 1., DType::F64);
    let text = error(Structure::Stack, &cells, &four, 9, 2);
    assert!(text.contains("(2, 3, 2 or 3)") && text.contains("[2, 3, 4]"), "{text}");
    assert!(error(Structure::Stack, &cells, &actions, 3, 2).contains("at most 3 cells"));
    assert!(error(Structure::Stack, &cells, &actions, 9, 0).contains("some to be seen"));
    assert!(error(Structure::List, &cells, &four, 9, 2).contains("odd number"));
}
