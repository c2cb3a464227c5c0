//! The fused path against the plain twin, discrete machines, the paper's laws and its figure.

use candle_core::{DType, Device};
use mnemic_testing::{assert_close, check_gradients, waves};

use super::*;
use crate::checks::{agree, same_bits};

const ALL: [Structure; 3] = [Structure::Stack, Structure::Queue, Structure::Deque];

/// Numbers in [0, 1] that are no kink: none is 0 or 1, and no sums are equal.
fn fractions(dims: &[usize], phase: f64) -> Tensor {
    (waves(dims, phase, 0.45, DType::F64) + 0.5).unwrap()
}

/// `count` steps from nothing; commands and rows come in their order.
fn run(structure: Structure, x: &[Tensor], count: usize) -> Result<Vec<Tensor>> {
    let b = x[0].dim(0)?;
    let mut strengths = Tensor::zeros((b, 0), x[0].dtype(), x[0].device())?;
    let mut rows: Vec<Tensor> = vec![];
    let mut out = vec![];
    let each = structure.rows_per_step();
    for t in 0..count {
        let x = &x[t * (1 + each)..][..1 + each];
        let next = step(structure, &strengths, &x[0])?;
        rows.push(x[1].clone());
        if each == 2 {
            rows.insert(0, x[2].clone());
        }
        for weights in &next.weights {
            out.push(read(weights, &rows)?);
        }
        strengths = next.strengths;
    }
    out.push(strengths);
    Ok(out)
}

fn operands(structure: Structure, b: usize, m: usize, count: usize) -> Vec<Tensor> {
    let each = structure.rows_per_step();
    let mut out = vec![];
    for t in 0..count {
        out.push(fractions(&[b, 2 * each], 0.7 * t as f64 + 0.3));
        for i in 0..each {
            out.push(waves(&[b, m], 1.1 * t as f64 + 5. * i as f64, 1., DType::F64));
        }
    }
    out
}

#[test]
fn a_step_equals_plain() {
    for structure in ALL {
        for (b, n) in [(1, 0), (1, 1), (3, 2), (2, 63), (4, 65)] {
            let x = [fractions(&[b, n], 1.), fractions(&[b, 2 * structure.rows_per_step()], 2.)];
            let all = |s: Step| std::iter::once(s.strengths).chain(s.weights).collect::<Vec<_>>();
            if n == 0 {
                let (fused, twin) = (
                    step(structure, &x[0], &x[1]).unwrap(),
                    plain::step(structure, &x[0], &x[1]).unwrap(),
                );
                for (a, b) in all(fused).iter().zip(&all(twin)) {
                    assert_close("first", a, b, 1e-12, 0.);
                }
                continue;
            }
            agree(
                &x,
                |x| Ok(all(step(structure, &x[0], &x[1])?)),
                |x| Ok(all(plain::step(structure, &x[0], &x[1])?)),
            );
        }
    }
}

#[test]
fn a_reading_equals_plain() {
    for (b, n, m) in [(1, 1, 1), (3, 2, 5), (2, 17, 64), (2, 3, 65)] {
        let mut x = vec![fractions(&[b, n], 1.)];
        x.extend((0..n).map(|i| waves(&[b, m], i as f64, 1., DType::F64)));
        agree(&x, |x| Ok(vec![read(&x[0], &x[1..])?]), |x| Ok(vec![plain::read(&x[0], &x[1..])?]));
    }
}

#[test]
fn rows_without_weight_are_not_touched() {
    let weights = Tensor::new(&[[0f32, 1.], [0., 0.5]], &Device::Cpu).unwrap();
    let none = Tensor::full(f32::NAN, (2, 1), &Device::Cpu).unwrap();
    let rows = [none, Tensor::ones((2, 1), DType::F32, &Device::Cpu).unwrap()];
    assert_eq!(read(&weights, &rows).unwrap().to_vec2::<f32>().unwrap(), [[1.], [0.5]]);
}

