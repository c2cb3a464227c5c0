//! A training step of the Transformer (Vaswani et al. 2017): 3 + 3 layers, d 256, 8 heads, inner width 1024, one table of 8000
//! words for both embeddings and the output, label smoothing 0.1, no dropout, Adam.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use mnemic_kernels::cross_entropy::{CrossEntropy, linear_cross_entropy};
use mnemic_layers::{
    AttentionOptions, Context, Embedding, ParamStore, SinusoidLayout, TransformerConfig,
    TransformerDecoder, TransformerEncoder, init, sinusoidal_positions,
};

use super::{Cost, F32, Workload};
use crate::data;
use crate::step::{Training, Update};

const B: usize = 128;
const T: usize = 16;
const VOCABULARY: usize = 8000;
const D: usize = 256;
const HEADS: usize = 8;
const LAYERS: usize = 3;
const INNER: usize = 1024;
const SMOOTHING: f64 = 0.1;

pub(super) fn workloads() -> Vec<Workload> {
    vec![Workload::new("transformer-step", 1.3, cost(), |_| step()).without_candle()]
}

/// The products of the layers and of the output.
fn cost() -> Cost {
    let (rows, d, t) = ((B * T) as f64, D as f64, T as f64);
    let layers = LAYERS as f64;
    // Four projections and two products of scores; a decoder layer has two of them.
    let attention = |pairs: f64| rows * 4. * d * d + 2. * rows * pairs * d;
    let inner = rows * 2. * d * INNER as f64;
    let encoder = layers * (attention(t) + inner);
    let decoder = layers * (attention((t + 1.) / 2.) + attention(t) + inner);
    let output = rows * d * VOCABULARY as f64;
    let weights = layers * (3. * 4. * d * d + 2. * 2. * d * INNER as f64) + d * VOCABULARY as f64;
    let kept = 2. * layers * rows * (8. * d + INNER as f64);
    Cost { flops: 3. * 2. * (encoder + decoder + output), bytes: F32 * (2. * kept + 7. * weights) }
}

struct Transformer {
    embedding: Embedding,
    positions: Tensor, // (t, d)
    encoder: TransformerEncoder,
    decoder: TransformerDecoder,
}

impl Transformer {
    fn new(store: &ParamStore) -> Result<Self> {
        let vb = store.builder(DType::F32, &Device::Cpu);
        let config = TransformerConfig::new(D, HEADS, INNER);
        let layout = SinusoidLayout::Interleaved;
        Ok(Self {
            embedding: Embedding::new(VOCABULARY, D, init::normal(0.1), None, vb.pp("embedding"))?,
            positions: sinusoidal_positions(0..T, D, layout, DType::F32, &Device::Cpu)?,
            encoder: TransformerEncoder::new(&config, LAYERS, false, vb.pp("encoder"))?,
            decoder: TransformerDecoder::new(&config, LAYERS, false, vb.pp("decoder"))?,
        })
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let words = (self.embedding.forward(ids)? * (D as f64).sqrt())?;
        Ok(words.broadcast_add(&self.positions)?)
    }

    /// The decoder's output, `(b t, d)`.
    fn forward(&self, source: &Tensor, target: &Tensor) -> Result<Tensor> {
        let ctx = Context::train(0, 0);
        let (all, causal) = (AttentionOptions::default(), AttentionOptions::causal());
        let memory = self.encoder.forward(&self.embed(source)?, &all, &ctx)?;
        let ys = self.decoder.forward(&self.embed(target)?, &memory, &causal, &all, &ctx)?;
        Ok(ys.reshape((B * T, D))?)
    }
}

fn step() -> Result<Training> {
    let store = ParamStore::new(0);
    let model = Transformer::new(&store)?;
    data::fill(&store)?;
    let ids = |name: &str| data::ids(name, B * T, 1, VOCABULARY as u32);
    let source = Tensor::from_vec(ids("source"), (B, T), &Device::Cpu)?;
    let target = Tensor::from_vec(ids("target"), (B, T), &Device::Cpu)?;
    let labels: Vec<i64> = ids("labels").into_iter().map(i64::from).collect();
    let options = CrossEntropy { label_smoothing: SMOOTHING, ..CrossEntropy::default() };
    let update = Update::adam(&store)?;
    Ok(Training::of(&store, update, move || {
        let ys = model.forward(&source, &target)?;
        Ok(linear_cross_entropy(&ys, model.embedding.weight(), None, &labels, &options)?)
    }))
}
