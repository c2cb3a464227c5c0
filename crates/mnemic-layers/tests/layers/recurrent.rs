//! Laws of the recurrent layers, and worked numbers.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Context, Gru, Lstm, Nonlinearity, ParamStore, RecurrentConfig, RecurrentInit, Reset, Rnn,
};
use mnemic_testing::{assert_close, waves};

use crate::{check_layer, error, given, probe, store, tensor};

/// The layers under one signature. An LSTM's state is its hidden and cell states, one after the other.
#[derive(Debug, Clone, Copy)]
enum Cell {
    Rnn,
    Gru,
    GruBefore,
    Lstm,
}

const CELLS: [Cell; 4] = [Cell::Rnn, Cell::Gru, Cell::GruBefore, Cell::Lstm];

impl Cell {
    fn forward(
        self,
        cfg: RecurrentConfig,
        vb: VarBuilder<'static>,
        xs: &Tensor,
        state: Option<&Tensor>,
        lengths: Option<&[usize]>,
        ctx: &Context,
    ) -> Result<(Tensor, Tensor)> {
        let step = xs.rank() == 2;
        match self {
            Cell::Rnn => {
                let layer = Rnn::new(cfg, Nonlinearity::Tanh, vb)?;
                let out = match step {
                    true => layer.step(xs, state, ctx)?,
                    false => layer.forward(xs, state, lengths, ctx)?,
                };
                Ok((out.output, out.state))
            }
            Cell::Gru | Cell::GruBefore => {
                let reset = if matches!(self, Cell::Gru) { Reset::After } else { Reset::Before };
                let layer = Gru::new(cfg, vb)?.with_reset(reset);
                let out = match step {
                    true => layer.step(xs, state, ctx)?,
                    false => layer.forward(xs, state, lengths, ctx)?,
                };
                Ok((out.output, out.state))
            }
            Cell::Lstm => {
                let layer = Lstm::new(cfg, vb)?;
                let halves = state.map(|s| s.chunk(2, 0)).transpose()?;
                let state = halves.as_ref().map(|s| (&s[0], &s[1]));
                let out = match step {
                    true => layer.step(xs, state, ctx)?,
                    false => layer.forward(xs, state, lengths, ctx)?,
                };
                Ok((out.output, Tensor::cat(&[out.hidden, out.cell], 0)?))
            }
        }
    }

    /// The state's first dimension.
    fn states(self, cfg: RecurrentConfig) -> usize {
        let tensors = if matches!(self, Cell::Lstm) { 2 } else { 1 };
        cfg.num_layers * cfg.directions() * tensors
    }
}

fn two_layers(bidirectional: bool) -> RecurrentConfig {
    RecurrentConfig { num_layers: 2, bidirectional, ..RecurrentConfig::new(3, 4) }
}

fn xs(b: usize, t: usize) -> Tensor {
    waves(&[b, t, 3], 0.5, 1., DType::F64)
}

/// The parameters of the worked examples, D = H = 2: `w_k = ((7k + s) mod 11 - 5) / 10`.
fn worked(gates: usize) -> VarBuilder<'static> {
    let fill = |s: usize, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|k| (((7 * k + s) % 11) as f64 - 5.) / 10.).collect();
        tensor(&values, shape)
    };
    given(&[
        ("weight_ih_l0", &fill(1, &[2 * gates, 2])),
        ("weight_hh_l0", &fill(4, &[2 * gates, 2])),
        ("bias_ih_l0", &fill(7, &[2 * gates])),
        ("bias_hh_l0", &fill(10, &[2 * gates])),
    ])
}

