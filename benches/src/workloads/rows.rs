//! Operations on rows far beyond the caches of a GPU: forward and backward to the input, with a given gradient of the output; the
//! cross-entropy with its own loss.

use anyhow::Result;
use candle_core::{DType, Tensor};
use mnemic_kernels::activation::gelu;
use mnemic_kernels::cross_entropy::{CrossEntropy, cross_entropy};
use mnemic_kernels::dropout::dropout;
use mnemic_kernels::normalization::layer_norm;
use mnemic_kernels::rng::Philox;
use mnemic_kernels::softmax::softmax;

use super::{Cost, Workload, targets, typed_input};
use crate::data;
use crate::step::{Objective, Training, Update};

const ROWS: usize = 16_384;
const WIDTH: usize = 4096;
const EPS: f64 = 1e-5;
const DROP: f64 = 0.1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Softmax,
    LayerNorm,
    Gelu,
    Dropout,
    CrossEntropy,
}

pub(super) fn workloads() -> Vec<Workload> {
    use Kind::{CrossEntropy, Dropout, Gelu, LayerNorm, Softmax};
    [
        ("softmax-f32-16384x4096", Softmax, DType::F32),
        ("softmax-bf16-16384x4096", Softmax, DType::BF16),
        ("layer-norm-f32-16384x4096", LayerNorm, DType::F32),
        ("layer-norm-bf16-16384x4096", LayerNorm, DType::BF16),
        ("gelu-f32-16384x4096", Gelu, DType::F32),
        ("gelu-bf16-16384x4096", Gelu, DType::BF16),
        ("dropout-f32-16384x4096", Dropout, DType::F32),
        ("dropout-bf16-16384x4096", Dropout, DType::BF16),
        ("cross-entropy-f32-16384x4096", CrossEntropy, DType::F32),
        ("cross-entropy-bf16-16384x4096", CrossEntropy, DType::BF16),
    ]
    .into_iter()
    .map(|(name, kind, dtype)| {
        let new = Workload::new(name, 1., cost(kind, dtype), move |_| step(kind, dtype));
        new.without_candle().on_cuda(dtype)
    })
    .collect()
}

/// Input and output forward; backward the gradients, and what of the first two it needs: nothing for dropout.
fn cost(kind: Kind, dtype: DType) -> Cost {
    let passes = match kind {
        Kind::Softmax | Kind::LayerNorm | Kind::Gelu => 5.,
        Kind::Dropout => 4.,
        // No output, and no gradient of it.
        Kind::CrossEntropy => 3.,
    };
    Cost { flops: 0., bytes: passes * dtype.size_in_bytes() as f64 * (ROWS * WIDTH) as f64 }
}

fn step(kind: Kind, dtype: DType) -> Result<Training> {
    let xs = typed_input("x", &[ROWS, WIDTH], 2., dtype)?;
    let inputs = vec![xs.clone()];
    let objective = match kind {
        Kind::CrossEntropy => Objective::Loss,
        // The masks of the two sides differ: both must compute what hardly depends on the mask.
        Kind::Dropout => Objective::Given(xs.as_detached_tensor()),
        _ => Objective::Given(data::typed("gradient", (ROWS, WIDTH), 1., dtype)?),
    };
    let ones = Tensor::ones(WIDTH, dtype, data::device())?;
    let zeros = ones.zeros_like()?;
    let targets = targets("targets", ROWS, WIDTH);
    let forward = move || {
        Ok(match kind {
            Kind::Softmax => softmax(&xs)?,
            Kind::LayerNorm => layer_norm(&xs, Some(&ones), Some(&zeros), EPS)?,
            Kind::Gelu => gelu(&xs)?,
            Kind::Dropout => dropout(&xs, DROP, Philox::new(1, 0))?,
            Kind::CrossEntropy => cross_entropy(&xs, &targets, &CrossEntropy::default())?,
        })
    };
    let (vars, update) = (Vec::new(), Update::None);
    Ok(Training { vars, inputs, objective, update, forward: Box::new(forward) })
}
