//! Scaled dot-product attention beside `F.scaled_dot_product_attention`, and with Music Transformer's relative positions
//! beside the skewing procedure. No parameters: forward and backward to the inputs, with a given gradient of the output.

use anyhow::Result;
use candle_core::DType;
use mnemic_kernels::attention::{Attention, Mask, Relative, attention, plain};

use super::{Cost, Path, Workload, typed_input};
use crate::data;
use crate::run::COMPILE;
use crate::step::{Objective, Training, Update};

#[derive(Debug, Clone, Copy)]
struct Shape {
    b: usize,
    heads: usize,
    length: usize,
    width: usize,
    causal: bool,
    relative: bool,
    dtype: DType,
}

pub(super) fn workloads() -> Vec<Workload> {
    let plain = |length, causal| Shape {
        b: 2,
        heads: 8,
        length,
        width: 64,
        causal,
        relative: false,
        dtype: DType::F32,
    };
    let relative = |length| Shape { b: 1, relative: true, ..plain(length, true) };
    let half = |causal| Shape { dtype: DType::BF16, ..plain(2048, causal) };
    let long = |width, causal| Shape { b: 4, heads: 16, length: 4096, width, ..half(causal) };
    let both = [
        ("attention-causal-l512", 1.5, plain(512, true)),
        ("attention-causal-l2048", 1.5, plain(2048, true)),
        ("attention-full-l1024", 1.5, plain(1024, false)),
        ("relative-l1024", 4., relative(1024)),
        ("relative-l2048", 4., relative(2048)),
    ]
    .into_iter();
    let cuda = [
        ("attention-bf16-causal-b2-h8-l2048-d64", 0.6, half(true)),
        ("attention-bf16-full-b2-h8-l2048-d64", 0.6, half(false)),
        ("attention-bf16-causal-b4-h16-l4096-d64", 0.6, long(64, true)),
        ("attention-bf16-full-b4-h16-l4096-d64", 0.6, long(64, false)),
        ("attention-bf16-causal-b4-h16-l4096-d128", 0.6, long(128, true)),
        ("attention-bf16-full-b4-h16-l4096-d128", 0.6, long(128, false)),
    ];
    both.chain(cuda)
        .map(|(name, target, shape)| {
            let workload = Workload::new(name, target, cost(shape), move |path| step(shape, path));
            let modes =
                if shape.relative { &["eager", "sdpa", COMPILE][..] } else { workload.modes };
            let workload = Workload { modes, ..workload };
            match shape.dtype {
                DType::F32 => workload,
                dtype => workload.on_cuda(dtype).without_candle(),
            }
        })
        .collect()
}

/// Two products forward and four backward (three and six with positions) over all pairs that are seen.
fn cost(shape: Shape) -> Cost {
    let Shape { b, heads, length, width, causal, relative, dtype } = shape;
    let rows = (b * heads * length) as f64;
    let keys = if causal { (length + 1) as f64 / 2. } else { length as f64 };
    let products = if relative { 9. } else { 6. };
    let table = if relative { 2. * (heads * length * width) as f64 } else { 0. };
    // q, k, v, the output's gradient read; output and three gradients written.
    let bytes = dtype.size_in_bytes() as f64 * (8. * rows * width as f64 + table);
    Cost { flops: products * 2. * rows * keys * width as f64, bytes }
}

fn step(shape: Shape, path: Path) -> Result<Training> {
    let Shape { b, heads, length, width, dtype, .. } = shape;
    let dims = [b, heads, length, width];
    let [q, k, v] = ["q", "k", "v"].map(|name| typed_input(name, &dims, 1., dtype));
    let (q, k, v) = (q?, k?, v?);
    let mut inputs = vec![q.clone(), k.clone(), v.clone()];
    let table = match shape.relative {
        true => Some(typed_input("relative", &[heads, length, width], 0.5, dtype)?),
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
    let objective = Objective::Given(data::typed("gradient", dims.as_slice(), 1., dtype)?);
    let (vars, update) = (Vec::new(), Update::None);
    Ok(Training { vars, inputs, objective, update, forward: Box::new(forward) })
}
