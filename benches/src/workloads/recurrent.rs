//! Recurrent layers: the layers of `mnemic-layers` beside `nn.GRU` and `nn.LSTM`; the gradient of the outputs
//! is given.

use anyhow::{Context as _, Result};
use candle_core::{DType, Tensor};
use mnemic_kernels::recurrent::{Reset, Steps, Weights, plain};
use mnemic_layers::{Context, Gru, Lstm, ParamStore, RecurrentConfig};

use super::{Cost, F32, Path, Workload};
use crate::data;
use crate::step::{Objective, Training, Update};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gru,
    Lstm,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    kind: Kind,
    b: usize,
    t: usize,
    h: usize, // the width of the inputs, too
    layers: usize,
    directions: usize,
}

pub(super) fn workloads() -> Vec<Workload> {
    let one = |kind, b, t, h| Shape { kind, b, t, h, layers: 1, directions: 1 };
    let gru = |b, t, h| one(Kind::Gru, b, t, h);
    let lstm = |b, t, h| one(Kind::Lstm, b, t, h);
    [
        ("gru-b100-t64-h80", 2., gru(100, 64, 80)),
        ("gru-b32-t128-h256", 2., gru(32, 128, 256)),
        ("bigru-b100-t64-h80", 2., Shape { directions: 2, ..gru(100, 64, 80) }),
        ("lstm-b64-t100-h128", 1.3, lstm(64, 100, 128)),
        ("lstm2-b20-t35-h650", 1.3, Shape { layers: 2, ..lstm(20, 35, 650) }),
    ]
    .into_iter()
    .map(|(name, target, shape)| {
        Workload::new(name, target, cost(shape), move |path| step(shape, path)).recurrent()
    })
    .collect()
}

/// Forward, gradient of the weights and gradient of what was multiplied, which the first layer's inputs do not get.
fn cost(shape: Shape) -> Cost {
    let gates = if shape.kind == Kind::Gru { 3. } else { 4. };
    let rows = (shape.b * shape.t) as f64;
    let h = shape.h as f64;
    let directions = shape.directions as f64;
    let (mut flops, mut weights) = (0., 0.);
    for layer in 0..shape.layers {
        let (width, products) = if layer == 0 { (h, 2.) } else { (h * directions, 3.) };
        flops += directions * 2. * rows * gates * h * (width * products + h * 3.);
        weights += directions * gates * h * (width + h + 2.);
    }
    // Inputs and outputs forward and backward; parameters read, their gradients written, parameters written.
    let bytes = F32 * (2. * rows * h * (1. + directions * shape.layers as f64) + 3. * weights);
    Cost { flops, bytes }
}

enum Layer {
    Gru(Gru),
    Lstm(Lstm),
}

impl Layer {
    fn output(&self, xs: &Tensor) -> Result<Tensor> {
        let ctx = Context::train(0, 0);
        Ok(match self {
            Self::Gru(gru) => gru.forward(xs, None, None, &ctx)?.output,
            Self::Lstm(lstm) => lstm.forward(xs, None, None, &ctx)?.output,
        })
    }
}

fn step(shape: Shape, path: Path) -> Result<Training> {
    let Shape { b, t, h, layers, directions, .. } = shape;
    let store = ParamStore::new(0);
    let vb = store.builder(DType::F32, data::device());
    let bidirectional = directions == 2;
    let config =
        RecurrentConfig { num_layers: layers, bidirectional, ..RecurrentConfig::new(h, h) };
    let xs = data::tensor("x", (b, t, h), 1.)?;
    let layer = match shape.kind {
        Kind::Gru => Layer::Gru(Gru::new(config, vb)?),
        Kind::Lstm => Layer::Lstm(Lstm::new(config, vb)?),
    };
    data::fill(&store)?;
    let (forward, update): (Box<dyn Fn() -> Result<Tensor> + Send>, _) = match path {
        Path::Fused => (Box::new(move || layer.output(&xs)), Update::sgd(&store)?),
        Path::Plain => {
            let store = store.clone();
            let update = Update::candle_sgd(&store)?;
            (Box::new(move || plain_output(shape, &store, &xs)), update)
        }
    };
    let outputs = shape.directions * h;
    let objective = Objective::Given(data::tensor("gradient", (b, t, outputs), 1.)?);
    Ok(Training { vars: store.vars(), inputs: Vec::new(), objective, update, forward })
}

fn plain_output(shape: Shape, store: &ParamStore, xs: &Tensor) -> Result<Tensor> {
    let mut xs = xs.clone();
    for layer in 0..shape.layers {
        let mut outputs = Vec::with_capacity(shape.directions);
        for suffix in &["", "_reverse"][..shape.directions] {
            let weights = weights(store, &format!("l{layer}{suffix}"))?;
            let steps = Steps { lengths: None, reverse: !suffix.is_empty() };
            outputs.push(match shape.kind {
                Kind::Gru => plain::gru(&xs, None, None, &weights, Reset::After, steps)?.output,
                Kind::Lstm => plain::lstm(&xs, None, &weights, None, steps)?.output,
            });
        }
        xs = Tensor::cat(&outputs, 2)?;
    }
    Ok(xs)
}

fn weights(store: &ParamStore, suffix: &str) -> Result<Weights> {
    let get = |kind: &str| {
        let name = format!("{kind}_{suffix}");
        let var = store.get(&name).with_context(|| format!("no parameter {name}"))?;
        Ok::<_, anyhow::Error>(var.as_tensor().clone())
    };
    Ok(Weights {
        w_ih: get("weight_ih")?,
        w_hh: get("weight_hh")?,
        b_ih: Some(get("bias_ih")?),
        b_hh: Some(get("bias_hh")?),
    })
}
