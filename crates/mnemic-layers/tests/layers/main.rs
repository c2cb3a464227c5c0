//! Layers against PyTorch's numbers, the papers' numbers, finite differences and their own laws.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod attention;
mod embedding;
mod episodic;
mod gated;
mod initial;
mod losses;
mod masks;
mod multi_head;
mod multi_head_masks;
mod norm;
mod pointer;
mod recurrent;
mod torch;
mod transformer;

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use mnemic_layers::ParamStore;

/// The message of a result that must be an error.
#[track_caller]
fn error<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(e) => e.to_string(),
    }
}

/// A tensor of f64.
fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Parameters under their names, taken as they are: gradients reach what they were made from.
fn given(parameters: &[(&str, &Tensor)]) -> VarBuilder<'static> {
    let map: HashMap<_, _> =
        parameters.iter().map(|(k, v)| (k.to_string(), (*v).clone())).collect();
    VarBuilder::from_tensors(map, DType::F64, &Device::Cpu)
}

/// A store with its builder, in f64.
fn store(seed: u64) -> (ParamStore, VarBuilder<'static>) {
    let store = ParamStore::new(seed);
    let vb = store.builder(DType::F64, &Device::Cpu);
    (store, vb)
}

/// `Σ y ∘ w` with fixed irregular weights, so that every element of `y` matters differently.
fn probe(ys: &Tensor) -> Result<Tensor> {
    ys.mul(&mnemic_testing::waves(ys.dims(), 0.3, 1., ys.dtype()))?.sum_all()
}

/// Makes the layer once to learn its parameters, then checks the gradients of `f(builder, inputs)` with
/// respect to all of them and to the inputs.
#[track_caller]
fn check_layer(
    inputs: &[(&str, Tensor)],
    tolerance: f64,
    f: impl Fn(VarBuilder<'static>, &[Tensor]) -> Result<Tensor>,
) {
    let (store, vb) = store(11);
    let values: Vec<Tensor> = inputs.iter().map(|(_, t)| t.clone()).collect();
    f(vb, &values).unwrap();
    let vars = store.vars();
    let mut all: Vec<(&str, Tensor)> = inputs.to_vec();
    all.extend(vars.iter().map(|(name, var)| (name.as_str(), var.as_tensor().copy().unwrap())));
    mnemic_testing::check_gradients(&all, tolerance, |tensors| {
        let (inputs, parameters) = tensors.split_at(inputs.len());
        let names = vars.iter().map(|(name, _)| name.as_str());
        let parameters: Vec<_> = names.zip(parameters).collect();
        f(given(&parameters), inputs)
    });
}

/// Runs `f` on the fixture `name` of PyTorch in f64 and f32, with everything that has a gradient there as a variable,
/// and compares its output, the loss `Σ output ∘ probe` and every gradient. `None` where there are no fixtures.
#[track_caller]
fn against_torch(
    test: &str,
    name: &str,
    f: impl Fn(&HashMap<String, Tensor>, VarBuilder<'static>) -> Result<Tensor>,
) -> Option<()> {
    for (ty, dtype, tolerance) in [("f64", DType::F64, 1e-10), ("f32", DType::F32, 1e-5)] {
        let name = format!("{name}.{ty}");
        let fixture = mnemic_testing::torch_fixture(test, &name)?;
        let differentiated = fixture.keys().filter_map(|k| k.strip_prefix("grad."));
        let vars: HashMap<&str, Var> =
            differentiated.map(|k| (k, Var::from_tensor(&fixture[k]).unwrap())).collect();
        let mut tensors = fixture.clone();
        let mut parameters = HashMap::new();
        for (key, var) in &vars {
            tensors.insert(key.to_string(), var.as_tensor().clone());
            if let Some(key) = key.strip_prefix("param.") {
                parameters.insert(key.to_string(), var.as_tensor().clone());
            }
        }
        let vb = VarBuilder::from_tensors(parameters, dtype, &Device::Cpu);
        let output = f(&tensors, vb).unwrap();
        let close = |what: &str, a: &Tensor, b: &Tensor, tolerance: f64| {
            mnemic_testing::assert_close(&format!("{name} {what}"), a, b, tolerance, tolerance);
        };
        close("output", &output, &fixture["output"], tolerance);
        let loss = output.mul(&fixture["probe.output"]).unwrap().sum_all().unwrap();
        close("loss", &loss, &fixture["loss"], 10. * tolerance); // a sum of about a hundred terms
        let grads = loss.backward().unwrap();
        for (key, var) in &vars {
            let key = format!("grad.{key}");
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name}: no {key}"));
            close(&key, grad, &fixture[&key], 10. * tolerance);
        }
    }
    Some(())
}

/// The names and shapes of all parameters.
fn shapes(store: &ParamStore) -> Vec<(String, Vec<usize>)> {
    store.vars().into_iter().map(|(name, var)| (name, var.dims().to_vec())).collect()
}