#[test]
fn worked_numbers() {
    // Computed with PyTorch in float64 (the reset-before form by hand from its equations).
    let xs = tensor(&[1., -1., 0.5, 0., 0., 2.], &[1, 3, 2]);
    let cfg = RecurrentConfig::new(2, 2);
    let run = |cell: Cell, gates| {
        cell.forward(cfg, worked(gates), &xs, None, None, &Context::eval()).unwrap()
    };
    let (gru, _) = run(Cell::Gru, 3);
    let expected = [-0.269866, 0.149012, -0.352478, 0.157730, 0.104179, -0.030158];
    assert_close("gru", &gru, &tensor(&expected, &[1, 3, 2]), 0., 1e-6);
    let (before, _) = run(Cell::GruBefore, 3);
    let expected = [-0.269866, 0.109824, -0.346457, 0.061421, 0.128525, -0.172457];
    assert_close("gru, reset before", &before, &tensor(&expected, &[1, 3, 2]), 0., 1e-6);
    let (lstm, state) = run(Cell::Lstm, 4);
    let first = lstm.narrow(1, 0, 1).unwrap();
    assert_close("lstm h1", &first, &tensor(&[-0.242819, 0.049734], &[1, 1, 2]), 0., 1e-6);
    let expected = [0.086001, -0.043284, 0.154111, -0.087798];
    assert_close("lstm h3, c3", &state, &tensor(&expected, &[2, 1, 2]), 0., 1e-6);
    let (rnn, state) = run(Cell::Rnn, 1);
    let first = rnn.narrow(1, 0, 1).unwrap();
    assert_close("rnn h1", &first, &tensor(&[0., 0.291313], &[1, 1, 2]), 0., 1e-6);
    assert_close("rnn h3", &state, &tensor(&[0.878379, -0.757744], &[1, 1, 2]), 0., 1e-6);
}

#[test]
fn parameter_counts() {
    for (cell, count) in [(Cell::Rnn, 98_816), (Cell::Gru, 296_448), (Cell::Lstm, 395_264)] {
        let (store, vb) = store(0);
        let xs = Tensor::zeros((1, 1, 128), DType::F64, &Device::Cpu).unwrap();
        cell.forward(RecurrentConfig::new(128, 256), vb, &xs, None, None, &Context::eval())
            .unwrap();
        assert_eq!(store.num_parameters(), count, "{cell:?}");
    }
    let (store, vb) = store(0);
    Gru::new(RecurrentConfig { bias: false, ..two_layers(true) }, vb).unwrap();
    let names: Vec<String> = store.vars().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names[..4],
        ["weight_hh_l0", "weight_hh_l0_reverse", "weight_hh_l1", "weight_hh_l1_reverse"]
    );
    assert_eq!(names.len(), 8);
    assert_eq!(store.get("weight_ih_l1_reverse").unwrap().dims(), [12, 8]);
}

#[test]
fn steps_and_pieces_equal_the_whole() {
    for cell in CELLS {
        let (_store, vb) = store(3);
        let (cfg, xs, ctx) = (two_layers(false), xs(2, 6), Context::eval());
        let h0 = waves(&[cell.states(cfg), 2, 4], 2., 0.5, DType::F64);
        let (whole, last) = cell.forward(cfg, vb.clone(), &xs, Some(&h0), None, &ctx).unwrap();
        for pieces in [vec![1; 6], vec![2, 4], vec![5, 1]] {
            let (mut state, mut outputs, mut start) = (h0.clone(), Vec::new(), 0);
            for len in pieces {
                let piece = xs.narrow(1, start, len).unwrap();
                let (output, next) = if len == 1 {
                    let x = piece.squeeze(1).unwrap();
                    let out = cell.forward(cfg, vb.clone(), &x, Some(&state), None, &ctx).unwrap();
                    (out.0.unsqueeze(1).unwrap(), out.1)
                } else {
                    cell.forward(cfg, vb.clone(), &piece, Some(&state), None, &ctx).unwrap()
                };
                outputs.push(output);
                state = next;
                start += len;
            }
            let joined = Tensor::cat(&outputs, 1).unwrap();
            assert_close(&format!("{cell:?} output"), &joined, &whole, 0., 1e-14);
            assert_close(&format!("{cell:?} state"), &state, &last, 0., 1e-14);
        }
    }
}

