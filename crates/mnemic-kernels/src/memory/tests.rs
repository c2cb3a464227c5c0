//! The fused path against the plain twin, the paper's laws, and a worked example.

use candle_core::{DType, Device};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::{agree, same_bits};
use crate::softmax::softmax;

/// Memory, weightings (which sum to 1) and controls.
fn operands(b: usize, n: usize, w: usize, h: usize, s: usize) -> [Tensor; 3] {
    let before = softmax(&waves(&[b, h, n], 2., 1.5, DType::F64)).unwrap();
    [
        waves(&[b, n, w], 1., 0.8, DType::F64),
        before,
        waves(&[b, h, num_controls(w, s)], 3., 1.2, DType::F64),
    ]
}

const SIZES: [(usize, usize, usize, usize, usize); 6] = [
    (1, 1, 1, 1, 0),
    (2, 4, 2, 1, 1),
    (3, 5, 20, 2, 2),
    (1, 128, 20, 1, 1),
    (2, 63, 65, 3, 1),
    (2, 3, 7, 4, 1),
];

#[test]
fn address_equals_plain() {
    for (b, n, w, h, s) in SIZES {
        agree(
            &operands(b, n, w, h, s),
            |x| Ok(vec![address(&x[0], &x[1], &x[2], s)?]),
            |x| Ok(vec![plain::address(&x[0], &x[1], &x[2], s)?]),
        );
    }
}

#[test]
fn read_and_write_equal_plain() {
    for (b, n, w, h, _) in SIZES {
        let [memory, weights, _] = operands(b, n, w, h, 0);
        let read_inputs = [memory.clone(), weights.clone()];
        agree(
            &read_inputs,
            |x| Ok(vec![read(&x[0], &x[1])?]),
            |x| Ok(vec![plain::read(&x[0], &x[1])?]),
        );
        let erase = (waves(&[b, h, w], 4., 0.4, DType::F64) + 0.5).unwrap();
        let inputs = [memory, weights, erase, waves(&[b, h, w], 5., 1., DType::F64)];
        agree(
            &inputs,
            |x| Ok(vec![write(&x[0], &x[1], &x[2], &x[3])?]),
            |x| Ok(vec![plain::write(&x[0], &x[1], &x[2], &x[3])?]),
        );
    }
}

/// Memory, weightings and what `r` reading and `k` writing heads emit.
fn step_operands(
    (b, n, w): (usize, usize, usize),
    (r, k): (usize, usize),
    shift: usize,
) -> [Tensor; 3] {
    let emits = (r + k) * num_controls(w, shift) + 2 * k * w;
    [
        waves(&[b, n, w], 1., 1., DType::F64),
        softmax(&waves(&[b, r + k, n], 2., 1., DType::F64)).unwrap(),
        waves(&[b, emits], 3., 1., DType::F64),
    ]
}

#[test]
fn a_step_equals_its_single_operations() {
    for (b, n, w, r, k, shift) in [
        (2, 5, 3, 1, 1, 1),
        (3, 17, 20, 2, 3, 2),
        (1, 1, 1, 1, 1, 0),
        (2, 63, 65, 1, 2, 1),
        (1, 128, 32, 1, 1, 1),
        (1, 3, 4, 1, 17, 1),
    ] {
        let operands = step_operands((b, n, w), (r, k), shift);
        let all = |step: Step| vec![step.weights, step.read, step.memory];
        agree(
            &operands,
            |x| Ok(all(step(&x[0], &x[1], &x[2], (r, k), shift)?)),
            |x| Ok(all(plain::step(&x[0], &x[1], &x[2], (r, k), shift)?)),
        );
        // Whatever the loss depends on: the memory, what was read, or the weightings alone.
        for kept in 0..3 {
            let one = |step: Step| vec![all(step).swap_remove(kept)];
            agree(
                &operands,
                |x| Ok(one(step(&x[0], &x[1], &x[2], (r, k), shift)?)),
                |x| Ok(one(plain::step(&x[0], &x[1], &x[2], (r, k), shift)?)),
            );
        }
    }
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let (memory, before) = (zeros(&[1, 5, 3]), zeros(&[1, 2, 5]));
    let error = step(&memory, &before, &zeros(&[1, 23]), (1, 1), 1).unwrap_err().to_string();
    assert!(error.contains("(1, 24) that is emitted"), "{error}");
    let error = step(&memory, &before, &zeros(&[1, 40]), (1, 1), 5).unwrap_err().to_string();
    assert!(error.contains("largest shift"), "{error}");
}

