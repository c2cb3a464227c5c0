//! Embeddings of many sentences, from their text.

use std::cmp::Reverse;
use std::path::Path;

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use mnemic_data::{Part, sst};
use mnemic_models::transformer::sentence::SentenceEncoder;
use mnemic_models::{TextBatch, Tokenizer};

/// A program that makes embeddings.
pub(crate) trait Embedder {
    /// The embeddings of the texts, `(n, d)`, in their order, `batch` texts at a time.
    fn embed(&self, texts: &[&str], batch: usize) -> Result<Tensor>;
}

/// Ours, in batches as the other programs make them.
pub(crate) struct Ours(pub(crate) SentenceEncoder);

/// Ours, as its own `embed` puts texts together.
pub(crate) struct OwnBatches(pub(crate) SentenceEncoder);

/// The encoder below `folder`.
pub(crate) fn encoder(folder: &Path) -> Result<SentenceEncoder> {
    Ok(SentenceEncoder::from_folder(folder, DType::F32, &Device::Cpu)?)
}

/// Its tokenizer.
pub(crate) fn tokenizer(encoder: &SentenceEncoder) -> Result<&Tokenizer> {
    encoder.tokenizer().context("the model's folder has no tokenizer")
}

impl Embedder for Ours {
    fn embed(&self, texts: &[&str], batch: usize) -> Result<Tensor> {
        in_batches(tokenizer(&self.0)?, texts, batch, |batch| Ok(self.0.encode(batch)?))
    }
}

impl Embedder for OwnBatches {
    fn embed(&self, texts: &[&str], _: usize) -> Result<Tensor> {
        Ok(self.0.embed(texts)?)
    }
}

/// Longest texts first, `size` a batch, as sentence-transformers does it; one text at a time in its order.
pub(crate) fn in_batches(
    tokenizer: &Tokenizer,
    texts: &[&str],
    size: usize,
    encode: impl Fn(&TextBatch) -> Result<Tensor>,
) -> Result<Tensor> {
    if size == 1 {
        let one = |text: &&str| encode(&tokenizer.encode_batch(&[text], &Device::Cpu)?);
        return Ok(Tensor::cat(&texts.iter().map(one).collect::<Result<Vec<_>>>()?, 0)?);
    }
    let rows = tokenizer.encode_rows(texts)?;
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|&i| Reverse(rows[i as usize].ids.len()));
    let part = |part: &[u32]| {
        let rows: Vec<_> = part.iter().map(|&i| rows[i as usize].clone()).collect();
        encode(&tokenizer.batch(&rows, &Device::Cpu)?)
    };
    let parts = order.chunks(size).map(part).collect::<Result<Vec<_>>>()?;
    let mut back = vec![0u32; order.len()];
    order.iter().zip(0u32..).for_each(|(&i, at)| back[i as usize] = at);
    Ok(Tensor::cat(&parts, 0)?.index_select(&Tensor::new(back, &Device::Cpu)?, 0)?)
}

/// The first `count` sentences of SST, or those beside the peer, again and again, where there is no `MNEMIC_DATA`; with what they are.
pub(crate) fn sentences(count: usize) -> Result<(Vec<String>, &'static str)> {
    let Some(data) = std::env::var_os("MNEMIC_DATA").filter(|data| !data.is_empty()) else {
        let few = include_str!("../../../peers/sentences.txt").lines().map(str::to_owned);
        let few: Vec<String> = few.collect();
        return Ok((few.into_iter().cycle().take(count).collect(), "32 sentences, repeated"));
    };
    let folder = Path::new(&data).join("data/text-classification/sst");
    let all = sst::read(folder, false, Part::Train)?;
    Ok((all.into_iter().map(|one| one.text).take(count).collect(), "SST-2, training part"))
}

/// The largest difference of two matrices.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(f64::from((a - b)?.abs()?.max_all()?.to_scalar::<f32>()?))
}