#[test]
fn padding_has_no_effect_and_no_gradient() {
    let lengths = [5, 2, 0, 4];
    for cell in CELLS {
        let (store, vb) = store(5);
        let (cfg, ctx) = (two_layers(true), Context::eval());
        let clean = Var::from_tensor(&xs(4, 5)).unwrap();
        let valid = mnemic_layers::length_mask(&lengths, 5, &Device::Cpu).unwrap();
        let valid = valid.unsqueeze(2).unwrap().broadcast_as((4, 5, 3)).unwrap();
        let noise = waves(&[4, 5, 3], 9., 1e3, DType::F64);
        let poisoned =
            Var::from_tensor(&valid.where_cond(clean.as_tensor(), &noise).unwrap()).unwrap();
        let run = |xs: &Var| {
            let (output, state) =
                cell.forward(cfg, vb.clone(), xs, None, Some(&lengths), &ctx).unwrap();
            let loss = (probe(&output).unwrap() + probe(&state).unwrap()).unwrap();
            let grads = loss.backward().unwrap();
            let mut tensors = vec![output, state, grads.get(xs).unwrap().clone()];
            tensors.extend(store.vars().iter().map(|(_, v)| grads.get(v).unwrap().clone()));
            tensors
        };
        let (a, b) = (run(&clean), run(&poisoned));
        for (k, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_close(&format!("{cell:?} {k}"), a, b, 0., 0.);
        }
        let outside = |t: &Tensor| valid.where_cond(&t.zeros_like().unwrap(), t).unwrap();
        assert_close("gradient", &outside(&b[2]), &noise.zeros_like().unwrap(), 0., 0.);
        // Outputs after the end are zero, and a shorter batch gives the same.
        let tail = b[0].narrow(0, 1, 1).unwrap().narrow(1, 2, 3).unwrap();
        assert_close("tail", &tail, &tail.zeros_like().unwrap(), 0., 0.);
        let alone = clean.narrow(0, 1, 1).unwrap().narrow(1, 0, 2).unwrap();
        let (output, state) = cell.forward(cfg, vb.clone(), &alone, None, None, &ctx).unwrap();
        let row = b[0].narrow(0, 1, 1).unwrap().narrow(1, 0, 2).unwrap();
        assert_close("alone", &output, &row, 0., 1e-14);
        assert_close("alone", &state, &b[1].narrow(1, 1, 1).unwrap(), 0., 1e-14);
        // A row without a step keeps its first state.
        let empty = b[1].narrow(1, 2, 1).unwrap();
        assert_close("empty", &empty, &empty.zeros_like().unwrap(), 0., 0.);
    }
}

#[test]
fn states_stand_layer_by_layer_forward_first() {
    let (cfg, ctx, lengths) = (two_layers(true), Context::eval(), [5, 2]);
    for cell in CELLS {
        let (_store, vb) = store(9);
        let h0 = waves(&[cell.states(cfg), 2, 4], 2., 0.5, DType::F64);
        let run = |state, lengths: &[usize]| {
            cell.forward(cfg, vb.clone(), &xs(2, 5), Some(state), Some(lengths), &ctx).unwrap()
        };
        // Rows without a step hand their state through.
        assert_close("kept", &run(&h0, &[0, 0]).1, &h0, 0., 0.);
        // The upper layer's hidden states are its outputs at the ends of each direction.
        let (output, state) = run(&h0, &lengths);
        let half = |k: usize| output.narrow(2, 4 * k, 4).unwrap();
        let forward = mnemic_layers::last_states(&half(0), &lengths).unwrap();
        let backward = half(1).narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        assert_close("forward", &state.get(2).unwrap(), &forward, 0., 0.);
        assert_close("backward", &state.get(3).unwrap(), &backward, 0., 0.);
        // Another first state of the lower forward layer leaves the lower backward layer alone.
        let rest = h0.narrow(0, 1, cell.states(cfg) - 1).unwrap();
        let other = Tensor::cat(&[&h0.narrow(0, 1, 1).unwrap(), &rest], 0).unwrap();
        let moved = run(&other, &lengths).1;
        assert_close("lower", &moved.get(1).unwrap(), &state.get(1).unwrap(), 0., 0.);
        let diff = (moved.get(0).unwrap() - state.get(0).unwrap()).unwrap().abs().unwrap();
        assert!(diff.max_all().unwrap().to_scalar::<f64>().unwrap() > 1e-6, "{cell:?}");
    }
}

