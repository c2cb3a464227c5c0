//! The fused path against the plain twin, and both against finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, check_gradients, waves};
use proptest::prelude::*;

use super::*;
use crate::checks::agree;

/// The scans under test, as functions of the same operands.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Rnn(Nonlinearity),
    Lstm,
    PeepholeLstm,
    Gru,
    GruBefore,
    GatedGru,
    AttentionGru,
    ProjectedAttentionGru,
}

const KINDS: [Kind; 9] = [
    Kind::Rnn(Nonlinearity::Tanh),
    Kind::Rnn(Nonlinearity::Relu),
    Kind::Lstm,
    Kind::PeepholeLstm,
    Kind::Gru,
    Kind::GruBefore,
    Kind::GatedGru,
    Kind::AttentionGru,
    Kind::ProjectedAttentionGru,
];

impl Kind {
    fn gates(self) -> usize {
        match self {
            Kind::Rnn(_) => 1,
            Kind::AttentionGru | Kind::ProjectedAttentionGru => 2,
            Kind::Gru | Kind::GruBefore | Kind::GatedGru => 3,
            Kind::Lstm | Kind::PeepholeLstm => 4,
        }
    }

    /// Operands in the order: xs, h0, c0, gates, w_ih, w_hh, b_ih, b_hh.
    fn run(self, ops: &[Tensor], steps: Steps<'_>, fast: bool) -> Result<(Tensor, Tensor)> {
        let [xs, h0, c0, gates, w_ih, w_hh, b_ih, b_hh] = ops else { panic!("eight operands") };
        let peepholes = || b_ih.reshape((4, ()))?.narrow(0, 1, 3);
        let w = Weights {
            w_ih: w_ih.clone(),
            w_hh: w_hh.clone(),
            b_ih: Some(b_ih.clone()),
            b_hh: Some(b_hh.clone()),
        };
        let gates = sigmoid(gates)?;
        let (h, c) = (Some(h0), c0);
        let scan = match (self, fast) {
            (Kind::Rnn(f), true) => rnn(xs, h, &w, f, steps)?,
            (Kind::Rnn(f), false) => plain::rnn(xs, h, &w, f, steps)?,
            (Kind::Gru, true) => gru(xs, h, &w, Reset::After, steps)?,
            (Kind::Gru, false) => plain::gru(xs, None, h, &w, Reset::After, steps)?,
            (Kind::GruBefore, true) => gru(xs, h, &w, Reset::Before, steps)?,
            (Kind::GruBefore, false) => plain::gru(xs, None, h, &w, Reset::Before, steps)?,
            (Kind::GatedGru, true) => gated_gru(xs, &gates, h, &w, steps)?,
            (Kind::GatedGru, false) => plain::gru(xs, Some(&gates), h, &w, Reset::After, steps)?,
            (Kind::AttentionGru, true) => attention_gru(xs, &gates, h, &w, steps)?,
            (Kind::AttentionGru, false) => plain::attention_gru(xs, &gates, h, &w, steps)?,
            (Kind::ProjectedAttentionGru, fast) => {
                let inputs = xs.broadcast_matmul(&w_ih.t()?)?.broadcast_add(b_ih)?;
                let f = if fast { attention_gru_projected } else { plain::attention_gru_projected };
                f(&inputs, &gates, h, w_hh, Some(b_hh), steps)?
            }
            (Kind::Lstm | Kind::PeepholeLstm, fast) => {
                let s = Some((h0, c));
                let p = matches!(self, Kind::PeepholeLstm).then(peepholes).transpose()?;
                let l = match (fast, &p) {
                    (true, None) => lstm(xs, s, &w, steps)?,
                    (true, Some(p)) => peephole_lstm(xs, s, &w, p, steps)?,
                    (false, p) => plain::lstm(xs, s, &w, p.as_ref(), steps)?,
                };
                return Ok((l.output, Tensor::cat(&[&l.hidden, &l.cell], 1)?));
            }
        };
        Ok((scan.output, scan.state))
    }

    fn operands(self, b: usize, t: usize, d: usize, h: usize, dtype: DType) -> Vec<Tensor> {
        let g = self.gates();
        let shapes: [&[usize]; 8] =
            [&[b, t, d], &[b, h], &[b, h], &[b, t], &[g * h, d], &[g * h, h], &[g * h], &[g * h]];
        shapes.iter().enumerate().map(|(i, s)| waves(s, 3.3 * i as f64, 0.7, dtype)).collect()
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.)?.recip()
}

