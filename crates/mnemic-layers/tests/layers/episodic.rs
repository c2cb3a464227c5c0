//! The attention of DMN and DMN+.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_layers::{AttentionGru, EpisodicAttention, EpisodicKind, ParamStore, length_mask};
use mnemic_testing::{assert_close, waves};

use crate::{check_layer, error, probe, store, tensor};

const KINDS: [EpisodicKind; 2] = [EpisodicKind::Dmn, EpisodicKind::DmnPlus];
const H: usize = 3;

/// Facts, question and memory, with no two elements equal: `|x|` has a kink at 0.
fn inputs() -> (Tensor, Tensor, Tensor) {
    (
        waves(&[2, 4, H], 0.1, 1., DType::F64),
        waves(&[2, H], 2.3, 0.8, DType::F64),
        waves(&[2, H], 4.1, 0.6, DType::F64),
    )
}

/// The score of one fact straight from the papers, on plain numbers.
fn score(kind: EpisodicKind, store: &ParamStore, c: &[f64], q: &[f64], m: &[f64]) -> f64 {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
    let distance =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>();
    let value =
        |name: &str| store.get(name).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (cq, cm) = (product(c, q), product(c, m));
    let (dq, dm) = (distance(c, q), distance(c, m));
    let z: Vec<f64> = match kind {
        EpisodicKind::DmnPlus => [cq, cm, dq, dm].concat(),
        EpisodicKind::Dmn => {
            let w_b = value("w_b");
            let bilinear = |v: &[f64]| -> f64 {
                let terms = (0..H).flat_map(|i| (0..H).map(move |j| (i, j)));
                terms.map(|(i, j)| c[i] * w_b[i * H + j] * v[j]).sum()
            };
            let last = vec![bilinear(q), bilinear(m)];
            [c.to_vec(), m.to_vec(), q.to_vec(), cq, cm, dq, dm, last].concat()
        }
    };
    let (w1, b1, w2, b2) =
        (value("w1.weight"), value("w1.bias"), value("w2.weight"), value("w2.bias"));
    assert_eq!(w1.len(), H * z.len());
    let hidden = w1
        .chunks(z.len())
        .zip(&b1)
        .map(|(row, b)| (row.iter().zip(&z).map(|(w, z)| w * z).sum::<f64>() + b).tanh());
    hidden.zip(&w2).map(|(h, w)| h * w).sum::<f64>() + b2[0]
}

#[test]
fn scores_follow_the_papers() {
    let (facts, q, m) = inputs();
    for kind in KINDS {
        let (store, vb) = store(1);
        let attention = EpisodicAttention::new(kind, H, vb).unwrap();
        for name in ["w1.bias", "w2.bias"] {
            let var = store.get(name).unwrap();
            var.set(&waves(var.dims(), 7., 0.5, DType::F64)).unwrap();
        }
        let prepared = attention.prepare(&facts, &q).unwrap();
        let scores = attention.scores(&prepared, &m).unwrap();
        assert_eq!(scores.dims(), [2, 4]);
        let (f, q, m) = (
            facts.to_vec3::<f64>().unwrap(),
            q.to_vec2::<f64>().unwrap(),
            m.to_vec2::<f64>().unwrap(),
        );
        let expected: Vec<f64> = (0..2)
            .flat_map(|b| (0..4).map(move |i| (b, i)))
            .map(|(b, i)| score(kind, &store, &f[b][i], &q[b], &m[b]))
            .collect();
        assert_close(&format!("{kind:?}"), &scores, &tensor(&expected, &[2, 4]), 0., 1e-13);
        // The gates of the same pass.
        let gates =
            attention.gates(&prepared, &waves(&[2, H], 4.1, 0.6, DType::F64), None).unwrap();
        let by_hand = match kind {
            EpisodicKind::Dmn => ((scores.neg().unwrap().exp().unwrap() + 1.).unwrap()).recip(),
            EpisodicKind::DmnPlus => candle_nn::ops::softmax(&scores, 1),
        };
        assert_close(&format!("{kind:?} gates"), &gates, &by_hand.unwrap(), 0., 1e-13);
    }
}