#[test]
fn blend_equals_plain() {
    let operands = [
        waves(&[2, 3, 17], 1., 1., DType::F64),
        waves(&[2, 3, 17], 2., 1., DType::F64),
        Tensor::new(&[0.3f64], &Device::Cpu).unwrap(),
    ];
    agree(
        &operands,
        |x| Ok(vec![blend(&x[0], &x[1], &x[2])?]),
        |x| Ok(vec![plain::blend(&x[0], &x[1], &x[2])?]),
    );
    let named = ["first", "second", "share"].into_iter().zip(operands).collect::<Vec<_>>();
    check_gradients(&named, 1e-6, |x| blend(&x[0], &x[1], &x[2])?.sqr()?.sum_all());
    let one = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
    assert!(blend(&one, &one, &one).unwrap_err().to_string().contains("share [1], got [2]"));
}

#[test]
fn select_equals_plain() {
    let operands: Vec<Tensor> =
        (0..4).map(|i| waves(&[5, 3], f64::from(i), 1., DType::F64)).collect();
    for choice in [[0, 1, 2, 3, 0], [2, 2, 2, 2, 2], [3, 1, 3, 1, 1]] {
        agree(
            &operands,
            |x| Ok(vec![select(x, &choice)?]),
            |x| Ok(vec![plain::select(&x.iter().collect::<Vec<_>>(), &choice)?]),
        );
    }
    let error = |choice: &[usize]| select(&operands, choice).unwrap_err().to_string();
    assert!(error(&[0, 0, 4, 0, 0]).contains("one of 4 tensors, got 4"));
    assert!(error(&[0, 1]).contains("tensors of (2, w), got [[5, 3], [5, 3]]"));
    assert!(error(&[]).contains("no row"));
}

#[test]
fn tapes_equal_plain() {
    for (n, radius, positions) in [(5, 2, [0, 4, 2]), (7, 1, [6, 0, 3]), (1, 0, [0, 0, 0])] {
        let seen = 2 * radius + 1;
        let tapes = waves(&[3, n, 4], 1., 1., DType::F64);
        agree(
            std::slice::from_ref(&tapes),
            |x| Ok(vec![read_tape(&x[0], &positions, radius)?]),
            |x| Ok(vec![plain::read_tape(&x[0], &positions, radius)?]),
        );
        let changes = [2., 3.].map(|phase| waves(&[3, seen, 4], phase, 1., DType::F64));
        agree(
            &[vec![tapes], changes.to_vec()].concat(),
            |x| Ok(vec![write_tape(&x[0], &positions, &x[1], &x[2])?]),
            |x| Ok(vec![plain::write_tape(&x[0], &positions, &x[1], &x[2])?]),
        );
    }
    // A tape shorter than what a head sees can be read, not written.
    let tapes = waves(&[1, 2, 3], 1., 1., DType::F64);
    agree(
        std::slice::from_ref(&tapes),
        |x| Ok(vec![read_tape(&x[0], &[1], 2)?]),
        |x| Ok(vec![plain::read_tape(&x[0], &[1], 2)?]),
    );
    let wide = waves(&[1, 5, 3], 1., 1., DType::F64);
    let error = write_tape(&tapes, &[1], &wide, &wide).unwrap_err().to_string();
    assert!(error.contains("[1, 2, 3], got [1, 5, 3]"), "{error}");
    let error = read_tape(&tapes, &[2], 1).unwrap_err().to_string();
    assert!(error.contains("1 positions below 2, got [2]"), "{error}");
}

#[test]
fn gradients_agree_with_finite_differences() {
    let [memory, before, controls] = operands(2, 4, 3, 2, 1);
    let named = [("memory", memory.clone()), ("previous", before.clone()), ("controls", controls)];
    check_gradients(&named, 1e-6, |x| {
        let weights = address(&x[0], &x[1], &x[2], 1)?;
        (weights * waves(&[2, 2, 4], 7., 1., DType::F64))?.sum_all()
    });
    let (erase, add) =
        (waves(&[2, 2, 3], 8., 0.9, DType::F64), waves(&[2, 2, 3], 9., 1., DType::F64));
    let named = [("memory", memory), ("weights", before), ("erase", erase), ("add", add)];
    check_gradients(&named, 1e-6, |x| {
        let memory = write(&x[0], &x[1], &x[2], &x[3])?;
        let read = read(&memory, &x[1])?;
        (read.sqr()?.sum_all()? + (memory * waves(&[2, 4, 3], 6., 1., DType::F64))?.sum_all()?)?
            .affine(1., 0.)
    });
}

