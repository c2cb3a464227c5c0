//! The fused scan against its plain twin, finite differences and its own bits.

use candle_core::{DType, Device, Tensor};
use mnemic_testing::{check_gradients, waves};

use super::super::{Weights, plain, scan};
use super::*;
use crate::checks::{agree, same_bits};

/// A kind of network and its sizes.
#[derive(Debug, Clone, Copy)]
struct Case {
    structure: Structure,
    no_op: bool,
    recurrent: bool,
    b: usize,
    t: usize,
    m: usize,
    stacks: usize,
    capacity: usize,
    visible: usize,
}

/// A list with everything.
const SMALL: Case = Case {
    structure: Structure::List,
    no_op: true,
    recurrent: true,
    b: 2,
    t: 7,
    m: 3,
    stacks: 2,
    capacity: 5,
    visible: 3,
};

impl Case {
    /// Every kind with the same sizes.
    fn kinds(self) -> Vec<Self> {
        let mut all = vec![];
        for structure in [Structure::Stack, Structure::List] {
            for no_op in [false, true] {
                for recurrent in [false, true] {
                    all.push(Self { structure, no_op, recurrent, ..self });
                }
            }
        }
        all
    }

    /// In the operation's order, with actions that are far from even.
    fn operands(self, dtype: DType) -> Vec<Tensor> {
        let Self { b, t, m, stacks, visible, .. } = self;
        let actions = stacks * self.structure.num_actions(self.no_op);
        let mut x = vec![
            waves(&[b, t, m], 1., 2., dtype),
            waves(&[m, stacks * visible], 2., 0.9, dtype),
            waves(&[actions, m], 3., 1.5, dtype),
            waves(&[stacks, m], 4., 1., dtype),
        ];
        if self.recurrent {
            x.push(waves(&[m, m], 5., 0.8, dtype));
        }
        x
    }

    fn scan(self, x: &[Tensor]) -> Result<Tensor> {
        scan(self.structure, &x[0], weights(x), self.capacity, self.visible)
    }

    fn check(self) {
        let plain = |x: &[Tensor]| {
            plain::scan(self.structure, &x[0], weights(x), self.capacity, self.visible)
        };
        agree(&self.operands(DType::F64), |x| Ok(vec![self.scan(x)?]), |x| Ok(vec![plain(x)?]));
    }
}

fn weights(x: &[Tensor]) -> Weights<'_> {
    Weights { visible: &x[1], actions: &x[2], push: &x[3], recurrent: x.get(4) }
}

#[test]
fn equals_plain_for_every_kind() {
    for case in (Case { b: 3, t: 9, ..SMALL }).kinds() {
        case.check();
    }
}

/// Some cells, all and more than there are; groups that are not full; rows of stacks that end between vectors and after several.
#[test]
fn equals_plain_for_odd_sizes() {
    for (b, t, m, stacks, capacity, visible) in [
        (1, 1, 1, 1, 1, 1),
        (1, 2, 3, 1, 1, 2),
        (1, 5, 4, 3, 200, 1),
        (2, 6, 5, 17, 4, 9),
        (7, 12, 8, 10, 6, 2),
        (23, 4, 7, 10, 3, 4),
        (5, 3, 17, 33, 9, 2),
    ] {
        for structure in [Structure::Stack, Structure::List] {
            for (no_op, recurrent) in [(false, false), (true, true)] {
                let sizes = Case { b, t, m, stacks, capacity, visible, ..SMALL };
                Case { structure, no_op, recurrent, ..sizes }.check();
            }
        }
    }
}

/// As long as the paper's: several segments, cells up to the capacity and beyond.
#[test]
fn equals_plain_over_a_long_sequence() {
    for structure in [Structure::Stack, Structure::List] {
        for capacity in [31, 200] {
            Case { structure, b: 2, t: 70, capacity, ..SMALL }.check();
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for case in SMALL.kinds() {
        let x = case.operands(DType::F64);
        let names = ["inputs", "visible", "actions", "push", "recurrent"];
        let named: Vec<(&str, Tensor)> = names.into_iter().zip(x).collect();
        check_gradients(&named, 1e-6, |x| {
            let out = case.scan(x)?;
            (&out * waves(out.dims(), 7., 1., DType::F64))?.sum_all()
        });
    }
}

#[test]
fn repeated_runs_and_threads_give_the_same_bits() {
    // So much that threads share the groups.
    for case in (Case { b: 40, t: 60, m: 20, stacks: 10, capacity: 41, ..SMALL }).kinds() {
        same_bits(&case.operands(DType::F32), |x| Ok(vec![case.scan(x)?]));
    }
}

#[test]
fn without_a_gradient_the_results_have_the_same_bits() {
    for case in (Case { b: 11, t: 20, ..SMALL }).kinds() {
        let x = case.operands(DType::F32);
        let vars = x.iter().map(candle_core::Var::from_tensor).collect::<Result<Vec<_>>>().unwrap();
        let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let numbers =
            |x: &[Tensor]| case.scan(x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(&x), numbers(&tracked));
    }
}

/// Only some operands are variables, as where part of a network is fixed.
#[test]
fn single_operands_get_their_gradients() {
    let x = SMALL.operands(DType::F64);
    let all = crate::checks::run(&x, &|x: &[Tensor]| Ok(vec![SMALL.scan(x)?]));
    for i in 0..x.len() {
        let var = candle_core::Var::from_tensor(&x[i]).unwrap();
        let mut x = x.clone();
        x[i] = var.as_tensor().clone();
        let y = SMALL.scan(&x).unwrap();
        let loss = (&y * waves(y.dims(), 5., 1., DType::F64)).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let got = grads.get(&var).unwrap();
        mnemic_testing::assert_close("operand", got, &all[1 + i], 1e-12, 1e-12);
    }
}

#[test]
fn half_precision_and_empty_batches_are_taken() {
    let case = Case { recurrent: false, ..SMALL };
    let x: Vec<Tensor> = case.operands(DType::F32);
    let half: Vec<Tensor> = x.iter().map(|x| x.to_dtype(DType::F16).unwrap()).collect();
    let got = case.scan(&half).unwrap();
    assert_eq!(got.dtype(), DType::F16);
    mnemic_testing::assert_close(
        "f16",
        &got.to_dtype(DType::F32).unwrap(),
        &case.scan(&x).unwrap(),
        5e-3,
        5e-3,
    );
    let mut x = x;
    x[0] = Tensor::zeros((0, 4, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(case.scan(&x).unwrap().dims(), [0, 4, 3]);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let x = SMALL.operands(DType::F64);
    let error = |i: usize, dims: &[usize]| {
        let mut x = x.clone();
        x[i] = waves(dims, 1., 1., DType::F64);
        SMALL.scan(&x).unwrap_err().to_string()
    };
    for (i, dims) in [(1, [3, 5]), (2, [5, 3]), (2, [8, 2]), (3, [2, 4]), (4, [3, 2])] {
        let text = error(i, &dims);
        let expected = "P (3, 6), A (6 or 8, 3), D (S > 0, 3) and R (3, 3)";
        assert!(i == 3 || text.contains(expected), "{text}");
        assert!(text.contains(&format!("{dims:?}")) && text.contains("[2, 7, 3]"), "{text}");
    }
    let none = |capacity, visible| {
        let mut x = x.clone();
        x[1] = waves(&[3, 2 * visible], 1., 1., DType::F64);
        Case { capacity, visible, ..SMALL }.scan(&x).unwrap_err().to_string()
    };
    assert!(none(0, 3).contains("got 0 and 3"));
    assert!(none(5, 0).contains("got 5 and 0"));
}