#[test]
fn feature_size_and_symmetry() {
    // Swapping question and memory permutes the feature blocks (DMN: m, q; c∘q, c∘m; |c-q|, |c-m|;
    // the two scalars), so permuting the columns of W_1 alike leaves the scores as they were.
    let (facts, q, m) = inputs();
    for (kind, width, swaps) in [
        (EpisodicKind::Dmn, 7 * H + 2, vec![(1, 2), (3, 4), (5, 6)]),
        (EpisodicKind::DmnPlus, 4 * H, vec![(0, 1), (2, 3)]),
    ] {
        let (store, vb) = store(2);
        let attention = EpisodicAttention::new(kind, H, vb).unwrap();
        let w1 = store.get("w1.weight").unwrap();
        assert_eq!(w1.dims(), [H, width]);
        let scores = |q: &Tensor, m: &Tensor| {
            attention.scores(&attention.prepare(&facts, q).unwrap(), m).unwrap()
        };
        let before = scores(&q, &m);
        let mut columns: Vec<u32> = (0..width as u32).collect();
        for (a, b) in swaps {
            for k in 0..H {
                columns.swap(a * H + k, b * H + k);
            }
        }
        if kind == EpisodicKind::Dmn {
            columns.swap(7 * H, 7 * H + 1);
        }
        let columns = Tensor::new(columns, &Device::Cpu).unwrap();
        w1.set(&w1.index_select(&columns, 1).unwrap()).unwrap();
        assert_close(&format!("{kind:?}"), &scores(&m, &q), &before, 0., 1e-14);
        let changed = (scores(&q, &m) - before).unwrap().abs().unwrap().max_all().unwrap();
        assert!(changed.to_scalar::<f64>().unwrap() > 1e-3, "{kind:?}");
    }
}

#[test]
fn padded_facts_get_no_gate() {
    let (facts, q, m) = inputs();
    let mask = length_mask(&[4, 2], 4, &Device::Cpu).unwrap();
    let noise = waves(&[2, 4, H], 5., 100., DType::F64);
    let valid = mask.unsqueeze(2).unwrap().broadcast_as((2, 4, H)).unwrap();
    let poisoned = valid.where_cond(&facts, &noise).unwrap();
    for kind in KINDS {
        let (_store, vb) = store(3);
        let attention = EpisodicAttention::new(kind, H, vb).unwrap();
        let gates = |facts: &Tensor, mask: Option<&Tensor>| {
            attention.gates(&attention.prepare(facts, &q).unwrap(), &m, mask).unwrap()
        };
        let clean = gates(&facts, Some(&mask));
        assert_close(&format!("{kind:?}"), &clean, &gates(&poisoned, Some(&mask)), 0., 0.);
        let row = clean.to_vec2::<f64>().unwrap().remove(1);
        assert_eq!(row[2..], [0., 0.]);
        // The same as a batch without the padding.
        let (short, q, m) = (
            facts.narrow(0, 1, 1).unwrap().narrow(1, 0, 2).unwrap(),
            q.narrow(0, 1, 1).unwrap(),
            m.narrow(0, 1, 1).unwrap(),
        );
        let alone = attention.gates(&attention.prepare(&short, &q).unwrap(), &m, None).unwrap();
        assert_close(&format!("{kind:?}"), &alone, &tensor(&row[..2], &[1, 2]), 0., 1e-15);
        // No facts at all: zeros, not NaN.
        let none = Tensor::zeros((2, 4), DType::U8, &Device::Cpu).unwrap();
        let empty = gates(&facts, Some(&none));
        assert_close(&format!("{kind:?}"), &empty, &empty.zeros_like().unwrap(), 0., 0.);
    }
    // One fact: its softmax gate is 1.
    let (_store, vb) = store(3);
    let attention = EpisodicAttention::new(EpisodicKind::DmnPlus, H, vb).unwrap();
    let one = facts.narrow(1, 0, 1).unwrap();
    let gates = attention.gates(&attention.prepare(&one, &q).unwrap(), &m, None).unwrap();
    assert_eq!(gates.to_vec2::<f64>().unwrap(), [[1.], [1.]]);
}

