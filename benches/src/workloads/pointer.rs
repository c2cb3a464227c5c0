//! A training step of a pointer network (Vinyals et al. 2015): LSTM encoder, LSTM decoder with teacher forcing, and
//! `v · tanh(W_1 e_j + W_2 d_i)` over the inputs at every step of the output.

use anyhow::Result;
use candle_core::{DType, Tensor};
use candle_nn::{Module as _, VarBuilder};
use mnemic_kernels::additive::{additive_scores, plain};
use mnemic_kernels::cross_entropy::{self, CrossEntropy, cross_entropy};
use mnemic_kernels::recurrent::{self, Steps, Weights};
use mnemic_layers::{ParamStore, init, linear};

use super::{Cost, F32, Path, Workload, targets};
use crate::data;
use crate::step::{Training, Update};

#[derive(Debug, Clone, Copy)]
struct Shape {
    b: usize,
    n: usize,
    h: usize,
}

/// Width of the inputs, points in the plane.
const POINT: usize = 2;

pub(super) fn workloads() -> Vec<Workload> {
    let shape = Shape { b: 128, n: 20, h: 256 };
    let new =
        Workload::new("pointer-b128-n20-h256", 2., cost(shape), move |path| step(shape, path));
    vec![new.recurrent()]
}

/// Two LSTMs, two projections, and the products with `v`.
fn cost(shape: Shape) -> Cost {
    let Shape { b, n, h } = shape;
    let (rows, h, point) = ((b * n) as f64, h as f64, POINT as f64);
    let lstm = 2. * rows * 4. * h * (2. * point + 3. * h);
    let projection = 3. * 2. * rows * h * h;
    let scores = 3. * 2. * rows * n as f64 * h;
    let weights = 2. * 4. * h * (point + h + 2.) + 2. * h * h + h;
    let bytes = F32 * (2. * rows * (2. * point + 4. * h) + 7. * weights);
    Cost { flops: 2. * lstm + 2. * projection + scores, bytes }
}

/// One layer of an LSTM, by the path that is measured.
struct Lstm {
    weights: Weights,
    path: Path,
}

impl Lstm {
    fn new(h: usize, path: Path, vb: &VarBuilder<'_>) -> Result<Self> {
        let weights = Weights {
            w_ih: vb.get((4 * h, POINT), "weight_ih_l0")?,
            w_hh: vb.get((4 * h, h), "weight_hh_l0")?,
            b_ih: Some(vb.get(4 * h, "bias_ih_l0")?),
            b_hh: Some(vb.get(4 * h, "bias_hh_l0")?),
        };
        Ok(Self { weights, path })
    }

    fn forward(
        &self,
        xs: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
    ) -> Result<recurrent::LstmScan> {
        Ok(match self.path {
            Path::Fused => recurrent::lstm(xs, state, &self.weights, Steps::default())?,
            Path::Plain => {
                recurrent::plain::lstm(xs, state, &self.weights, None, Steps::default())?
            }
        })
    }
}

fn step(shape: Shape, path: Path) -> Result<Training> {
    let Shape { b, n, h } = shape;
    let store = ParamStore::new(0);
    let vb = store.builder(DType::F32, data::device());
    let encoder = Lstm::new(h, path, &vb.pp("encoder"))?;
    let decoder = Lstm::new(h, path, &vb.pp("decoder"))?;
    let drawn = init::xavier_uniform(h, h);
    let w1 = linear(h, h, false, drawn, vb.pp("w1"))?;
    let w2 = linear(h, h, false, drawn, vb.pp("w2"))?;
    let v = vb.get(h, "v")?;
    data::fill(&store)?;
    let xs = data::tensor("x", (b, n, POINT), 1.)?;
    let targets = targets("targets", b * n, n);
    let previous = previous(&xs, &targets)?;
    let update = match path {
        Path::Fused => Update::adam(&store)?,
        Path::Plain => Update::candle_adam(&store)?,
    };
    Ok(Training::of(&store, update, move || {
        let encoded = encoder.forward(&xs, None)?;
        let decoded = decoder.forward(&previous, Some((&encoded.hidden, &encoded.cell)))?;
        let (keys, queries) = (w1.forward(&encoded.output)?, w2.forward(&decoded.output)?);
        let options = CrossEntropy::default();
        Ok(match path {
            Path::Fused => {
                let scores = additive_scores(&queries, &keys, &v)?; // (b, n, n)
                cross_entropy(&scores.reshape((b * n, n))?, &targets, &options)?
            }
            Path::Plain => {
                let scores = plain::additive_scores(&queries, &keys, &v)?.reshape((b * n, n))?;
                cross_entropy::plain::cross_entropy(&scores, &targets, &options)?
            }
        })
    }))
}

/// What the decoder reads: a zero, then the points that it should have chosen.
fn previous(xs: &Tensor, targets: &[i64]) -> Result<Tensor> {
    let (b, n, _) = xs.dims3()?;
    let points = xs.to_vec3::<f32>()?;
    let mut read = vec![0f32; b * n * POINT];
    for (row, points) in points.iter().enumerate() {
        for i in 1..n {
            let chosen = &points[targets[row * n + i - 1] as usize];
            read[(row * n + i) * POINT..][..POINT].copy_from_slice(chosen);
        }
    }
    Ok(Tensor::from_vec(read, (b, n, POINT), data::device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_decoder_reads_the_last_target() {
        let xs = Tensor::new(&[[[1f32, 2.], [3., 4.], [5., 6.]]], &Device::Cpu).unwrap();
        let read = previous(&xs, &[2, 0, 1]).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(read, [[[0., 0.], [5., 6.], [1., 2.]]]);
    }
}
