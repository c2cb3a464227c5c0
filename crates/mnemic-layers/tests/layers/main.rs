//! Layers against PyTorch's numbers, the papers' numbers, finite differences and their own laws.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod attention;
mod embedding;
mod episodic;
mod gated;
mod initial;
mod losses;
mod masks;
mod recurrent;
mod torch;

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
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