/// A scalar that every output and final state enters with its own weight.
fn probe((output, state): (Tensor, Tensor)) -> Result<Tensor> {
    let weigh = |t: &Tensor, seed| t.mul(&waves(t.dims(), seed, 1., t.dtype()))?.sum_all();
    weigh(&output, 0.5)? + weigh(&state, 0.9)?
}

fn gradients(kind: Kind, ops: &[Tensor], steps: Steps<'_>, fast: bool) -> Vec<Option<Tensor>> {
    let vars: Vec<Var> = ops.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = probe(kind.run(&tensors, steps, fast).unwrap()).unwrap().backward().unwrap();
    vars.iter().map(|v| grads.get(v).cloned()).collect()
}

const NAMES: [&str; 8] = ["xs", "h0", "c0", "gates", "w_ih", "w_hh", "b_ih", "b_hh"];

fn compare(kind: Kind, ops: &[Tensor], steps: Steps<'_>, tolerance: f64) {
    let (fast, slow) = (kind.run(ops, steps, true).unwrap(), kind.run(ops, steps, false).unwrap());
    assert_close(&format!("{kind:?} output"), &fast.0, &slow.0, tolerance, tolerance);
    assert_close(&format!("{kind:?} state"), &fast.1, &slow.1, tolerance, tolerance);
    let (fast, slow) = (gradients(kind, ops, steps, true), gradients(kind, ops, steps, false));
    for (name, pair) in NAMES.iter().zip(fast.iter().zip(&slow)) {
        if let (Some(a), Some(b)) = pair {
            assert_close(&format!("{kind:?} gradient of {name}"), a, b, tolerance, 10. * tolerance);
        }
        assert_eq!(pair.0.is_some(), pair.1.is_some(), "{kind:?}: gradient of {name}");
    }
}

