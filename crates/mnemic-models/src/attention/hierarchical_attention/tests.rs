use candle_core::{DType, Device, Var};
use mnemic_layers::ParamStore;
use mnemic_layers::losses::{CrossEntropy, cross_entropy};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::recurrent::lstm_transducer;
use crate::testing::{check_differences, without_gradient};

const READOUTS: [(Readout, Option<usize>); 4] = [
    (Readout::Flat, None),
    (Readout::TopDown, None),
    (Readout::Descent, None),
    (Readout::Descent, Some(1)),
];

fn small((readout, beam): (Readout, Option<usize>)) -> Config {
    let sizes = Config { hidden_size: 4, branching: 2, levels: 2, ..Config::essay(3, 2) };
    Config { readout, beam, conv_width: 2, ..sizes }
}

fn build(config: &Config, dtype: DType) -> (HierarchicalAttentionEncoder, ParamStore) {
    let store = ParamStore::new(3);
    let model = HierarchicalAttentionEncoder::new(config, store.builder(dtype, &Device::Cpu));
    (model.unwrap(), store)
}

/// Incomplete windows of seven leaves, all parameters.
#[test]
fn gradients_agree_with_differences() {
    for readout in READOUTS {
        let (model, store) = build(&small(readout), DType::F64);
        let inputs = waves(&[2, 7, 3], 1., 1., DType::F64);
        for wanted in [[true; 7], [false, false, true, false, false, true, true]] {
            let loss = || {
                let scores = model.forward(&inputs, Some(&wanted), &Context::eval())?;
                (scores.sqr()? + scores)?.sum_all()
            };
            for (name, _) in store.vars() {
                check_differences(&store, &name, 5, loss);
            }
        }
    }
}

/// 26 = 2 · 9 + 2 · 3 + 2: two nodes of each level, so that every softmax has a choice.
#[test]
fn gradients_reach_every_parameter() {
    for readout in READOUTS {
        let (model, store) = build(&Config { branching: 3, ..small(readout) }, DType::F64);
        let inputs = waves(&[2, 26, 3], 1., 1., DType::F64);
        let last: Vec<bool> = (0..26).map(|step| step == 25).collect();
        for wanted in [Some(&last[..]), None] {
            let scores = model.forward(&inputs, wanted, &Context::eval()).unwrap();
            let loss = scores.sqr().unwrap().sum_all().unwrap();
            // A beam of one leaves no choice among nodes.
            let dead = without_gradient(&store, &loss);
            let beam = readout.1 == Some(1);
            assert!(dead.is_empty() || beam && wanted.is_some(), "{readout:?}: {dead:?}");
        }
    }
}