#[test]
fn rows_are_independent() {
    let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
    for cell in CELLS {
        let (_store, vb) = store(6);
        let (cfg, xs, ctx) = (two_layers(true), xs(3, 5), Context::eval());
        let run = |xs: &Tensor, lengths: [usize; 3]| {
            cell.forward(cfg, vb.clone(), xs, None, Some(&lengths), &ctx).unwrap()
        };
        let (output, state) = run(&xs, [5, 1, 3]);
        let (moved, moved_state) = run(&xs.index_select(&order, 0).unwrap(), [3, 5, 1]);
        assert_close("output", &moved, &output.index_select(&order, 0).unwrap(), 0., 1e-14);
        assert_close("state", &moved_state, &state.index_select(&order, 1).unwrap(), 0., 1e-14);
    }
}

#[test]
fn one_direction_is_causal() {
    for cell in CELLS {
        let (_store, vb) = store(7);
        let (cfg, a, ctx) = (two_layers(false), xs(1, 5), Context::eval());
        let bump =
            tensor(&[0., 0., 0., 0., 0., 0., 0., 0., 0., 1., 1., 1., 0., 0., 0.], &[1, 5, 3]);
        let b = (&a + bump).unwrap();
        let run = |xs| cell.forward(cfg, vb.clone(), xs, None, None, &ctx).unwrap().0;
        let (a, b) = (run(&a), run(&b));
        let before = |t: &Tensor| t.narrow(1, 0, 3).unwrap();
        assert_close("before", &before(&a), &before(&b), 0., 0.);
        let diff = (a - b).unwrap().narrow(1, 3, 2).unwrap().abs().unwrap().min_all().unwrap();
        assert!(diff.to_scalar::<f64>().unwrap() > 1e-6, "{cell:?}: steps 3 and 4 must change");
    }
}

#[test]
fn palindromes_read_alike_both_ways() {
    let (half, back) = (xs(2, 3), Tensor::new(&[1u32, 0], &Device::Cpu).unwrap());
    let palindrome = Tensor::cat(&[&half, &half.index_select(&back, 1).unwrap()], 1).unwrap(); // (2, 5, 3)
    let cfg = RecurrentConfig { bidirectional: true, ..RecurrentConfig::new(3, 4) };
    for cell in CELLS {
        let (store, vb) = store(8);
        cell.forward(cfg, vb.clone(), &palindrome, None, None, &Context::eval()).unwrap();
        for (name, var) in store.vars() {
            if let Some(forward) = name.strip_suffix("_reverse") {
                var.set(&store.get(forward).unwrap().copy().unwrap()).unwrap();
            }
        }
        let ctx = Context::eval();
        let (output, _) = cell.forward(cfg, vb, &palindrome, None, None, &ctx).unwrap();
        let reversed = Tensor::new(&[4u32, 3, 2, 1, 0], &Device::Cpu).unwrap();
        let backward = output.narrow(2, 4, 4).unwrap().contiguous().unwrap();
        let backward = backward.index_select(&reversed, 1).unwrap();
        assert_close("halves", &output.narrow(2, 0, 4).unwrap(), &backward, 0., 1e-14);
    }
}

/// One-layer parameters of zeros but for the input bias, so that the gates are what the bias makes them.
fn biased(gates: usize, bias: &[f64]) -> VarBuilder<'static> {
    let h = bias.len() / gates;
    given(&[
        ("weight_ih_l0", &Tensor::zeros((gates * h, 3), DType::F64, &Device::Cpu).unwrap()),
        ("weight_hh_l0", &Tensor::zeros((gates * h, h), DType::F64, &Device::Cpu).unwrap()),
        ("bias_ih_l0", &tensor(bias, &[gates * h])),
        ("bias_hh_l0", &Tensor::zeros(gates * h, DType::F64, &Device::Cpu).unwrap()),
    ])
}

