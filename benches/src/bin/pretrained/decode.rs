//! Greedy decoding of one row by a model in the size of GPT-2 small, with random weights and its caches.

use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use mnemic_layers::{Context, ParamStore};
use mnemic_models::transformer::gpt2::{Config, Gpt2LmHead};
use mnemic_models::{Autoregressive, Padding, TextBatch};
use rayon::prelude::*;

/// Tokens of the prompt, whose pass is not timed.
pub(crate) const PROMPT: usize = 16;
/// Tokens that are written after the first one.
pub(crate) const NEW: usize = 63;

pub(crate) struct Decoder {
    model: Gpt2LmHead,
    batch: TextBatch,
}

impl Decoder {
    pub(crate) fn new() -> Result<Self> {
        let config = Config::small();
        let store = ParamStore::new(0);
        // Its parameters are drawn here; the model that writes records nothing for gradients.
        Gpt2LmHead::new(&config, store.builder(DType::F32, &Device::Cpu))?;
        let model = Gpt2LmHead::new(&config, store.frozen(DType::F32, &Device::Cpu))?;
        let prompt = (1..=PROMPT as u32).map(|i| i * 97 % config.vocab_size as u32).collect();
        let batch = TextBatch::from_rows(&[prompt], 0, Padding::Left, &Device::Cpu)?;
        Ok(Self { model, batch })
    }

    /// Seconds for [`NEW`] tokens.
    pub(crate) fn write(&self) -> Result<f64> {
        let ctx = Context::eval();
        let mut state = self.model.start(&self.batch, &ctx)?;
        let mut ids = best(&self.model.step(self.batch.input_ids(), &mut state, &ctx)?)?;
        let start = Instant::now();
        for _ in 0..NEW {
            ids = best(&self.model.step(&ids, &mut state, &ctx)?)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The token of the highest score, `(1, 1)`.
fn best(logits: &Tensor) -> Result<Tensor> {
    let scores = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &score) in scores.iter().enumerate() {
        if score > best.1 {
            best = (i, score);
        }
    }
    Ok(Tensor::new(&[[best.0 as u32]], &Device::Cpu)?)
}

/// How fast half a gigabyte is read, in GB/s, the best of five times: each token reads as much.
pub(crate) fn bandwidth(threads: usize) -> f64 {
    let data: Vec<u64> = (0..1u64 << 26).collect();
    let part = data.len().div_ceil(threads.max(1));
    let read = || {
        let start = Instant::now();
        let sum = data.par_chunks(part).map(xor).reduce(|| 0, |a, b| a ^ b);
        std::hint::black_box(sum);
        data.len() as f64 * 8e-9 / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| read()).fold(0., f64::max)
}

/// Many chains, so that no read waits for a sum.
fn xor(xs: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for xs in xs.as_chunks::<32>().0 {
        lanes.iter_mut().zip(xs).for_each(|(l, x)| *l ^= x);
    }
    lanes.into_iter().fold(0, |a, b| a ^ b)
}
