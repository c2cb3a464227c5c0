//! Scaled dot-product attention beside `F.scaled_dot_product_attention`, and with Music Transformer's relative positions
//! beside the skewing procedure. No parameters: forward and backward to the inputs, with a given gradient of the output.

use anyhow::Result;
use mnemic_kernels::attention::{Attention, Mask, Relative, attention, plain};

use super::{Cost, F32, Path, Workload, input};
use crate::data;
use crate::run::COMPILE;
use crate::step::{Objective, Training, Update};

const HEADS: usize = 8;
const WIDTH: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Shape {
    b: usize,
    length: usize,
    causal: bool,
    relative: bool,
}

pub(super) fn workloads() -> Vec<Workload> {
    let plain = |length, causal| Shape { b: 2, length, causal, relative: false };
    let relative = |length| Shape { b: 1, length, causal: true, relative: true };
    [
        ("attention-causal-l512", 1.5, plain(512, true)),
        ("attention-causal-l2048", 1.5, plain(2048, true)),
        ("attention-full-l1024", 1.5, plain(1024, false)),
        ("relative-l1024", 4., relative(1024)),
        ("relative-l2048", 4., relative(2048)),
    ]
    .into_iter()
    .map(|(name, target, shape)| {
        let workload = Workload::new(name, target, cost(shape), move |path| step(shape, path));
        let modes = if shape.relative { &["eager", "sdpa", COMPILE][..] } else { workload.modes };
        Workload { modes, ..workload }
    })
    .collect()
}

/// Two products forward and four backward (three and six with positions) over all pairs that are seen.
fn cost(shape: Shape) -> Cost {
    let Shape { b, length, causal, relative } = shape;
    let rows = (b * HEADS * length) as f64;
    let keys = if causal { (length + 1) as f64 / 2. } else { length as f64 };
    let products = if relative { 9. } else { 6. };
    let table = if relative { 2. * (HEADS * length * WIDTH) as f64 } else { 0. };
    // q, k, v, the output's gradient read; output and three gradients written.
    let bytes = F32 * (8. * rows * WIDTH as f64 + table);
    Cost { flops: products * 2. * rows * keys * WIDTH as f64, bytes }
}

fn step(shape: Shape, path: Path) -> Result<Training> {
    let dims = [shape.b, HEADS, shape.length, WIDTH];
    let [q, k, v] = ["q", "k", "v"].map(|name| input(name, &dims, 1.));
    let (q, k, v) = (q?, k?, v?);
    let mut inputs = vec![q.clone(), k.clone(), v.clone()];
    let table = match shape.relative {
        true => Some(input("relative", &[HEADS, shape.length, WIDTH], 0.5)?),
        false => None,
    };
    inputs.extend(table.clone());
    let mask = if shape.causal { Mask::causal() } else { Mask::default() };
    let forward = move || {
        let relative = match &table {
            Some(table) => Relative::Music(table),
            None => Relative::None,
        };
        let options = Attention { mask, relative, ..Attention::default() };
        let attended = match path {
            Path::Fused => attention(&q, &k, &v, &options)?,
            Path::Plain => plain::attention(&q, &k, &v, &options)?,
        };
        Ok(attended.output)
    };
    let objective = Objective::Given(data::tensor("gradient", dims.as_slice(), 1.)?);
    let (vars, update) = (Vec::new(), Update::None);
    Ok(Training { vars, inputs, objective, update, forward: Box::new(forward) })
}
