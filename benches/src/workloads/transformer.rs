//! A training step of the Transformer (Vaswani et al. 2017): one table of words for both embeddings and the output, label smoothing
//! 0.1, no dropout, Adam.

use anyhow::Result;
use candle_core::{DType, Tensor};
use mnemic_kernels::arithmetic::{add, scale};
use mnemic_kernels::cross_entropy::{CrossEntropy, linear_cross_entropy};
use mnemic_layers::{
    AttentionOptions, Context, Embedding, ParamStore, SinusoidLayout, TransformerConfig,
    TransformerDecoder, TransformerEncoder, init, sinusoidal_positions,
};

use super::{Cost, F32, Workload};
use crate::data;
use crate::step::{Training, Update};

#[derive(Debug, Clone, Copy)]
struct Shape {
    b: usize,
    t: usize,
    vocabulary: usize,
    d: usize,
    heads: usize,
    layers: usize,
    inner: usize,
}

const SMALL: Shape =
    Shape { b: 128, t: 16, vocabulary: 8000, d: 256, heads: 8, layers: 3, inner: 1024 };
const LARGE: Shape =
    Shape { b: 64, t: 64, vocabulary: 32_000, d: 512, heads: 8, layers: 6, inner: 2048 };
const SMOOTHING: f64 = 0.1;

pub(super) fn workloads() -> Vec<Workload> {
    let new =
        |name, shape| Workload::new(name, 1.3, cost(shape), move |_| step(shape)).without_candle();
    vec![
        new("transformer-step", SMALL),
        new("transformer-step-d512-b64-t64", LARGE).on_cuda(DType::F32),
    ]
}

/// The products of the layers and of the output.
fn cost(shape: Shape) -> Cost {
    let rows = (shape.b * shape.t) as f64;
    let [d, t, layers, inner_width, words] =
        [shape.d, shape.t, shape.layers, shape.inner, shape.vocabulary].map(|n| n as f64);
    // Four projections and two products of scores; a decoder layer has two of them.
    let attention = |pairs: f64| rows * 4. * d * d + 2. * rows * pairs * d;
    let inner = rows * 2. * d * inner_width;
    let encoder = layers * (attention(t) + inner);
    let decoder = layers * (attention((t + 1.) / 2.) + attention(t) + inner);
    let output = rows * d * words;
    let weights = layers * (3. * 4. * d * d + 2. * 2. * d * inner_width) + d * words;
    let kept = 2. * layers * rows * (8. * d + inner_width);
    Cost { flops: 3. * 2. * (encoder + decoder + output), bytes: F32 * (2. * kept + 7. * weights) }
}

struct Transformer {
    embedding: Embedding,
    positions: Tensor, // (t, d)
    encoder: TransformerEncoder,
    decoder: TransformerDecoder,
    shape: Shape,
}

impl Transformer {
    fn new(store: &ParamStore, shape: Shape) -> Result<Self> {
        let Shape { t, vocabulary, d, heads, layers, inner, .. } = shape;
        let vb = store.builder(DType::F32, data::device());
        let config = TransformerConfig::new(d, heads, inner);
        let layout = SinusoidLayout::Interleaved;
        Ok(Self {
            embedding: Embedding::new(vocabulary, d, init::normal(0.1), None, vb.pp("embedding"))?,
            positions: sinusoidal_positions(0..t, d, layout, DType::F32, data::device())?,
            encoder: TransformerEncoder::new(&config, layers, false, vb.pp("encoder"))?,
            decoder: TransformerDecoder::new(&config, layers, false, vb.pp("decoder"))?,
            shape,
        })
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let words = scale(&self.embedding.forward(ids)?, (self.shape.d as f64).sqrt())?;
        Ok(add(&words, &self.positions)?)
    }

    /// The decoder's output, `(b t, d)`.
    fn forward(&self, source: &Tensor, target: &Tensor) -> Result<Tensor> {
        let ctx = Context::train(0, 0);
        let (all, causal) = (AttentionOptions::default(), AttentionOptions::causal());
        let memory = self.encoder.forward(&self.embed(source)?, &all, &ctx)?;
        let ys = self.decoder.forward(&self.embed(target)?, &memory, &causal, &all, &ctx)?;
        Ok(ys.reshape((self.shape.b * self.shape.t, self.shape.d))?)
    }
}

fn step(shape: Shape) -> Result<Training> {
    let Shape { b, t, vocabulary, .. } = shape;
    let store = ParamStore::new(0);
    let model = Transformer::new(&store, shape)?;
    data::fill(&store)?;
    let ids = |name: &str| data::ids(name, b * t, 1, vocabulary as u32);
    let source = Tensor::from_vec(ids("source"), (b, t), data::device())?;
    let target = Tensor::from_vec(ids("target"), (b, t), data::device())?;
    let labels: Vec<i64> = ids("labels").into_iter().map(i64::from).collect();
    let options = CrossEntropy { label_smoothing: SMOOTHING, ..CrossEntropy::default() };
    let update = Update::adam(&store)?;
    Ok(Training::of(&store, update, move || {
        let ys = model.forward(&source, &target)?;
        Ok(linear_cross_entropy(&ys, model.embedding.weight(), None, &labels, &options)?)
    }))
}