#[test]
fn fused_equals_plain_on_awkward_sizes() {
    for kind in KINDS {
        for (b, t, d, h) in [(1, 1, 1, 1), (3, 5, 4, 6), (2, 3, 65, 63), (7, 2, 1, 17)] {
            let lengths: Vec<usize> = (0..b).map(|i| (i * 2) % (t + 1)).collect();
            for reverse in [false, true] {
                for lengths in [None, Some(lengths.as_slice())] {
                    let steps = Steps { lengths, reverse };
                    compare(kind, &kind.operands(b, t, d, h, DType::F64), steps, 1e-11);
                    compare(kind, &kind.operands(b, t, d, h, DType::F32), steps, 2e-5);
                }
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let lengths = [3, 1];
    for kind in KINDS {
        let ops = kind.operands(2, 3, 2, 3, DType::F64);
        let steps = Steps { lengths: Some(&lengths), reverse: false };
        // c0 and gates enter only some of the cells; a null term lets every operand have a gradient.
        let named: Vec<_> = NAMES.iter().copied().zip(ops).collect();
        check_gradients(&named, 1e-7, |ops| {
            let unused = (ops[2].sum_all()? + ops[3].sum_all()?)?;
            probe(kind.run(ops, steps, true)?)? + unused
        });
    }
}

#[test]
fn non_contiguous_operands() {
    for kind in KINDS {
        let mut ops = kind.operands(3, 4, 5, 6, DType::F64);
        ops[0] = waves(&[4, 3, 5], 1., 0.7, DType::F64).transpose(0, 1).unwrap();
        ops[5] = waves(&[6, kind.gates() * 6], 2., 0.5, DType::F64).t().unwrap();
        compare(kind, &ops, Steps::default(), 1e-11);
    }
}

#[test]
fn padding_has_no_effect_even_when_poisoned() {
    let lengths = [2, 4, 0];
    for kind in KINDS {
        let mut ops = kind.operands(3, 4, 5, 6, DType::F32);
        let clean = kind.run(&ops, Steps { lengths: Some(&lengths), reverse: true }, true).unwrap();
        let mut xs = ops[0].to_vec3::<f32>().unwrap();
        for (row, &n) in xs.iter_mut().zip(&lengths) {
            row[n..].iter_mut().for_each(|step| step.fill(f32::NAN));
        }
        ops[0] = Tensor::new(xs, &Device::Cpu).unwrap();
        let steps = Steps { lengths: Some(&lengths), reverse: true };
        let poisoned = kind.run(&ops, steps, true).unwrap();
        assert_close("output", &poisoned.0, &clean.0, 0., 0.);
        assert_close("state", &poisoned.1, &clean.1, 0., 0.);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for kind in KINDS {
        let ops = kind.operands(33, 9, 20, 40, DType::F32);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (output, state) = kind.run(&ops, Steps::default(), true).unwrap();
                let mut all = vec![output, state];
                all.extend(gradients(kind, &ops, Steps::default(), true).into_iter().flatten());
                all.iter()
                    .flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            })
        };
        let one = run(1);
        assert_eq!(one, run(1), "{kind:?}: repeated");
        assert_eq!(one, run(2), "{kind:?}: two threads");
        assert_eq!(one, run(4), "{kind:?}: four threads");
    }
}

#[test]
fn long_sequences_need_no_deep_stack() {
    // candle's own LSTM overflows a test thread's stack after some 1,400 steps.
    let ops = Kind::Lstm.operands(1, 10_000, 2, 3, DType::F32);
    let grads = gradients(Kind::Lstm, &ops, Steps::default(), true);
    assert!(grads[0].as_ref().unwrap().dims() == [1, 10_000, 2]);
}

#[test]
fn empty_batches_and_sequences() {
    for (b, t) in [(0, 3), (2, 0)] {
        let ops = Kind::Gru.operands(b, t, 4, 5, DType::F32);
        let (output, state) = Kind::Gru.run(&ops, Steps::default(), true).unwrap();
        assert_eq!((output.dims(), state.dims()), ([b, t, 5].as_slice(), [b, 5].as_slice()));
    }
}

#[test]
fn wrong_shapes_are_named() {
    let mut ops = Kind::Gru.operands(2, 3, 4, 5, DType::F32);
    let error = |ops: &[Tensor], lengths: &[usize]| {
        let steps = Steps { lengths: Some(lengths), reverse: false };
        Kind::Gru.run(ops, steps, true).unwrap_err().to_string()
    };
    assert!(error(&ops, &[3]).contains("1 lengths for a batch of 2"));
    assert!(error(&ops, &[3, 4]).contains("length 4 exceeds the 3 steps"));
    ops[1] = waves(&[2, 6], 0., 1., DType::F32);
    assert!(error(&ops, &[3, 3]).contains("expected a (2, 5) initial state, got [2, 6]"));
    ops[4] = waves(&[15, 3], 0., 1., DType::F32);
    assert!(error(&ops, &[3, 3]).contains("expected w_ih (15, 4), got [15, 3]"));
}

#[test]
fn reset_before_differs_from_after() {
    // papers' worked numbers (D = H = 2): weights w_k = ((7k + s) mod 11 - 5) / 10, s = 1, 4, 7, 10.
    let fill = |n: usize, s: usize, shape: &[usize]| {
        let v: Vec<f64> = (0..n).map(|k| (((7 * k + s) % 11) as f64 - 5.) / 10.).collect();
        Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
    };
    let weights = Weights {
        w_ih: fill(12, 1, &[6, 2]),
        w_hh: fill(12, 4, &[6, 2]),
        b_ih: Some(fill(6, 7, &[6])),
        b_hh: Some(fill(6, 10, &[6])),
    };
    let xs = Tensor::new(&[[[1f64, -1.], [0.5, 0.], [0., 2.]]], &Device::Cpu).unwrap();
    for (reset, expected) in [
        (Reset::After, [[-0.269866, 0.149012], [-0.352478, 0.157730], [0.104179, -0.030158]]),
        (Reset::Before, [[-0.269866, 0.109824], [-0.346457, 0.061421], [0.128525, -0.172457]]),
    ] {
        let output = gru(&xs, None, &weights, reset, Steps::default()).unwrap().output;
        let expected = Tensor::new(&[expected], &Device::Cpu).unwrap();
        assert_close(&format!("{reset:?}"), &output, &expected, 0., 1e-6);
    }
}

#[test]
fn oracle_3_peepholes() {
    let half =
        |shape: &[usize]| (Tensor::ones(shape, DType::F64, &Device::Cpu).unwrap() * 0.5).unwrap();
    let weights = Weights { w_ih: half(&[4, 1]), w_hh: half(&[4, 1]), b_ih: None, b_hh: None };
    let (h0, c0) = ((half(&[1, 1]) * 0.).unwrap(), (half(&[1, 1]) * 0.4).unwrap());
    let xs = (half(&[1, 1, 1]) * 2.).unwrap();
    let scan = peephole_lstm(&xs, Some((&h0, &c0)), &weights, &half(&[3, 1]), Steps::default());
    let scan = scan.unwrap();
    let expect = |v: f64| Tensor::new(&[[v]], &Device::Cpu).unwrap();
    assert_close("c", &scan.cell, &expect(0.427500), 0., 1e-6);
    assert_close("h", &scan.hidden, &expect(0.270660), 0., 1e-6);
}

#[test]
fn every_level_agrees() {
    for kind in KINDS {
        let ops = kind.operands(13, 5, 9, 37, DType::F64);
        for level in crate::simd::available() {
            crate::simd::with_level(level, || compare(kind, &ops, Steps::default(), 1e-11))
                .unwrap();
        }
    }
}

#[test]
fn hostile_inputs_saturate() {
    for kind in [Kind::Lstm, Kind::Gru, Kind::AttentionGru] {
        let mut ops = kind.operands(2, 3, 4, 5, DType::F32);
        ops[0] = (&ops[0] * 1e4).unwrap();
        ops[6] = (&ops[6] * 1e-40).unwrap();
        let (output, _) = kind.run(&ops, Steps::default(), true).unwrap();
        let all = output.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(all.iter().all(|v| v.abs() <= 1.), "{kind:?}");
        let grads = gradients(kind, &ops, Steps::default(), true).into_iter().flatten();
        for grad in grads {
            let all = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(all.iter().all(|v| v.is_finite()), "{kind:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn fused_equals_plain(
        b in 1usize..5, t in 1usize..7, d in 1usize..9, h in 1usize..20,
        kind in 0usize..9, reverse: bool, seed in 0usize..1000,
    ) {
        let lengths: Vec<usize> = (0..b).map(|i| (seed / (i + 1)) % (t + 1)).collect();
        let steps = Steps { lengths: Some(&lengths), reverse };
        compare(KINDS[kind], &KINDS[kind].operands(b, t, d, h, DType::F64), steps, 1e-11);
    }
}

/// Every kind of scan on CUDA, by every path.
#[cfg(cuda_path)]
mod on_cuda {
    use super::super::cuda::forced::{Way, set};
    use super::*;
    use crate::cuda::tests::{agree, agree_in_half};

    fn function(
        kind: Kind,
        steps: Steps<'_>,
        fast: bool,
    ) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> {
        move |x| {
            let (output, state) = kind.run(x, steps, fast)?;
            Ok(vec![output, state])
        }
    }

    fn hold(way: Way, kind: Kind, (b, t, d, h): (usize, usize, usize, usize), steps: Steps<'_>) {
        set(Some(way));
        let ops = kind.operands(b, t, d, h, DType::F32);
        let name = format!("{way:?} {kind:?} {:?} {steps:?}", (b, t, d, h));
        agree(&name, &ops, function(kind, steps, true), function(kind, steps, false));
        set(None);
    }

    fn hold_all(way: Way, shapes: &[(usize, usize, usize, usize)]) {
        for kind in KINDS {
            for &shape in shapes {
                let lengths: Vec<usize> = (0..shape.0).map(|i| (i * 2) % (shape.1 + 1)).collect();
                for reverse in [false, true] {
                    hold(way, kind, shape, Steps { lengths: None, reverse });
                    hold(way, kind, shape, Steps { lengths: Some(&lengths), reverse });
                }
            }
        }
    }

    #[test]
    fn cuda_small() {
        let shapes = [(1, 1, 1, 1), (3, 5, 4, 6), (2, 3, 65, 63), (7, 2, 1, 17), (9, 3, 2, 64)];
        hold_all(Way::Small, &shapes);
        // Weights in shared memory too.
        for kind in KINDS {
            hold(Way::Small, kind, (2, 2, 3, 100), Steps::default());
            hold(Way::Small, kind, (5, 2, 3, 130), Steps::default());
        }
    }

    #[test]
    fn cuda_grid() {
        hold_all(Way::Grid, &[(1, 1, 1, 1), (3, 5, 4, 6), (2, 3, 65, 63), (17, 2, 1, 17)]);
        for kind in KINDS {
            hold(Way::Grid, kind, (21, 3, 2, 130), Steps::default());
        }
    }

    #[test]
    fn cuda_steps() {
        hold_all(Way::Steps, &[(1, 1, 1, 1), (3, 5, 4, 6), (2, 3, 65, 63), (17, 2, 1, 17)]);
    }

    /// The path that sizes choose, half precision, and what may be left out.
    #[test]
    fn cuda() {
        for kind in KINDS {
            let ops = kind.operands(4, 5, 8, 16, DType::F32);
            let f = |fast: bool| function(kind, Steps::default(), fast);
            agree(&format!("{kind:?}"), &ops, f(true), f(false));
            agree_in_half(&format!("{kind:?}"), 2, &ops, f(true), f(false));
        }
        let bare = |fast: bool| {
            move |x: &[Tensor]| {
                let (w_ih, w_hh) = (x[1].clone(), x[2].clone());
                let w = Weights { w_ih, w_hh, b_ih: None, b_hh: None };
                let cell = if fast {
                    lstm(&x[0], None, &w, Steps::default())?.cell
                } else {
                    plain::lstm(&x[0], None, &w, None, Steps::default())?.cell
                };
                Ok(vec![cell])
            }
        };
        let all = Kind::Lstm.operands(2, 3, 4, 5, DType::F32);
        let ops = [all[0].clone(), all[4].clone(), all[5].clone()];
        agree("bare lstm", &ops, bare(true), bare(false));
    }

    #[test]
    fn cuda_passes_over_padding() {
        let lengths = [2, 4, 0];
        let steps = Steps { lengths: Some(&lengths), reverse: true };
        for kind in KINDS {
            // Products made outside are poisoned as a whole.
            if matches!(kind, Kind::ProjectedAttentionGru) {
                continue;
            }
            let ops = kind.operands(3, 4, 5, 6, DType::F32);
            let poison = |x: &[Tensor]| -> Result<Vec<Tensor>> {
                let mask: Vec<u8> =
                    lengths.iter().flat_map(|&l| (0..4).map(move |t| u8::from(t < l))).collect();
                let mask =
                    Tensor::from_vec(mask, (3, 4, 1), x[0].device())?.broadcast_as((3, 4, 5))?;
                let bad = (x[0].ones_like()? * f64::NAN)?;
                let mut x = x.to_vec();
                x[0] = mask.where_cond(&x[0], &bad)?;
                function(kind, steps, true)(&x)
            };
            agree(&format!("{kind:?} poisoned"), &ops, poison, function(kind, steps, false));
        }
    }
}

/// A step is a scan of one step; with and without a state.
#[test]
fn lstm_steps_equal_a_scan() {
    for (b, d, h) in [(1, 1, 1), (3, 4, 6), (10, 65, 33)] {
        let x = |dims: &[usize], phase: f64| waves(dims, phase, 0.6, DType::F64);
        let operands = [
            x(&[b, d], 1.),
            x(&[b, h], 2.),
            x(&[b, h], 3.),
            x(&[4 * h, d], 4.),
            x(&[4 * h, h], 5.),
            x(&[4 * h], 6.),
            x(&[4 * h], 7.),
        ];
        let weights = |x: &[Tensor]| Weights {
            w_ih: x[3].clone(),
            w_hh: x[4].clone(),
            b_ih: Some(x[5].clone()),
            b_hh: Some(x[6].clone()),
        };
        agree(
            &operands,
            |x| {
                let (hidden, cell) = lstm_step(&x[0], Some((&x[1], &x[2])), &weights(x))?;
                Ok(vec![hidden, cell])
            },
            |x| {
                let state = Some((&x[1], &x[2]));
                let scan =
                    plain::lstm(&x[0].unsqueeze(1)?, state, &weights(x), None, Steps::default())?;
                Ok(vec![scan.hidden, scan.cell])
            },
        );
        let zeros = operands[1].zeros_like().unwrap();
        let (first, _) = lstm_step(&operands[0], None, &weights(&operands)).unwrap();
        let (same, _) =
            lstm_step(&operands[0], Some((&zeros, &zeros)), &weights(&operands)).unwrap();
        assert_close("first", &first, &same, 0., 0.);
    }
}