#[test]
fn saturated_gates() {
    let ctx = Context::eval();
    let (xs, cfg) = (xs(1, 7), RecurrentConfig::new(3, 1));
    // f = 1, i = 0: the cell keeps its value and passes the whole gradient back.
    let cell = Lstm::new(cfg, biased(4, &[-200., 200., 0.7, 0.])).unwrap();
    let h0 = tensor(&[0.], &[1, 1, 1]);
    let c0 = Var::from_tensor(&tensor(&[0.37], &[1, 1, 1])).unwrap();
    let out = cell.forward(&xs, Some((&h0, &c0)), None, &ctx).unwrap();
    assert_close("cell", &out.cell, &c0, 0., 1e-15);
    let grads = out.cell.sum_all().unwrap().backward().unwrap();
    assert_close("gradient", grads.get(&c0).unwrap(), &tensor(&[1.], &[1, 1, 1]), 0., 1e-15);
    // i = 1, f = 0, o = 1: h = tanh(g).
    let cell = Lstm::new(cfg, biased(4, &[200., -200., 0.7, 200.])).unwrap();
    let out = cell.forward(&xs, Some((&h0, &c0)), None, &ctx).unwrap();
    let expected = tensor(&[0.7f64.tanh().tanh(); 7], &[1, 7, 1]);
    assert_close("h", &out.output, &expected, 0., 1e-15);
    // z = 1: the state stays.
    let cell = Gru::new(cfg, biased(3, &[0., 200., 0.7])).unwrap();
    let out = cell.forward(&xs, Some(&c0), None, &ctx).unwrap();
    assert_close("h", &out.state, &c0, 0., 1e-15);
}

#[test]
fn gradients() {
    let inputs = |cell: Cell, cfg| {
        let h0 = waves(&[cell.states(cfg), 2, 2], 2., 0.5, DType::F64);
        [("xs", waves(&[2, 4, 3], 0.5, 1., DType::F64)), ("state", h0)]
    };
    for bidirectional in [false, true] {
        let cfg = RecurrentConfig { num_layers: 2, bidirectional, ..RecurrentConfig::new(3, 2) };
        for cell in CELLS {
            check_layer(&inputs(cell, cfg), 1e-7, |vb, tensors| {
                let (xs, h0, ctx) = (&tensors[0], &tensors[1], Context::eval());
                let (output, state) = cell.forward(cfg, vb, xs, Some(h0), Some(&[4, 2]), &ctx)?;
                probe(&output)? + probe(&state.sqr()?)?
            });
        }
    }
    // Without a given state and without biases.
    let cfg = RecurrentConfig { bias: false, ..RecurrentConfig::new(3, 2) };
    for cell in CELLS {
        check_layer(&inputs(cell, cfg)[..1], 1e-7, |vb, tensors| {
            probe(&cell.forward(cfg, vb, &tensors[0], None, None, &Context::eval())?.0)
        });
    }
    // ReLU: no pre-activation lies within a difference step of its kink here.
    let cfg = RecurrentConfig::new(3, 2);
    check_layer(&inputs(Cell::Rnn, cfg), 1e-7, |vb, tensors| {
        let (layer, ctx) = (Rnn::new(cfg, Nonlinearity::Relu, vb)?, Context::eval());
        probe(&layer.forward(&tensors[0], Some(&tensors[1]), None, &ctx)?.output)
    });
}

