//! The GRUs of DMN's and DMN+'s episodes.

use candle_core::{DType, Result, Tensor, Var};
use candle_nn::VarBuilder;
use mnemic_layers::{AttentionGru, Context, GatedGru, Gru, RecurrentConfig, RecurrentInit};
use mnemic_testing::{assert_close, waves};

use crate::{check_layer, error, given, probe, store, tensor};

fn facts() -> Tensor {
    waves(&[2, 4, 3], 0.2, 1., DType::F64)
}

/// Which of the two layers.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Attention,
    Gated,
}

const KINDS: [Kind; 2] = [Kind::Attention, Kind::Gated];

impl Kind {
    fn forward(
        self,
        vb: VarBuilder<'_>,
        facts: &Tensor,
        gates: &Tensor,
        lengths: Option<&[usize]>,
    ) -> Result<Tensor> {
        match self {
            Kind::Attention => AttentionGru::new(3, 2, vb)?.forward(facts, gates, lengths),
            Kind::Gated => GatedGru::new(3, 2, vb)?.forward(facts, gates, lengths),
        }
    }
}

#[test]
fn scalar_attention_gru() {
    // W = .5, U = .25, W_r = .1, U_r = .2, no biases: worked by hand.
    let vb = given(&[
        ("weight_ih", &tensor(&[0.1, 0.5], &[2, 1])),
        ("weight_hh", &tensor(&[0.2, 0.25], &[2, 1])),
        ("bias_ih", &tensor(&[0., 0.], &[2])),
        ("bias_hh", &tensor(&[0., 0.], &[2])),
    ]);
    let gru = AttentionGru::new(1, 1, vb).unwrap();
    let (facts, gates) = (tensor(&[1., -1., 2.], &[1, 3, 1]), tensor(&[0.2, 0.5, 0.3], &[1, 3]));
    for (n, expected) in [(1, 0.092423), (2, -0.180467), (3, 0.099019)] {
        let state = gru.forward(&facts, &gates, Some(&[n])).unwrap();
        assert_close("state", &state, &tensor(&[expected], &[1, 1]), 0., 1e-6);
    }
}

#[test]
fn scalar_gated_gru() {
    // The same with an inner GRU that always replaces its state: z = 0.
    let vb = given(&[
        ("weight_ih", &tensor(&[0.1, 0., 0.5], &[3, 1])),
        ("weight_hh", &tensor(&[0.2, 0., 0.25], &[3, 1])),
        ("bias_ih", &tensor(&[0., -200., 0.], &[3])),
        ("bias_hh", &tensor(&[0., 0., 0.], &[3])),
    ]);
    let gru = GatedGru::new(1, 1, vb).unwrap();
    let (facts, gates) = (tensor(&[1., -1., 2.], &[1, 3, 1]), tensor(&[0.2, 0.5, 0.3], &[1, 3]));
    let state = gru.forward(&facts, &gates, None).unwrap();
    assert_close("state", &state, &tensor(&[0.099019], &[1, 1]), 0., 1e-6);
}

#[test]
fn a_single_gate_reads_a_single_fact() {
    for kind in KINDS {
        let (_store, vb) = store(1);
        let gates = tensor(&[0., 0., 1., 0., 0., 1., 0., 0.], &[2, 4]);
        let state = kind.forward(vb.clone(), &facts(), &gates, None).unwrap();
        // The state is what the one fact alone gives, and the other facts do not matter.
        let picked = mnemic_layers::gather_steps(&facts(), &[vec![2], vec![1]]).unwrap();
        let one = tensor(&[1., 1.], &[2, 1]);
        let alone = kind.forward(vb.clone(), &picked, &one, None).unwrap();
        assert_close(&format!("{kind:?}"), &state, &alone, 0., 1e-15);
        let kept = gates.unsqueeze(2).unwrap();
        let others = (facts()
            + kept.affine(-1., 1.).unwrap().broadcast_as((2, 4, 3)).unwrap() * 7.)
            .unwrap();
        let again = kind.forward(vb, &others, &gates, None).unwrap();
        assert_close(&format!("{kind:?}"), &state, &again, 0., 1e-15);
    }
    // DMN+: c = tanh(W f + b_n + r ∘ c_n) with no recurrent part.
    let (store, vb) = store(1);
    let gru = AttentionGru::with_init(3, 2, RecurrentInit::xavier(), vb).unwrap();
    let f = facts().narrow(1, 0, 1).unwrap();
    let state = gru.forward(&f, &tensor(&[1., 1.], &[2, 1]), None).unwrap();
    let w = store.get("weight_ih").unwrap().narrow(0, 2, 2).unwrap();
    let expected = f.squeeze(1).unwrap().matmul(&w.t().unwrap()).unwrap().tanh().unwrap();
    assert_close("tanh(W f)", &state, &expected, 0., 1e-15);
}

