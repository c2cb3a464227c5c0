use candle_core::{DType, Device, Tensor};
use mnemic_layers::ParamStore;
use mnemic_layers::losses::{Reduction, bce_with_logits};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::testing::without_gradient;

fn small() -> Config {
    Config {
        hidden_size: 7,
        num_layers: 2,
        num_slots: 6,
        slot_width: 4,
        read_heads: 2,
        ..Config::lstm(3, 2)
    }
}

fn build(config: &Config, dtype: DType) -> (Dnc, ParamStore) {
    let store = ParamStore::new(3);
    (Dnc::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

/// Every layer of the controller sees inputs, readings and the layer below.
#[test]
fn parameters_are_counted() {
    let (_, store) = build(&small(), DType::F32);
    let lstm = |width: usize| 4 * 7 * (width + 7 + 2);
    let interface = (14 + 1) * (8 + 12 + 10 + 3);
    let expected = lstm(3 + 8) + lstm(3 + 8 + 7) + interface + 2 * (14 + 8 + 1);
    assert_eq!(store.num_parameters(), expected);
}

#[test]
fn gradients_reach_every_parameter() {
    let (dnc, store) = build(&small(), DType::F64);
    let inputs = waves(&[2, 5, 3], 1., 1., DType::F64);
    let scores = dnc.forward(&inputs, None, &Context::eval()).unwrap();
    let loss = scores.sqr().unwrap().sum_all().unwrap();
    assert_eq!(without_gradient(&store, &loss), Vec::<String>::new());
}

#[test]
fn later_inputs_and_other_rows_change_nothing() {
    let (dnc, _) = build(&small(), DType::F64);
    let ctx = Context::eval();
    let inputs = waves(&[3, 6, 3], 1., 1., DType::F64);
    let whole = dnc.forward(&inputs, None, &ctx).unwrap();
    let first = dnc.forward(&inputs.narrow(1, 0, 4).unwrap(), None, &ctx).unwrap();
    assert_close("first steps", &first, &whole.narrow(1, 0, 4).unwrap(), 1e-12, 1e-12);
    let row = dnc.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
    assert_close("one row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
}

#[test]
fn everything_is_watched() {
    let (dnc, _) = build(&small(), DType::F64);
    let ctx = Context::eval().watching();
    dnc.forward(&waves(&[2, 3, 3], 1., 1., DType::F64), None, &ctx).unwrap();
    let trace = ctx.take_trace();
    let shapes = [
        ("read_weights", vec![2, 2, 6]),
        ("write_weights", vec![2, 1, 6]),
        ("usage", vec![2, 1, 6]),
        ("allocation", vec![2, 1, 6]),
        ("gates", vec![2, 4]),
        ("read_modes", vec![2, 2, 3]),
        ("link", vec![2, 6, 6]),
        ("memory", vec![2, 6, 4]),
    ];
    assert_eq!(trace.len(), 3 * shapes.len());
    for (entry, (name, dims)) in trace.iter().zip(shapes) {
        assert_eq!((entry.name.as_str(), entry.step, entry.value.dims()), (name, 0, &dims[..]));
    }
}

/// 2,000 steps neither overflow the stack nor give anything that is not finite.
#[test]
fn long_sequences_train() {
    let (dnc, store) = build(&small(), DType::F32);
    let inputs = waves(&[1, 2000, 3], 1., 1., DType::F32);
    let scores = dnc.forward(&inputs, None, &Context::eval()).unwrap();
    let loss = bce_with_logits(&scores, &scores.zeros_like().unwrap(), Reduction::Mean).unwrap();
    assert!(mnemic_layers::only_fused(&loss));
    let grads = mnemic_layers::backward(&loss).unwrap();
    for (name, var) in store.vars() {
        let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{name}");
    }
}

/// The interface by hand: what was written into free slots is read again, slot by slot in its order, by going forward. Writing is
/// switched by the first input, reading forward by the second; the third is what is written.
#[test]
fn a_scripted_copy() {
    use mnemic_layers::{DncMemory, DncMemoryConfig};
    let config = DncMemoryConfig { controller_size: 3, num_slots: 5, slot_width: 1, read_heads: 1 };
    let store = ParamStore::new(0);
    let memory = DncMemory::new(config, store.builder(DType::F64, &Device::Cpu)).unwrap();
    // read key, write key, erase, add, read strength, write strength, free, allocation, write, backward, content, forward
    let mut weight = vec![0f64; 12 * 3];
    let mut bias = vec![0f64; 12];
    let mut set = |row: usize, by: [f64; 3], at: f64| {
        weight[3 * row..][..3].copy_from_slice(&by);
        bias[row] = at;
    };
    set(2, [0.; 3], 1e3); // what was there is erased
    set(3, [0., 0., 1.], 0.);
    set(6, [0.; 3], -1e3); // nothing is freed
    set(7, [0.; 3], 1e3); // only allocation
    set(8, [2e3, 0., 0.], -1e3);
    set(9, [0.; 3], -1e3);
    set(10, [0., -2e3, 0.], 0.); // by content, unless told to go forward
    set(11, [0., 2e3, 0.], -1e3);
    let vars = store.vars();
    for (name, var) in &vars {
        let (values, dims) = match name.ends_with("weight") {
            true => (weight.clone(), vec![12, 3]),
            false => (bias.clone(), vec![12]),
        };
        var.set(&Tensor::from_vec(values, dims, &Device::Cpu).unwrap()).unwrap();
    }
    let mut state = memory.start(1).unwrap();
    let mut step = |x: [f64; 3]| {
        let x = Tensor::new(&[x], &Device::Cpu).unwrap();
        state = memory.step(&x, &state, 0, &Context::eval()).unwrap();
        let weights = state.read_weights.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        (state.read.to_vec2::<f64>().unwrap()[0][0], weights, state.clone())
    };
    for value in [3., 1., 4.] {
        step([1., 0., value]);
    }
    // Content is all the same (the key is zero), so the reading is spread; start it at the first slot.
    let (_, _, mut at) = step([0., 0., 0.]);
    at.read_weights = Tensor::new(&[[[1f64, 0., 0., 0., 0.]]], &Device::Cpu).unwrap();
    let go = Tensor::new(&[[0f64, 1., 0.]], &Device::Cpu).unwrap();
    let mut read = vec![];
    for _ in 0..2 {
        at = memory.step(&go, &at, 0, &Context::eval()).unwrap();
        read.push(at.read.to_vec2::<f64>().unwrap()[0][0]);
    }
    assert_eq!(read, [1., 4.]);
}

#[test]
fn wrong_sizes_are_named() {
    let store = ParamStore::new(0);
    let config = Config { slot_width: 0, ..Config::lstm(9, 8) };
    let error = Dnc::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap_err();
    assert!(error.to_string().contains("slot_width"), "{error}");
    let (dnc, _) = build(&Config::lstm(9, 8), DType::F32);
    let inputs = Tensor::zeros((1, 2, 3), DType::F32, &Device::Cpu).unwrap();
    let error = dnc.forward(&inputs, None, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("(b, t, 9), got [1, 2, 3]"), "{error}");
}
