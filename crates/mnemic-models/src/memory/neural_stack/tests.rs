use candle_core::{DType, Device, Var};
use mnemic_layers::ParamStore;
use mnemic_layers::losses::{CrossEntropy, cross_entropy};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::testing::without_gradient;

const ALL: [Structure; 3] = [Structure::Stack, Structure::Queue, Structure::Deque];

fn small(structure: Structure) -> Config {
    let sizes =
        Config { embedding_size: 3, hidden_size: 5, memory_width: 4, ..Config::stack(6, 4) };
    Config { structure, ..sizes }
}

fn build(config: &Config, dtype: DType) -> (NeuralStackLstm, ParamStore) {
    let store = ParamStore::new(3);
    (NeuralStackLstm::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

/// The paper counts 6.7e5 for stack and queue and 1.0e6 for the deque, its embeddings and softmax left out.
#[test]
fn parameters_are_nearly_as_many_as_the_papers() {
    for (config, expected) in [
        (Config::stack(300, 130), 6.7e5),
        (Config::queue(300, 130), 6.7e5),
        (Config::deque(300, 130), 1.0e6),
    ] {
        let count = build(&config, DType::F32).1.num_parameters() - 300 * 64 - 257 * 130;
        assert!((count as f64 / expected - 1.).abs() < 0.1, "{count} for {expected}");
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for structure in ALL {
        for num_layers in [1, 2] {
            let (model, store) = build(&Config { num_layers, ..small(structure) }, DType::F64);
            let inputs = waves(&[2, 5, 6], 1., 1., DType::F64);
            let scores = model.forward(&inputs, None, &Context::eval()).unwrap();
            let loss = scores.sqr().unwrap().sum_all().unwrap();
            assert_eq!(without_gradient(&store, &loss), Vec::<String>::new());
        }
    }
}

#[test]
fn later_inputs_and_other_rows_change_nothing() {
    for structure in ALL {
        let (model, _) = build(&small(structure), DType::F64);
        let ctx = Context::eval();
        let inputs = waves(&[3, 6, 6], 1., 1., DType::F64);
        let whole = model.forward(&inputs, None, &ctx).unwrap();
        let first = model.forward(&inputs.narrow(1, 0, 4).unwrap(), None, &ctx).unwrap();
        assert_close("first steps", &first, &whole.narrow(1, 0, 4).unwrap(), 1e-12, 1e-12);
        let row = model.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
        assert_close("one row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
    }
}

#[test]
fn strengths_and_readings_are_watched() {
    let (model, _) = build(&small(Structure::Deque), DType::F64);
    let ctx = Context::eval().watching();
    model.forward(&waves(&[2, 3, 6], 1., 1., DType::F64), None, &ctx).unwrap();
    let trace = ctx.take_trace();
    let names: Vec<(&str, usize)> = trace.iter().map(|w| (w.name.as_str(), w.step)).collect();
    let each = ["commands", "strengths", "read_weights_top", "read_weights_bottom"];
    assert_eq!(names[4..8], each.map(|name| (name, 1)));
    assert_eq!(trace[5].value.dims(), [2, 4]);
}

/// Two thousand steps neither overflow the stack nor keep more than the rows and strengths.
#[test]
fn long_sequences_train() {
    let (model, store) = build(&small(Structure::Queue), DType::F32);
    let inputs = waves(&[1, 2000, 6], 1., 1., DType::F32);
    let scores = model.forward(&inputs, None, &Context::eval()).unwrap();
    let scores = scores.reshape((2000, 4)).unwrap();
    let loss = cross_entropy(&scores, &[0; 2000], &CrossEntropy::default()).unwrap();
    assert!(mnemic_layers::only_fused(&loss));
    let vars: Vec<Var> = store.vars().into_iter().map(|(_, v)| v).collect();
    let grads = mnemic_layers::backward(&loss).unwrap();
    for var in vars {
        let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()));
    }
}

/// With hand-set maps a queue copies and a stack reverses: the pushes come with the inputs, the pops after the delimiter.
#[test]
fn hand_set_machines_copy_and_reverse() {
    for (structure, reverse) in [(Structure::Queue, false), (Structure::Stack, true)] {
        let store = ParamStore::new(0);
        let memory =
            NeuralStack::new(structure.into(), 4, 3, store.builder(DType::F64, &Device::Cpu))
                .unwrap();
        // The controller gives [x; output phase]: push without the phase, pop with it; the row is the input's.
        let set = |name: &str, values: Vec<f64>| {
            let var = store.vars().into_iter().find(|(n, _)| n == name).unwrap().1;
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
        };
        set("push.weight", vec![0., 0., 0., -80.]);
        set("push.bias", vec![40.]);
        set("pop.weight", vec![0., 0., 0., 80.]);
        set("pop.bias", vec![-40.]);
        let row = |k: usize| (0..4).map(|i| if i == k { 40. } else { 0. }).collect::<Vec<_>>();
        set("value.weight", [row(0), row(1), row(2)].concat());
        let mut state = memory.start(1).unwrap();
        let symbols = [0, 2, 1, 2, 0];
        let mut said = vec![];
        for t in 0..2 * symbols.len() {
            let mut given = [0f64; 4];
            match symbols.get(t) {
                Some(&symbol) => given[symbol] = 1.,
                None => given[3] = 1.,
            }
            let before = state.read.to_vec2::<f64>().unwrap()[0].clone();
            let given = Tensor::new(&[given], &Device::Cpu).unwrap();
            memory.step(&given, &mut state, t, &Context::eval()).unwrap();
            if t >= symbols.len() {
                // What was read before this pop is what it takes.
                said.push(before.iter().position(|&x| x > 0.9).unwrap());
            }
        }
        let mut expected = symbols.to_vec();
        if reverse {
            expected.reverse();
        }
        assert_eq!(said, expected);
    }
}