#[test]
fn gradients_of_steps_choices_and_tapes_agree_with_finite_differences() {
    let probe = |x: &Tensor| (x * waves(x.dims(), 7., 1., DType::F64))?.sum_all();
    let [memory, before, emitted] = step_operands((2, 5, 3), (1, 2), 1);
    let named = [("memory", memory), ("previous", before), ("emitted", emitted)];
    check_gradients(&named, 1e-6, |x| {
        let Step { weights, read, memory } = step(&x[0], &x[1], &x[2], (1, 2), 1)?;
        probe(&weights)? + probe(&read)? + probe(&memory)?
    });
    let pair =
        [("old", waves(&[3, 2], 1., 1., DType::F64)), ("new", waves(&[3, 2], 2., 1., DType::F64))];
    check_gradients(&pair, 1e-6, |x| probe(&select(x, &[1, 0, 1])?.sqr()?));
    let tapes = ("tapes", waves(&[2, 5, 3], 1., 1., DType::F64));
    check_gradients(std::slice::from_ref(&tapes), 1e-6, |x| {
        probe(&read_tape(&x[0], &[4, 2], 1)?.sqr()?)
    });
    let change = |name, phase| (name, waves(&[2, 3, 3], phase, 1., DType::F64));
    check_gradients(&[tapes, change("keep", 2.), change("add", 3.)], 1e-6, |x| {
        probe(&write_tape(&x[0], &[4, 2], &x[1], &x[2])?.sqr()?)
    });
}

#[test]
fn repeated_runs_and_threads_give_the_same_bits() {
    let x = operands(5, 33, 20, 2, 1).map(|t| t.to_dtype(DType::F32).unwrap());
    same_bits(&x, |x| {
        let weights = address(&x[0], &x[1], &x[2], 1)?;
        let rows = read(&x[0], &weights)?;
        Ok(vec![write(&x[0], &weights, &rows, &rows)?, weights])
    });
    let x = step_operands((5, 33, 20), (1, 2), 1).map(|t| t.to_dtype(DType::F32).unwrap());
    same_bits(&x, |x| {
        let Step { weights, read, memory } = step(&x[0], &x[1], &x[2], (1, 2), 1)?;
        Ok(vec![weights, read, memory])
    });
}

/// The inverse of softplus, for strengths.
fn strength(beta: f64) -> f64 {
    (beta.exp() - 1.).ln()
}

/// Controls of one head from values in their ranges; a shift of probability 0 becomes -1e4.
fn controls(key: &[f64], beta: f64, gate: f64, shift: &[f64], gamma: f64) -> Tensor {
    let mut all: Vec<f64> = key.iter().map(|k| k.atanh()).collect();
    all.extend([
        if beta == 0. { -1e4 } else { strength(beta) },
        (gate / (1. - gate)).ln().clamp(-1e4, 1e4),
    ]);
    all.extend(shift.iter().map(|s| s.ln().max(-1e4)));
    all.push(if gamma == 1. { -1e4 } else { strength(gamma - 1.) });
    let n = all.len();
    Tensor::from_vec(all, (1, 1, n), &Device::Cpu).unwrap()
}

/// Four slots, the second weight before.
fn example() -> (Tensor, Tensor) {
    let memory = Tensor::new(&[[[1f64, 0.], [0., 1.], [1., 1.], [-1., 0.]]], &Device::Cpu).unwrap();
    (memory, Tensor::new(&[[[0f64, 1., 0., 0.]]], &Device::Cpu).unwrap())
}

#[test]
fn the_worked_example() {
    let (memory, before) = example();
    // The cosine does not see the key's length, and tanh leaves (1, 1) out of reach.
    let head = controls(&[0.5, 0.5], 2., 0.5, &[0.1, 0.2, 0.7], 2.);
    let weights = address(&memory, &before, &head, 1).unwrap();
    let expected =
        Tensor::new(&[[[0.026425f64, 0.171290, 0.708519, 0.093765]]], &Device::Cpu).unwrap();
    assert_close("weights", &weights, &expected, 0., 1e-6);
    let vector = |x: [f64; 2]| Tensor::new(&[[x]], &Device::Cpu).unwrap();
    assert_close(
        "read",
        &read(&memory, &weights).unwrap(),
        &vector([0.641180, 0.879810]),
        0.,
        1e-6,
    );
    let memory = write(&memory, &weights, &vector([1., 0.5]), &vector([0.2, -0.4])).unwrap();
    let rows =
        [[0.978860, -0.010570], [0.034258, 0.845839], [0.433185, 0.362333], [-0.887482, -0.037506]];
    assert_close("memory", &memory, &Tensor::new(&[rows], &Device::Cpu).unwrap(), 0., 1e-6);
    assert_close(
        "read",
        &read(&memory, &weights).unwrap(),
        &vector([0.255440, 0.397808]),
        0.,
        1e-6,
    );
}