#[test]
fn gates_of_zero_and_one() {
    for kind in KINDS {
        let (_store, vb) = store(2);
        let state = kind.forward(vb, &facts(), &tensor(&[0.; 8], &[2, 4]), None).unwrap();
        assert_close(&format!("{kind:?}"), &state, &tensor(&[0.; 4], &[2, 2]), 0., 0.);
    }
    // All gates 1: the GRU of that name without its suffix.
    let (gated, vb) = store(2);
    let state = Kind::Gated.forward(vb, &facts(), &tensor(&[1.; 8], &[2, 4]), None).unwrap();
    let parameters: Vec<(String, Var)> =
        gated.vars().into_iter().map(|(name, v)| (format!("{name}_l0"), v)).collect();
    let named: Vec<(&str, &Tensor)> =
        parameters.iter().map(|(name, v)| (name.as_str(), v.as_tensor())).collect();
    let gru = Gru::new(RecurrentConfig::new(3, 2), given(&named)).unwrap();
    let plain = gru.forward(&facts(), None, None, &Context::eval()).unwrap();
    assert_close("plain", &state, &plain.state.squeeze(0).unwrap(), 0., 1e-15);
}

#[test]
fn facts_with_gate_zero_may_be_removed_or_padded() {
    let gates = tensor(&[0.3, 0., 0.9, 0., 0.6, 0.1, 0., 0.], &[2, 4]);
    for kind in KINDS {
        let (_store, vb) = store(3);
        let state = kind.forward(vb.clone(), &facts(), &gates, None).unwrap();
        let cut = kind.forward(vb.clone(), &facts(), &gates, Some(&[3, 2])).unwrap();
        assert_close(&format!("{kind:?} cut"), &state, &cut, 0., 1e-15);
        let picked = mnemic_layers::gather_steps(&facts(), &[vec![0, 2], vec![0, 1]]).unwrap();
        let fewer = tensor(&[0.3, 0.9, 0.6, 0.1], &[2, 2]);
        let removed = kind.forward(vb.clone(), &picked, &fewer, None).unwrap();
        assert_close(&format!("{kind:?} removed"), &state, &removed, 0., 1e-15);
        // Past a row's end the gate itself does not matter.
        let open = tensor(&[0.3, 0., 0.9, 1., 0.6, 0.1, 1., 1.], &[2, 4]);
        let masked = kind.forward(vb, &facts(), &open, Some(&[3, 2])).unwrap();
        assert_close(&format!("{kind:?} masked"), &state, &masked, 0., 1e-15);
    }
}

#[test]
fn order_matters_to_a_gru_but_not_to_a_sum() {
    let order = Tensor::new(&[3u32, 1, 0, 2], facts().device()).unwrap();
    let gates = tensor(&[0.4, 0.1, 0.2, 0.3, 0.25, 0.25, 0.3, 0.2], &[2, 4]);
    let moved = (facts().index_select(&order, 1).unwrap(), gates.index_select(&order, 1).unwrap());
    let sum = |f: &Tensor, g: &Tensor| {
        g.unsqueeze(1).unwrap().matmul(f).unwrap() // soft attention
    };
    assert_close("soft", &sum(&facts(), &gates), &sum(&moved.0, &moved.1), 0., 1e-15);
    for kind in KINDS {
        let (_store, vb) = store(4);
        let a = kind.forward(vb.clone(), &facts(), &gates, None).unwrap();
        let b = kind.forward(vb, &moved.0, &moved.1, None).unwrap();
        let diff = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        assert!(diff.to_scalar::<f64>().unwrap() > 1e-3, "{kind:?}");
    }
}

#[test]
fn gradients() {
    let gates = tensor(&[0.3, 0.2, 0.9, 0.4, 0.6, 0.1, 0.5, 0.7], &[2, 4]);
    for kind in KINDS {
        for lengths in [None, Some(&[4, 2][..])] {
            let inputs = [("facts", facts()), ("gates", gates.clone())];
            check_layer(&inputs, 1e-7, |vb, tensors| {
                probe(&kind.forward(vb, &tensors[0], &tensors[1], lengths)?)
            });
        }
    }
}

#[test]
fn bad_input_is_named() {
    let (_store, vb) = store(0);
    let message = error(AttentionGru::new(0, 2, vb.clone()));
    assert!(message.contains("attention_gru: sizes must be positive"), "{message}");
    let gru = AttentionGru::new(3, 2, vb).unwrap();
    let message = error(gru.forward(&facts(), &tensor(&[1.; 6], &[2, 3]), None));
    assert!(message.contains("attention_gru: expected (2, 4) gates, got [2, 3]"), "{message}");
    let wide = tensor(&[1.; 8], &[1, 2, 4]);
    let message = error(gru.forward(&wide, &tensor(&[1.; 2], &[1, 2]), None));
    assert!(message.contains("expected facts (b, n, 3), got [1, 2, 4]"), "{message}");
}