#[test]
fn dropout_is_between_layers_and_repeats() {
    let run = |layers, dropout, ctx: &Context| {
        let (_store, vb) = store(4);
        let cfg = RecurrentConfig { num_layers: layers, dropout, ..RecurrentConfig::new(3, 16) };
        Gru::new(cfg, vb).unwrap().forward(&xs(2, 5), None, None, ctx).unwrap().output
    };
    let same = |a: &Tensor, b: &Tensor| {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() == 0.
    };
    let plain = run(2, 0., &Context::train(1, 0));
    assert!(same(&run(1, 0.5, &Context::train(1, 0)), &run(1, 0., &Context::eval())));
    assert!(same(&run(2, 0.5, &Context::eval()), &plain));
    let dropped = run(2, 0.5, &Context::train(1, 0));
    assert!(!same(&dropped, &plain));
    assert!(same(&dropped, &run(2, 0.5, &Context::train(1, 0))));
    assert!(!same(&dropped, &run(2, 0.5, &Context::train(1, 1))));
    assert!(!same(&dropped, &run(2, 0.5, &Context::train(2, 0))));
    // The last layer's outputs are not dropped.
    assert!(dropped.abs().unwrap().min_all().unwrap().to_scalar::<f64>().unwrap() > 0.);
    // With everything dropped the upper layer reads zeros, so its rows are equal.
    let silent = run(2, 1., &Context::train(1, 0));
    assert!(same(&silent.get(0).unwrap(), &silent.get(1).unwrap()));
}

#[test]
fn other_types_and_places() {
    // f32 inputs that are not contiguous, such as a transposed batch.
    let store = ParamStore::new(1);
    let vb = store.builder(DType::F32, &Device::Cpu);
    let gru = Gru::new(RecurrentConfig::new(3, 4), vb).unwrap();
    let time_first = waves(&[5, 2, 3], 0., 1., DType::F32);
    let batch_first = time_first.transpose(0, 1).unwrap();
    let ctx = Context::eval();
    let a = gru.forward(&batch_first, None, None, &ctx).unwrap();
    let b = gru.forward(&batch_first.contiguous().unwrap(), None, None, &ctx).unwrap();
    assert_close("output", &a.output, &b.output, 0., 0.);
}

#[test]
fn bad_input_is_named() {
    let ctx = Context::eval();
    let cfg = RecurrentConfig::new(3, 4);
    let new = |cfg| Gru::new(cfg, store(0).1);
    assert!(error(new(RecurrentConfig::new(0, 4))).contains("gru: input_size must be positive"));
    let bad = RecurrentConfig { dropout: 1.5, ..cfg };
    assert!(error(new(bad)).contains("gru: dropout must lie in [0, 1], got 1.5"));
    let bad = RecurrentConfig { num_layers: 0, ..cfg };
    assert!(error(Lstm::new(bad, store(0).1)).contains("lstm: num_layers"));
    let gru = new(cfg).unwrap();
    let wide = waves(&[2, 5, 4], 0., 1., DType::F64);
    let message = error(gru.forward(&wide, None, None, &ctx));
    assert!(message.contains("gru: expected input (b, t, 3), got [2, 5, 4]"), "{message}");
    let message = error(gru.forward(&xs(2, 5), Some(&wide), None, &ctx));
    assert!(message.contains("gru: expected a state [1, 2, 4], got [2, 5, 4]"), "{message}");
    let message = error(gru.forward(&xs(2, 5), None, Some(&[1, 6]), &ctx));
    assert!(message.contains("gru: length 6 exceeds the 5 steps"), "{message}");
    let message = error(gru.forward(&xs(2, 5), None, Some(&[1]), &ctx));
    assert!(message.contains("gru: 1 lengths for a batch of 2"), "{message}");
    let message = error(gru.step(&xs(2, 5), None, &ctx));
    assert!(message.contains("gru: expected a step's input (b, 3), got [2, 5, 3]"), "{message}");
    let both = new(RecurrentConfig { bidirectional: true, ..cfg }).unwrap();
    let x = waves(&[2, 3], 0., 1., DType::F64);
    assert!(error(both.step(&x, None, &ctx)).contains("step needs one direction"));
    let forget = RecurrentInit::drawn(Init::Const(0.)).with_gate_bias(1.);
    let message = error(Rnn::with_init(cfg, Nonlinearity::Tanh, forget, store(0).1));
    assert!(message.contains("rnn: a gate bias needs a layer with gates"), "{message}");
    let unbiased = RecurrentConfig { bias: false, ..cfg };
    assert!(error(Lstm::with_init(unbiased, forget, store(0).1)).contains("gates and biases"));
}