#[test]
fn a_shift_is_a_roll_and_no_gate_iterates() {
    let (memory, before) = example();
    let mut weights = before.clone();
    for step in 1..=4usize {
        weights = address(&memory, &weights, &controls(&[0.3, 0.1], 3., 0., &[0., 0., 1.], 1.), 1)
            .unwrap();
        let at = (1 + step) % 4;
        let expected: Vec<f64> = (0..4).map(|i| f64::from(i == at)).collect();
        let expected = Tensor::from_vec(expected, (1, 1, 4), &Device::Cpu).unwrap();
        assert_close("moved", &weights, &expected, 0., 1e-12);
    }
    assert_close("after a round", &weights, &before, 0., 1e-12);
}

#[test]
fn no_strength_means_everywhere_and_keys_have_no_length() {
    let (memory, before) = example();
    let head =
        |scale: f64, beta| controls(&[0.4 * scale, 0.2 * scale], beta, 1., &[0., 1., 0.], 1.);
    let uniform = address(&memory, &before, &head(1., 0.), 1).unwrap();
    assert_close(
        "uniform",
        &uniform,
        &uniform.ones_like().unwrap().affine(0.25, 0.).unwrap(),
        0.,
        1e-12,
    );
    let (long, short) = (head(1., 4.), head(0.1, 4.));
    let [long, short] = [long, short].map(|head| address(&memory, &before, &head, 1).unwrap());
    assert_close("length", &long, &short, 0., 1e-7);
}

#[test]
fn hostile_controls_give_finite_weights_and_gradients() {
    let memory = Tensor::full(1e-6f32, (1, 128, 20), &Device::Cpu).unwrap();
    let before = Tensor::full(1f32 / 128., (1, 1, 128), &Device::Cpu).unwrap();
    let size = num_controls(20, 1);
    for value in [-1e4f32, -20., 0., 20., 1e4] {
        for memory in [memory.clone(), memory.zeros_like().unwrap()] {
            let head = Tensor::full(value, (1, 1, size), &Device::Cpu).unwrap();
            let all = crate::checks::run(&[memory, before.clone(), head], &|x: &[Tensor]| {
                Ok(vec![address(&x[0], &x[1], &x[2], 1)?])
            });
            for t in &all {
                let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(values.iter().all(|v| v.is_finite()), "{value}");
            }
            let sum = all[0].sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!((sum - 1.).abs() < 1e-5, "{value}: {sum}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let [memory, before, head] = operands(2, 4, 3, 1, 1);
    let error = address(&memory, &before, &head, 2).unwrap_err().to_string();
    assert!(error.contains("[2, 1, 11]") && error.contains("[2, 1, 9]"), "{error}");
    assert!(address(&memory, &before, &waves(&[2, 1, 15], 1., 1., DType::F64), 4).is_err());
    let error = read(&memory, &waves(&[2, 1, 5], 1., 1., DType::F64)).unwrap_err().to_string();
    assert!(error.contains("(2, h, 4), got [2, 1, 5]"), "{error}");
    let wide = waves(&[2, 1, 4], 1., 1., DType::F64);
    assert!(write(&memory, &before, &wide, &wide).unwrap_err().to_string().contains("[2, 1, 3]"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rolling_memory_and_weights_rolls_the_result(
        n in 2usize..9, w in 1usize..6, h in 1usize..3, by in 1usize..8,
    ) {
        let [memory, before, head] = operands(2, n, w, h, 1);
        let roll = |t: &Tensor, dim: usize| t.roll((by % n) as i32, dim).unwrap();
        let weights = address(&memory, &before, &head, 1).unwrap();
        let sums = weights.sum(2).unwrap();
        assert_close("sums", &sums, &sums.ones_like().unwrap(), 0., 1e-12);
        let rolled = address(&roll(&memory, 1), &roll(&before, 2), &head, 1).unwrap();
        assert_close("rolled", &rolled, &roll(&weights, 2), 1e-12, 1e-12);
    }
}