#[test]
fn gradients_agree_with_finite_differences() {
    for structure in ALL {
        let x = operands(structure, 2, 3, 4);
        let names: Vec<String> = (0..x.len()).map(|i| format!("operand {i}")).collect();
        let named: Vec<(&str, Tensor)> =
            names.iter().map(String::as_str).zip(x.iter().cloned()).collect();
        check_gradients(&named, 1e-6, |x| {
            let out = run(structure, x, 4)?;
            let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu)?;
            for (i, out) in out.iter().enumerate() {
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
        let x: Vec<Tensor> =
            operands(structure, 5, 33, 6).iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
        same_bits(&x, |x| run(structure, x, 6));
    }
}

/// Figure 1 of the paper: push `v1` with 0.8; pop 0.1 and push `v2` with 0.5; pop 0.9 and push `v3` with 0.9.
#[test]
fn the_figure_of_the_paper() {
    let commands = [[0.8f64, 0.], [0.5, 0.1], [0.9, 0.9]];
    let x: Vec<Tensor> = commands
        .iter()
        .enumerate()
        .flat_map(|(i, command)| {
            let mut row = [0f64; 3];
            row[i] = 1.;
            [Tensor::new(&[*command], &Device::Cpu), Tensor::new(&[row], &Device::Cpu)]
        })
        .collect::<Result<_>>()
        .unwrap();
    for (structure, expected) in [
        (Structure::Stack, [[0.8, 0., 0.], [0.5, 0.5, 0.], [0.1, 0., 0.9], [0.3, 0., 0.9]]),
        (Structure::Queue, [[0.8, 0., 0.], [0.7, 0.3, 0.], [0., 0.3, 0.7], [0., 0.3, 0.9]]),
    ] {
        for (out, expected) in run(structure, &x, 3).unwrap().iter().zip(expected) {
            let expected = Tensor::new(&[expected], &Device::Cpu).unwrap();
            assert_close("figure 1", out, &expected, 1e-12, 0.);
        }
    }
}

/// With whole commands the machines are the ordinary ones; popping when empty does nothing.
#[test]
fn whole_commands_are_those_of_ordinary_machines() {
    use std::collections::VecDeque;
    for structure in ALL {
        let each = structure.rows_per_step();
        let mut held: VecDeque<f64> = VecDeque::new();
        let (mut strengths, mut rows) =
            (Tensor::zeros((1, 0), DType::F64, &Device::Cpu).unwrap(), vec![]);
        let mut state = 99u64;
        for t in 0..60 {
            let mut bit = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 60 & 1) as f64
            };
            let commands: Vec<f64> = (0..2 * each).map(|_| bit()).collect();
            let value = |end: f64| 2. * t as f64 + end + 1.;
            for (i, end) in structure.read_ends().iter().enumerate() {
                if commands[2 * i + 1] == 1. {
                    match end {
                        End::Top => held.pop_back(),
                        End::Bottom => held.pop_front(),
                    };
                }
            }
            let tensor = |x: f64| Tensor::new(&[[x]], &Device::Cpu).unwrap();
            rows.push(tensor(value(0.)));
            if commands[0] == 1. {
                held.push_back(value(0.));
            }
            if each == 2 {
                rows.insert(0, tensor(value(1.)));
                if commands[2] == 1. {
                    held.push_front(value(1.));
                }
            }
            let commands = Tensor::new(commands.as_slice(), &Device::Cpu).unwrap();
            let next = step(structure, &strengths, &commands.unsqueeze(0).unwrap()).unwrap();
            for (end, weights) in structure.read_ends().iter().zip(&next.weights) {
                let expected = match end {
                    End::Top => held.back(),
                    End::Bottom => held.front(),
                };
                let got = read(weights, &rows).unwrap().to_vec2::<f64>().unwrap()[0][0];
                assert_eq!(got, expected.copied().unwrap_or(0.), "{structure:?}, step {t}");
            }
            strengths = next.strengths;
        }
    }
}

#[test]
fn strength_is_conserved() {
    for structure in [Structure::Stack, Structure::Queue] {
        let (before, commands) = (fractions(&[3, 7], 1.), fractions(&[3, 2], 2.));
        let next = step(structure, &before, &commands).unwrap();
        let sums = |t: &Tensor| t.sum(1).unwrap().to_vec1::<f64>().unwrap();
        let commands = commands.to_vec2::<f64>().unwrap();
        let (old, new, read) = (sums(&before), sums(&next.strengths), sums(&next.weights[0]));
        for row in 0..3 {
            let expected = (old[row] - commands[row][1]).max(0.) + commands[row][0];
            assert!((new[row] - expected).abs() < 1e-12);
            assert!((read[row] - new[row].min(1.)).abs() < 1e-12);
        }
    }
}

#[test]
fn a_deque_left_alone_at_the_bottom_is_a_stack_and_reads_as_a_queue() {
    let (before, commands) = (fractions(&[2, 5], 1.), fractions(&[2, 2], 2.));
    let stack = step(Structure::Stack, &before, &commands).unwrap();
    let none = commands.zeros_like().unwrap();
    let both = Tensor::cat(&[&commands, &none], 1).unwrap();
    let deque = step(Structure::Deque, &before, &both).unwrap();
    let top = deque.weights[0].narrow(1, 1, 6).unwrap();
    assert_close("top", &top, &stack.weights[0], 1e-12, 0.);
    let still = step(Structure::Queue, &stack.strengths, &none).unwrap();
    let bottom = deque.weights[1].narrow(1, 1, 6).unwrap();
    assert_close("bottom", &bottom, &still.weights[0].narrow(1, 0, 6).unwrap(), 1e-12, 0.);
}

#[test]
fn wrong_shapes_are_named() {
    let zeros = |dims: (usize, usize)| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let error = step(Structure::Deque, &zeros((2, 3)), &zeros((2, 2))).unwrap_err().to_string();
    assert!(error.contains("commands [2, 4]"), "{error}");
    let error = read(&zeros((2, 3)), &[zeros((2, 4)), zeros((2, 4))]).unwrap_err().to_string();
    assert!(error.contains("3 rows (2, 4), got 2"), "{error}");
    assert!(read(&zeros((2, 0)), &[]).is_err());
}
