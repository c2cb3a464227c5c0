use candle_core::{DType, Device, Tensor, Var};
use mnemic_layers::ParamStore;
use mnemic_layers::losses::{Reduction, bce_with_logits};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::testing::without_gradient;

fn small(controller: Controller) -> Config {
    Config {
        controller,
        hidden_size: 7,
        num_slots: 6,
        slot_width: 4,
        read_heads: 2,
        write_heads: 2,
        ..Config::lstm(3, 2)
    }
}

fn build(config: &Config, dtype: DType) -> (Ntm, ParamStore) {
    let store = ParamStore::new(3);
    (Ntm::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

const BOTH: [Controller; 2] = [Controller::Lstm, Controller::FeedForward];

/// The paper counts 67,561 and 17,162 for copy (tables 2 and 1) without saying of what; two heads emit 26 numbers each and 40 to write.
#[test]
fn parameters_are_nearly_as_many_as_the_papers() {
    let count = |config: Config| build(&config, DType::F32).1.num_parameters();
    let (heads, start, output) = (101 * (2 * 26 + 40), 20 + 2 * 128, 8 * 121);
    let rest = heads + start + output;
    assert_eq!(count(Config::lstm(9, 8)), 400 * (29 + 100 + 2) + rest);
    assert_eq!(count(Config::feed_forward(9, 8)), 100 * 30 + rest);
}

#[test]
fn gradients_reach_every_parameter() {
    for controller in BOTH {
        let (ntm, store) = build(&small(controller), DType::F64);
        let inputs = waves(&[2, 5, 3], 1., 1., DType::F64);
        let loss =
            ntm.forward(&inputs, None, &Context::eval()).unwrap().sqr().unwrap().sum_all().unwrap();
        assert_eq!(without_gradient(&store, &loss), Vec::<String>::new());
    }
}

#[test]
fn later_inputs_and_other_rows_change_nothing() {
    for controller in BOTH {
        let (ntm, _) = build(&small(controller), DType::F64);
        let ctx = Context::eval();
        let inputs = waves(&[3, 6, 3], 1., 1., DType::F64);
        let whole = ntm.forward(&inputs, None, &ctx).unwrap();
        let first = ntm.forward(&inputs.narrow(1, 0, 4).unwrap(), None, &ctx).unwrap();
        assert_close("first steps", &first, &whole.narrow(1, 0, 4).unwrap(), 1e-12, 1e-12);
        let row = ntm.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
        assert_close("one row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
    }
}

#[test]
fn weightings_are_watched_and_sum_to_one() {
    let (ntm, _) = build(&small(Controller::Lstm), DType::F64);
    let ctx = Context::eval().watching();
    ntm.forward(&waves(&[2, 3, 3], 1., 1., DType::F64), None, &ctx).unwrap();
    let trace = ctx.take_trace();
    let names: Vec<(&str, usize)> = trace.iter().map(|w| (w.name.as_str(), w.step)).collect();
    assert_eq!(names[..3], [("read_weights", 0), ("write_weights", 0), ("memory", 0)]);
    assert_eq!(names.len(), 9);
    for watched in trace.iter().filter(|w| w.name != "memory") {
        let sums = watched.value.sum(2).unwrap();
        assert_close("sums", &sums, &sums.ones_like().unwrap(), 0., 1e-12);
    }
}

/// 2,000 steps neither overflow the stack nor give anything that is not finite.
#[test]
fn long_sequences_train() {
    let (ntm, store) = build(&small(Controller::Lstm), DType::F32);
    let inputs = waves(&[1, 2000, 3], 1., 1., DType::F32);
    let scores = ntm.forward(&inputs, None, &Context::eval()).unwrap();
    let loss = bce_with_logits(&scores, &scores.zeros_like().unwrap(), Reduction::Mean).unwrap();
    assert!(mnemic_layers::only_fused(&loss));
    let vars: Vec<Var> = store.vars().into_iter().map(|(_, v)| v).collect();
    let grads = mnemic_layers::backward(&loss).unwrap();
    for var in vars {
        let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()));
    }
}

/// A short copy task is learnt: plain gradient descent with momentum on fresh sequences of three 3-bit vectors.
#[test]
fn copying_is_learnt() {
    let config = Config { hidden_size: 24, num_slots: 8, slot_width: 8, ..Config::lstm(4, 3) };
    let (ntm, store) = build(&config, DType::F32);
    let vars = store.vars();
    let mut squares: Vec<Tensor> = vars.iter().map(|(_, v)| v.zeros_like().unwrap()).collect();
    let mut state = 7u64;
    let mut bit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33 & 1) as f32
    };
    let mut losses = vec![];
    for _ in 0..700 {
        let (b, n) = (16, 3);
        let (mut inputs, mut targets) = (vec![0f32; b * 7 * 4], vec![0f32; b * n * 3]);
        for row in 0..b {
            for i in 0..n {
                for k in 0..3 {
                    let x = bit();
                    inputs[(row * 7 + i) * 4 + k] = x;
                    targets[(row * n + i) * 3 + k] = x;
                }
            }
            inputs[(row * 7 + n) * 4 + 3] = 1.;
        }
        let inputs = Tensor::from_vec(inputs, (b, 7, 4), &Device::Cpu).unwrap();
        let targets = Tensor::from_vec(targets, (b, n, 3), &Device::Cpu).unwrap();
        let scores = ntm.forward(&inputs, None, &Context::eval()).unwrap().narrow(1, 4, n).unwrap();
        let loss =
            bce_with_logits(&scores.contiguous().unwrap(), &targets, Reduction::Mean).unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        let grads = mnemic_layers::backward(&loss).unwrap();
        for ((_, var), square) in vars.iter().zip(&mut squares) {
            let grad = grads.get(var).unwrap();
            *square =
                ((square.clone() * 0.95).unwrap() + (grad.sqr().unwrap() * 0.05).unwrap()).unwrap();
            let step = (grad / (square.sqrt().unwrap() + 1e-4).unwrap()).unwrap();
            var.set(&(var.as_tensor() - (step * 1e-2).unwrap()).unwrap()).unwrap();
        }
    }
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let (first, last) = (mean(&losses[..10]), mean(&losses[690..]));
    assert!(first > 0.6 && last < 0.1, "{first} {last}");
}

#[test]
fn wrong_sizes_are_named() {
    let error = |config: Config| {
        let store = ParamStore::new(0);
        Ntm::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap_err().to_string()
    };
    assert!(error(Config { slot_width: 0, ..Config::lstm(9, 8) }).contains("slot_width"));
    assert!(error(Config { max_shift: 128, ..Config::lstm(9, 8) }).contains("max_shift 128"));
    let (ntm, _) = build(&Config::lstm(9, 8), DType::F32);
    let inputs = Tensor::zeros((1, 2, 3), DType::F32, &Device::Cpu).unwrap();
    let error = ntm.forward(&inputs, None, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("(b, t, 9), got [1, 2, 3]"), "{error}");
}
