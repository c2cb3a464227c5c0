//! Sentence embeddings: one text at a time and 32 together, from ids and from text.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use candle_core::{DType, Device, Tensor};
use mnemic_models::TextBatch;
use mnemic_models::transformer::sentence::SentenceEncoder;

use super::candle::CandleEncoder;

/// Texts that are embedded together.
const BATCH: usize = 32;
/// By how much two programs may differ.
const TOLERANCE: f32 = 1e-5;

/// Measures ours and plain candle-transformers and prints one line each.
pub(super) fn embed(model: &str, sentences: &[&str], threads: usize, seconds: f64) -> Result<()> {
    ensure!(sentences.len() >= BATCH, "expected at least {BATCH} sentences");
    let encoder = SentenceEncoder::from_folder(model, DType::F32, &Device::Cpu)?;
    let tokenizer = encoder.tokenizer().context("no tokenizer")?;
    let batch = |texts: &[&str]| tokenizer.encode_batch(texts, &Device::Cpu);
    let ones = sentences.iter().map(|s| batch(&[s])).collect::<Result<Vec<_>, _>>()?;
    let many: Vec<&[&str]> = sentences.chunks_exact(BATCH).collect();
    let padded = many.iter().map(|texts| batch(texts)).collect::<Result<Vec<_>, _>>()?;

    let check = encoder.encode(&padded[0])?;
    let ours = Times {
        embed_1: median(seconds, ones.len(), &|i| Ok(encoder.encode(&ones[i])?))?,
        embed_32: median(seconds, padded.len(), &|i| Ok(encoder.encode(&padded[i])?))?,
        text_1: median(seconds, ones.len(), &|i| Ok(encoder.embed(&[sentences[i]])?))?,
        text_32: median(seconds, many.len(), &|i| Ok(encoder.embed(many[i])?))?,
    };
    ours.print("mnemic", threads, sentences.len(), &check)?;

    let candle = CandleEncoder::new(model)?;
    let other = candle.encode(&padded[0])?;
    let gap = (&check - &other)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    ensure!(gap <= TOLERANCE, "candle-transformers' embeddings differ by {gap}");
    let text = |texts: &[&str]| candle.encode(&batch(texts)?);
    let theirs = Times {
        embed_1: median(seconds, ones.len(), &|i| candle.encode(&ones[i]))?,
        embed_32: median(seconds, padded.len(), &|i| candle.encode(&padded[i]))?,
        text_1: median(seconds, ones.len(), &|i| text(&[sentences[i]]))?,
        text_32: median(seconds, many.len(), &|i| text(many[i]))?,
    };
    theirs.print("candle-transformers 0.11.1", threads, sentences.len(), &other)
}

/// Medians in milliseconds.
struct Times {
    embed_1: f64,
    embed_32: f64,
    text_1: f64,
    text_32: f64,
}

impl Times {
    fn print(&self, program: &str, threads: usize, sentences: usize, check: &Tensor) -> Result<()> {
        let check = check.to_vec2::<f32>()?;
        let report = serde_json::json!({
            "part": "embed",
            "program": program,
            "threads": threads,
            "sentences": sentences,
            "embed_1_ms": self.embed_1,
            "embed_32_ms": self.embed_32,
            "text_1_ms": self.text_1,
            "text_32_ms": self.text_32,
            "check": [check[0][..4], check[BATCH - 1][..4]],
        });
        println!("{report}");
        Ok(())
    }
}

/// The median time in milliseconds of calls in turn, for so many seconds (and each at least once, up to as many as there are), after a tenth of
/// them to warm up.
fn median(seconds: f64, items: usize, call: &dyn Fn(usize) -> Result<Tensor>) -> Result<f64> {
    let mut times = Vec::new();
    for share in [0.1, 1.] {
        times.clear();
        let begun = Instant::now();
        let limit = Duration::from_secs_f64(seconds * share);
        while times.len() < 3 || begun.elapsed() < limit {
            let start = Instant::now();
            std::hint::black_box(call(times.len() % items)?);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2] * 1e3).round() / 1e3)
}

/// The mean over the tokens of each text that are none of padding, normalised.
pub(super) fn pool(states: &Tensor, batch: &TextBatch) -> Result<Tensor> {
    let mask: Vec<Vec<f32>> = batch
        .attention_mask()
        .iter()
        .map(|row| row.iter().map(|&m| f32::from(m)).collect())
        .collect();
    let mask = Tensor::new(mask, &Device::Cpu)?.unsqueeze(2)?;
    let mean = states.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
    let norm = mean.sqr()?.sum_keepdim(1)?.sqrt()?;
    Ok(mean.broadcast_div(&norm)?)
}