#[test]
fn a_stream_is_the_whole_and_rows_are_apart() {
    for readout in READOUTS {
        let (model, _) = build(&small(readout), DType::F64);
        let inputs = waves(&[2, 11, 3], 1., 1., DType::F64);
        let ctx = Context::eval();
        let whole = model.forward(&inputs, None, &ctx).unwrap();
        let row = model.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
        assert_close("one row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-10, 1e-10);
        let first = model.forward(&inputs.narrow(1, 0, 6).unwrap(), None, &ctx).unwrap();
        assert_close("first steps", &first, &whole.narrow(1, 0, 6).unwrap(), 1e-10, 1e-10);
        let mut state = model.start();
        for step in 0..11 {
            let input = inputs.narrow(1, step, 1).unwrap().squeeze(1).unwrap();
            let scores = model.step(&input, &mut state, &ctx).unwrap();
            let expected = whole.narrow(1, step, 1).unwrap().squeeze(1).unwrap();
            assert_close("step", &scores, &expected, 1e-10, 1e-10);
        }
        assert!(model.forward(&waves(&[2, 5, 4], 1., 1., DType::F64), None, &ctx).is_err());
    }
}

/// What is read, and nothing else, when the context is watching.
#[test]
fn weights_are_watched() {
    let (model, _) = build(&small((Readout::Descent, None)), DType::F64);
    let ctx = Context::eval().watching();
    model.forward(&waves(&[1, 5, 3], 1., 1., DType::F64), None, &ctx).unwrap();
    let trace = ctx.take_trace();
    let count = |name: &str| trace.iter().filter(|w| w.name == name).count();
    assert_eq!((count("summary_weights_level_1"), count("summary_weights_level_2")), (2, 1));
    for name in ["readout_weights_level_0", "readout_weights_level_2", "leaf_weights"] {
        assert_eq!(count(name), 5, "{name}");
    }
    for entry in trace.iter().filter(|w| w.name == "leaf_weights") {
        let weights = entry.value.to_vec3::<f32>().unwrap();
        for head in &weights[0] {
            assert!((head.iter().sum::<f32>() - 1.).abs() < 1e-5);
            assert!(head[entry.step + 1..].iter().all(|&w| w == 0.));
        }
    }
}

/// The norm of the gradient of the last step's scores at a step of the inputs.
fn reach(model: &dyn SequenceModel, t: usize) -> (f64, f64) {
    let inputs = Var::from_tensor(&waves(&[1, t, 8], 1., 1., DType::F32)).unwrap();
    let wanted: Vec<bool> = (0..t).map(|step| step + 1 == t).collect();
    let scores = model.forward(&inputs, Some(&wanted), &Context::eval()).unwrap();
    let grads = mnemic_layers::backward(&scores.sum_all().unwrap()).unwrap();
    let grads = grads.get(&inputs).unwrap();
    let norm = |step: usize| {
        let grad = grads.narrow(1, step, 1).unwrap().to_dtype(DType::F64).unwrap();
        grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    };
    (norm(0), norm(t - 1))
}

#[test]
fn gradients_reach_over_ten_thousand_steps_where_those_of_an_lstm_vanish() {
    let t = 10_000;
    for readout in [Readout::Flat, Readout::TopDown, Readout::Descent] {
        let config = Config { hidden_size: 8, readout, ..Config::essay(8, 4) };
        let (first, last) = reach(&build(&config, DType::F32).0, t);
        let ratio = first / (last / t as f64);
        assert!((0.01..100.).contains(&ratio), "{readout:?}: {first:e} {last:e} {ratio}");
    }
    let config = lstm_transducer::Config {
        hidden_size: 8,
        num_layers: 1,
        ..lstm_transducer::Config::lstm(8, 4)
    };
    let store = ParamStore::new(1);
    let lstm =
        lstm_transducer::LstmTransducer::new(&config, store.builder(DType::F32, &Device::Cpu));
    let (first, last) = reach(&lstm.unwrap(), t);
    assert!(last > 0. && first < 1e-30, "{first:e} {last:e}");
}

/// Adam on the value of the key that is asked for, one of four pairs in twenty steps.
#[test]
fn small_needles_are_found() {
    let (t, pairs) = (20, 4);
    let mut state = 7u64;
    let mut below = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) % n) as usize
    };
    // Symbols: keys 0-3, values 4-7, noise 8-9.
    let mut batch = |b: usize| {
        let (mut inputs, mut targets) = (vec![0f32; b * t * 10], vec![]);
        for row in 0..b {
            let mut symbols: Vec<usize> = (0..t).map(|_| 8 + below(2)).collect();
            let values: Vec<usize> = (0..pairs).map(|_| below(4)).collect();
            for (key, &value) in values.iter().enumerate() {
                let place = 4 * key + below(3);
                (symbols[place], symbols[place + 1]) = (key, 4 + value);
            }
            let asked = below(pairs as u64);
            symbols[t - 1] = asked;
            targets.push(values[asked] as i64);
            for (step, symbol) in symbols.into_iter().enumerate() {
                inputs[(row * t + step) * 10 + symbol] = 1.;
            }
        }
        (Tensor::from_vec(inputs, (b, t, 10), &Device::Cpu).unwrap(), targets)
    };
    let wanted: Vec<bool> = (0..t).map(|step| step + 1 == t).collect();
    let sizes = Config { hidden_size: 16, branching: 6, conv_width: 2, ..Config::essay(10, 4) };
    let (model, store) = build(&Config { readout: Readout::Descent, ..sizes }, DType::F32);
    let vars = store.vars();
    let zeros = |v: &Var| (v.zeros_like().unwrap(), v.zeros_like().unwrap());
    let mut moments: Vec<(Tensor, Tensor)> = vars.iter().map(|(_, v)| zeros(v)).collect();
    for step in 1..=300 {
        let (inputs, targets) = batch(32);
        let scores = model.forward(&inputs, Some(&wanted), &Context::eval()).unwrap();
        let loss =
            cross_entropy(&scores.flatten_to(1).unwrap(), &targets, &CrossEntropy::default());
        let grads = mnemic_layers::backward(&loss.unwrap()).unwrap();
        for ((_, var), (m, v)) in vars.iter().zip(&mut moments) {
            let Some(g) = grads.get(var) else { continue };
            *m = ((&*m * 0.9).unwrap() + (g * 0.1).unwrap()).unwrap();
            *v = ((&*v * 0.99).unwrap() + (g.sqr().unwrap() * 0.01).unwrap()).unwrap();
            let m = (&*m / (1. - 0.9f64.powi(step))).unwrap();
            let v = (&*v / (1. - 0.99f64.powi(step))).unwrap();
            let change = (m / (v.sqrt().unwrap() + 1e-8).unwrap()).unwrap();
            var.set(&(var.as_tensor() - (change * 0.01).unwrap()).unwrap()).unwrap();
        }
    }
    let (inputs, targets) = batch(200);
    let scores = model.forward(&inputs, Some(&wanted), &Context::eval()).unwrap();
    let best = scores.squeeze(1).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let right = best.iter().zip(&targets).filter(|(a, b)| i64::from(**a) == **b).count();
    assert!(right >= 190, "{right} of 200");
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    for (bad, word) in [
        (Config { conv_width: 0, ..small((Readout::Flat, None)) }, "conv_width"),
        (small((Readout::Flat, Some(2))), "beam"),
        (Config { branching: 1, ..small((Readout::Flat, None)) }, "branching"),
    ] {
        assert!(bad.validate().unwrap_err().to_string().contains(word), "{bad:?}");
    }
}
