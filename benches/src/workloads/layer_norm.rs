//! Layer normalisation with gain and offset: gradients of all three, gradient descent on the parameters; the gradient of the
//! output is given.

use anyhow::Result;
use candle_core::DType;
use mnemic_kernels::normalization::{layer_norm, plain};
use mnemic_layers::ParamStore;

use super::{Cost, F32, Path, Workload, input};
use crate::data;
use crate::step::{Objective, Training, Update};

const ROWS: usize = 2048;
const WIDTH: usize = 512;
const EPS: f64 = 1e-5;

pub(super) fn workloads() -> Vec<Workload> {
    // Forward: read, write. Backward: input and gradient read, gradient written.
    let cost = Cost { flops: 0., bytes: 5. * F32 * (ROWS * WIDTH) as f64 };
    vec![Workload::new("layer-norm-2048x512", 1.5, cost, step)]
}

fn step(path: Path) -> Result<Training> {
    let store = ParamStore::new(0);
    let vb = store.builder(DType::F32, data::device()).pp("norm");
    let (weight, bias) = (vb.get(WIDTH, "weight")?, vb.get(WIDTH, "bias")?);
    data::fill(&store)?;
    let xs = input("x", &[ROWS, WIDTH], 2.)?;
    let inputs = vec![xs.clone()];
    let update = match path {
        Path::Fused => Update::sgd(&store)?,
        Path::Plain => Update::candle_sgd(&store)?,
    };
    let forward = move || {
        let (weight, bias) = (Some(&weight), Some(&bias));
        Ok(match path {
            Path::Fused => layer_norm(&xs, weight, bias, EPS)?,
            Path::Plain => plain::layer_norm(&xs, weight, bias, EPS)?,
        })
    };
    let objective = Objective::Given(data::tensor("gradient", (ROWS, WIDTH), 1.)?);
    Ok(Training { vars: store.vars(), inputs, objective, update, forward: Box::new(forward) })
}
