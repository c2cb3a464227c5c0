use candle_core::{D, DType, Device, Tensor};
use mnemic_layers::{ParamStore, Pointer, init};
use mnemic_testing::{assert_close, check_gradients, waves};

fn set(store: &ParamStore, name: &str, value: &Tensor) {
    store.get(name).unwrap().set(value).unwrap();
}

fn pointer(h: usize) -> (Pointer, ParamStore) {
    let store = ParamStore::new(1);
    let vb = store.builder(DType::F64, &Device::Cpu);
    (Pointer::new(h, init::uniform(0.9), vb).unwrap(), store)
}

fn run(pointer: &Pointer, states: &Tensor, positions: &Tensor) -> Tensor {
    pointer.log_probabilities(states, &pointer.keys(positions).unwrap(), None).unwrap()
}

/// One unit, all weights 1, positions 0, 1, -1 and the state 0.
#[test]
fn worked_numbers() {
    let (pointer, store) = pointer(1);
    for name in ["v", "w1.weight", "w2.weight"] {
        set(&store, name, &store.get(name).unwrap().ones_like().unwrap());
    }
    let positions = Tensor::new(&[[[0f64], [1.], [-1.]]], &Device::Cpu).unwrap();
    let state = Tensor::new(&[[[0f64]]], &Device::Cpu).unwrap();
    let keys = pointer.keys(&positions).unwrap();
    let scores = Tensor::new(&[[[0., 0.761594, -0.761594]]], &Device::Cpu).unwrap();
    assert_close("u", &pointer.scores(&state, &keys).unwrap(), &scores, 0., 1e-6);
    let p = Tensor::new(&[[[0.277115, 0.593494, 0.129391]]], &Device::Cpu).unwrap();
    assert_close("p", &run(&pointer, &state, &positions).exp().unwrap(), &p, 0., 1e-6);
}

#[test]
fn a_pointer_without_weights_is_even_and_sums_are_one() {
    let (pointer, store) = pointer(5);
    let (states, positions) =
        (waves(&[2, 3, 5], 1., 1., DType::F64), waves(&[2, 7, 5], 2., 1., DType::F64));
    let p = run(&pointer, &states, &positions).exp().unwrap();
    let ones = Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap();
    assert_close("sums", &p.sum(D::Minus1).unwrap(), &ones, 1e-12, 0.);
    for name in ["w1.weight", "w2.weight"] {
        set(&store, name, &store.get(name).unwrap().zeros_like().unwrap());
    }
    let p = run(&pointer, &states, &positions).exp().unwrap();
    let even = Tensor::full(1. / 7., (2, 3, 7), &Device::Cpu).unwrap();
    assert_close("even", &p, &even, 1e-12, 0.);
}

/// States and positions have different roles, and the order of positions has none.
#[test]
fn positions_may_change_places_but_not_with_states() {
    let (pointer, _) = pointer(4);
    let (states, positions) =
        (waves(&[1, 3, 4], 1., 1., DType::F64), waves(&[1, 3, 4], 2., 1., DType::F64));
    let p = run(&pointer, &states, &positions);
    let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
    let moved = run(&pointer, &states, &positions.index_select(&order, 1).unwrap());
    assert_close("moved", &moved, &p.index_select(&order, 2).unwrap(), 1e-12, 1e-12);
    let other = run(&pointer, &positions, &states).transpose(1, 2).unwrap();
    let difference = (other - p).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f64>().unwrap() > 0.01);
}

#[test]
fn gradients() {
    let mask = Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 0, 1]], &Device::Cpu).unwrap();
    let inputs = [
        ("v", waves(&[3], 1., 1., DType::F64)),
        ("w1.weight", waves(&[3, 3], 2., 0.7, DType::F64)),
        ("w2.weight", waves(&[3, 3], 3., 0.7, DType::F64)),
        ("states", waves(&[2, 2, 3], 4., 1., DType::F64)),
        ("positions", waves(&[2, 4, 3], 5., 1., DType::F64)),
    ];
    check_gradients(&inputs, 1e-7, |x| {
        let named = ["v", "w1.weight", "w2.weight"].iter().zip(x);
        let tensors = named.map(|(name, x)| (name.to_string(), x.clone())).collect();
        let vb = candle_nn::VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        let pointer = Pointer::new(3, init::uniform(1.), vb)?;
        let log_p = pointer.log_probabilities(&x[3], &pointer.keys(&x[4])?, Some(&mask))?;
        let finite = log_p.gt(-1e29)?;
        let log_p = finite.where_cond(&log_p, &log_p.zeros_like()?)?;
        log_p.mul(&waves(&[2, 2, 4], 6., 1., DType::F64))?.sum_all()
    });
}

#[test]
fn a_size_of_nothing_is_refused() {
    let store = ParamStore::new(0);
    let vb = store.builder(DType::F32, &Device::Cpu);
    let error = Pointer::new(0, init::uniform(1.), vb).unwrap_err().to_string();
    assert!(error.contains("hidden_size"), "{error}");
}
