use candle_core::{DType, Device, Var};
use mnemic_layers::ParamStore;
use mnemic_layers::losses::{CrossEntropy, cross_entropy};
use mnemic_testing::{assert_close, check_gradients, waves};

use super::*;
use crate::testing::without_gradient;

/// Of either structure, with as many kinds of actions as there are.
fn small(structure: Structure) -> Config {
    let sizes = match structure {
        Structure::Stack => Config::stack(4, 3),
        Structure::List => Config::list(4, 3),
    };
    Config { hidden_size: 5, stacks: 2, capacity: 5, no_op: true, recurrence: true, ..sizes }
}

const ALL: [Structure; 2] = [Structure::Stack, Structure::List];

fn build(config: &Config, dtype: DType) -> (StackRnn, ParamStore) {
    let store = ParamStore::new(3);
    (StackRnn::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

fn set(store: &ParamStore, name: &str, values: Vec<f64>) {
    let var = store.get(name).unwrap();
    let values = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
    var.set(&values.to_dtype(var.dtype()).unwrap()).unwrap();
}

#[test]
fn gradients_reach_every_parameter_and_agree_with_finite_differences() {
    for structure in ALL {
        let (model, store) = build(&small(structure), DType::F64);
        let inputs = waves(&[2, 7, 4], 1., 1., DType::F64);
        let factors = waves(&[2, 7, 3], 2., 1., DType::F64);
        let loss = |model: &StackRnn, inputs: &Tensor| {
            (model.forward(inputs, None, &Context::eval())? * &factors)?.sum_all()
        };
        assert_eq!(without_gradient(&store, &loss(&model, &inputs).unwrap()), Vec::<String>::new());
        let vars = store.vars();
        let mut named: Vec<(&str, Tensor)> =
            vars.iter().map(|(name, var)| (name.as_str(), var.as_tensor().detach())).collect();
        named.push(("inputs", inputs));
        check_gradients(&named, 1e-6, |x| {
            let tensors = vars.iter().map(|(name, _)| name.clone()).zip(x.iter().cloned());
            let vb = VarBuilder::from_tensors(tensors.collect(), DType::F64, &Device::Cpu);
            loss(&StackRnn::new(&small(structure), vb)?, &x[x.len() - 1])
        });
    }
}

#[test]
fn later_inputs_and_other_rows_change_nothing() {
    for structure in ALL {
        let (model, _) = build(&small(structure), DType::F64);
        let ctx = Context::eval();
        let inputs = waves(&[3, 6, 4], 1., 1., DType::F64);
        let whole = model.forward(&inputs, None, &ctx).unwrap();
        let first = model.forward(&inputs.narrow(1, 0, 4).unwrap(), None, &ctx).unwrap();
        assert_close("first steps", &first, &whole.narrow(1, 0, 4).unwrap(), 1e-12, 1e-12);
        let row = model.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
        assert_close("one row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
        let wanted = [false, true, false, false, true, false];
        let some = model.forward(&inputs, Some(&wanted), &ctx).unwrap();
        for (i, step) in [1, 4].into_iter().enumerate() {
            let expected = whole.narrow(1, step, 1).unwrap();
            assert_close("wanted", &some.narrow(1, i, 1).unwrap(), &expected, 1e-12, 1e-12);
        }
    }
}

/// What is watched goes step by step, all else through the scan.
#[test]
fn the_scan_gives_what_the_steps_give() {
    for structure in ALL {
        for (no_op, recurrence) in [(false, false), (false, true), (true, false), (true, true)] {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                let config = Config { no_op, recurrence, ..small(structure) };
                let (model, store) = build(&config, dtype);
                let inputs = waves(&[3, 9, 4], 1., 1., dtype);
                let wanted: Vec<bool> = (0..9).map(|step| step % 3 != 1).collect();
                let run = |ctx: &Context| {
                    let scores = model.forward(&inputs, Some(&wanted), ctx).unwrap();
                    let factors = waves(scores.dims(), 2., 1., dtype);
                    let loss = (&scores * factors).unwrap().sum_all().unwrap();
                    let grads = mnemic_layers::backward(&loss).unwrap();
                    let of = |var: &Var| grads.get(var).unwrap().clone();
                    let grads = store.vars().into_iter().map(|(_, var)| of(&var));
                    [vec![scores], grads.collect()].concat()
                };
                let (fast, slow) = (run(&Context::eval()), run(&Context::eval().watching()));
                for (i, (fast, slow)) in fast.iter().zip(&slow).enumerate() {
                    let what = format!("{config:?} {dtype:?} {i}");
                    assert_close(&what, fast, slow, tolerance, tolerance);
                }
            }
        }
    }
}

/// Where the stacks are not looked at, what is left is Elman's network.
#[test]
fn without_a_look_at_the_stacks_it_is_an_elman_network() {
    let (model, store) = build(&small(Structure::Stack), DType::F64);
    set(&store, "visible.weight", vec![0.; 20]);
    let inputs = waves(&[2, 6, 4], 1., 1., DType::F64);
    let got = model.forward(&inputs, None, &Context::eval()).unwrap();
    let weight = |name: &str| store.get(name).unwrap().as_tensor().clone();
    let mut hidden = Tensor::zeros((2, 5), DType::F64, &Device::Cpu).unwrap();
    for t in 0..6 {
        let x = inputs.narrow(1, t, 1).unwrap().squeeze(1).unwrap();
        let from = |x: &Tensor, name: &str| x.matmul(&weight(name).t().unwrap()).unwrap();
        let sum = (from(&x, "input.weight") + from(&hidden, "recurrent.weight")).unwrap();
        hidden = ((sum.neg().unwrap().exp().unwrap() + 1.).unwrap()).recip().unwrap();
        let expected = from(&hidden, "output.weight").unsqueeze(1).unwrap();
        assert_close("step", &got.narrow(1, t, 1).unwrap(), &expected, 1e-12, 1e-12);
    }
    // Its recurrence is optional, and then its parameter is not there.
    let (_, store) = build(&Config { recurrence: false, ..small(Structure::Stack) }, DType::F64);
    assert!(store.get("recurrent.weight").is_none() && store.vars().len() == 5);
}

#[test]
fn long_sequences_train_on_fused_operations_only() {
    for structure in ALL {
        let config = Config { recurrence: false, ..small(structure) };
        let (model, store) = build(&config, DType::F32);
        let inputs = waves(&[1, 1500, 4], 1., 1., DType::F32);
        let scores = model.forward(&inputs, None, &Context::train(0, 0)).unwrap();
        let scores = scores.reshape((1500, 3)).unwrap();
        let loss = cross_entropy(&scores, &[0; 1500], &CrossEntropy::default()).unwrap();
        assert!(mnemic_layers::only_fused(&loss));
        let vars: Vec<Var> = store.vars().into_iter().map(|(_, v)| v).collect();
        let grads = mnemic_layers::backward(&loss).unwrap();
        for var in vars {
            let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(grad.iter().all(|g| g.is_finite()));
        }
    }
}

/// One stack, PUSH on a, POP on b; whether two are left of what was pushed says whether another b follows. `strength` is how surely it pops.
fn counter(strength: f64) -> StackRnn {
    let config = Config { hidden_size: 3, stacks: 1, visible_cells: 2, ..Config::stack(2, 2) };
    let (model, store) = build(&config, DType::F64);
    // Hidden units: a is read; b is read; b is read and the second cell is no empty one.
    set(&store, "input.weight", vec![20., -20., -20., 20., -80., 0.]);
    set(&store, "visible.weight", vec![0., 0., 0., 0., 0., 40.]);
    set(&store, "memory.actions.weight", vec![40., 0., 0., 0., strength, 0.]);
    set(&store, "memory.push.weight", vec![40., 0., 0.]);
    set(&store, "output.weight", vec![0., 20., 0., 0., 0., 40.]);
    model
}

/// How many of the scored targets of a^n b^n a… are said by the counter.
fn right(model: &StackRnn, n: usize) -> (usize, usize) {
    let symbols: Vec<usize> = [vec![0; n], vec![1; n], vec![0; 2]].concat();
    let inputs: Vec<f64> =
        symbols.iter().flat_map(|&s| [f64::from(s == 0), f64::from(s == 1)]).collect();
    let inputs = Tensor::from_vec(inputs, (1, symbols.len(), 2), &Device::Cpu).unwrap();
    let scores = model.forward(&inputs, None, &Context::eval()).unwrap();
    let scores = scores.squeeze(0).unwrap().to_vec2::<f64>().unwrap();
    let scored = n..2 * n;
    let hit = |t: &usize| (scores[*t][1] > scores[*t][0]) == (symbols[t + 1] == 1);
    (scored.clone().filter(hit).count(), scored.len())
}

#[test]
fn a_hand_set_counter_counts_with_rounding_and_leaks_without() {
    for (strength, kept, lost) in [(3., 15, 20), (4., 30, 60)] {
        let soft = counter(strength);
        let hard = soft.clone().with_rounding(true);
        for n in [1, 2, kept, lost, 150] {
            assert_eq!(right(&hard, n), (n, n), "{n}");
        }
        // Each soft pop leaves something behind, until one too many is thought to be left.
        assert_eq!(right(&soft, kept), (kept, kept));
        assert_eq!(right(&soft, lost), (lost - 1, lost));
    }
}

#[test]
fn actions_and_tops_are_watched() {
    let (model, _) = build(&small(Structure::List), DType::F64);
    let ctx = Context::eval().watching();
    model.forward(&waves(&[2, 3, 4], 1., 1., DType::F64), None, &ctx).unwrap();
    let trace = ctx.take_trace();
    let names: Vec<(&str, usize)> = trace.iter().map(|w| (w.name.as_str(), w.step)).collect();
    assert_eq!(names[3..6], ["actions", "values", "tops"].map(|name| (name, 1)));
    assert_eq!((trace[3].value.dims(), trace[5].value.dims()), (&[2, 2, 4][..], &[2, 2][..]));
}

#[test]
fn sizes_that_make_no_sense_are_named() {
    let list = Config { capacity: 400, ..Config::list(2, 2) };
    assert!(list.validate().unwrap_err().to_string().contains("odd"));
    let none = Config { stacks: 0, ..Config::stack(2, 2) };
    assert!(none.validate().unwrap_err().to_string().contains("stacks must be positive"));
}