/// Three passes of DMN+ with a tied ReLU-free memory: gates, attention GRU, memory = tanh(episode + memory).
fn passes(
    kind: EpisodicKind,
    vb: candle_nn::VarBuilder<'static>,
    tensors: &[Tensor],
) -> Result<Tensor> {
    let attention = EpisodicAttention::new(kind, H, vb.pp("attention"))?;
    let episode = AttentionGru::new(H, H, vb.pp("episode"))?;
    let (facts, question) = (&tensors[0], &tensors[1]);
    let lengths = [4, 3];
    let mask = length_mask(&lengths, 4, &Device::Cpu)?;
    let prepared = attention.prepare(facts, question)?;
    let mut memory = (question * 0.5)?;
    for _ in 0..3 {
        let gates = attention.gates(&prepared, &memory, Some(&mask))?;
        memory = (episode.forward(facts, &gates, Some(&lengths))? + memory)?.tanh()?;
    }
    probe(&memory)
}

#[test]
fn gradients_through_three_passes() {
    let (facts, q, _) = inputs();
    for kind in KINDS {
        let inputs = [("facts", facts.clone()), ("question", q.clone())];
        check_layer(&inputs, 1e-6, |vb, tensors| passes(kind, vb, tensors));
    }
}

#[test]
fn gate_supervision_gradient() {
    // Binary cross-entropy on a sigmoid gate: dE/dZ = g - 1 at the target, g elsewhere.
    let scores = Var::from_tensor(&tensor(&[0.4, -1.2, 2.0], &[1, 3])).unwrap();
    let target = tensor(&[0., 1., 0.], &[1, 3]);
    use mnemic_layers::losses::{CrossEntropy, Reduction, bce_with_logits, cross_entropy};
    let loss = bce_with_logits(&scores, &target, Reduction::Sum).unwrap();
    let gates = ((scores.neg().unwrap().exp().unwrap() + 1.).unwrap()).recip().unwrap();
    let grad = loss.backward().unwrap().get(&scores).unwrap().clone();
    assert_close("binary", &grad, &(gates - &target).unwrap(), 0., 1e-15);
    // Cross-entropy over the facts: p - onehot.
    let loss = cross_entropy(&scores, &[1], &CrossEntropy::default()).unwrap();
    let p = candle_nn::ops::softmax(&scores, 1).unwrap();
    let grad = loss.backward().unwrap().get(&scores).unwrap().clone();
    assert_close("softmax", &grad, &(p - &target).unwrap(), 0., 1e-15);
}

#[test]
fn bad_input_is_named() {
    let (facts, q, _) = inputs();
    let (_store, vb) = store(0);
    assert!(
        error(EpisodicAttention::new(EpisodicKind::Dmn, 0, vb.clone())).contains("hidden_size")
    );
    let attention = EpisodicAttention::new(EpisodicKind::Dmn, H, vb).unwrap();
    let message = error(attention.prepare(&q, &q));
    assert!(message.contains("expected facts (b, n, 3), got [2, 3]"), "{message}");
    let wide = tensor(&[1.; 8], &[2, 4]);
    let message = error(attention.prepare(&facts, &wide));
    assert!(message.contains("expected the question (2, 3), got [2, 4]"), "{message}");
    let prepared = attention.prepare(&facts, &q).unwrap();
    let message = error(attention.scores(&prepared, &wide));
    assert!(message.contains("expected the memory (2, 3), got [2, 4]"), "{message}");
    let mask = length_mask(&[1, 1], 3, &Device::Cpu).unwrap();
    assert!(error(attention.gates(&prepared, &q, Some(&mask))).contains("[2, 3]"));
}
