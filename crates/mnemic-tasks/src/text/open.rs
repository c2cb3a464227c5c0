//! Models with their tokenizers, and batches of texts.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mnemic_models::{Encoded, PretrainedModel, TextBatch, Tokenizer, from_pretrained, locate};
use serde_json::{Map, Value};

use crate::{Error, Place, Result};

/// Texts that go through a model together, where nothing else is said.
pub(super) const BATCH: usize = 32;

/// A model for inference with its tokenizer.
#[derive(Debug)]
pub(super) struct Opened<M: PretrainedModel> {
    pub(super) model: M,
    pub(super) config: M::Config,
    pub(super) tokenizer: Tokenizer,
    pub(super) device: Device,
}

impl<M: PretrainedModel> Opened<M> {
    /// `most` gives the most tokens of a text, at which texts are cut.
    pub(super) fn new(dir: &Path, place: Place, most: fn(&M::Config) -> usize) -> Result<Self> {
        let device = place.open()?;
        let loaded = from_pretrained::<M>(dir, DType::F32, &device)?;
        let model = loaded.inference_model(DType::F32, &device)?;
        let tokenizer = Tokenizer::from_folder(dir)?;
        let most = most(&loaded.config);
        let limit = tokenizer.model_max_length().map_or(most, |limit| limit.min(most));
        let tokenizer = tokenizer.with_max_length(limit)?;
        Ok(Self { model, config: loaded.config, tokenizer, device })
    }

    /// What `f` gives for each text, in the order of the texts; `f` gets batches of texts of like length and gives one result a text.
    pub(super) fn in_batches<T>(
        &self,
        texts: &[&str],
        batch: usize,
        f: impl Fn(&TextBatch, &[(usize, &Encoded)]) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let rows = self.tokenizer.encode_rows(texts)?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| rows[i].ids.len());
        let mut done: Vec<(usize, T)> = Vec::with_capacity(rows.len());
        for part in order.chunks(batch.max(1)) {
            let chosen: Vec<Encoded> = part.iter().map(|&i| rows[i].clone()).collect();
            let texts = self.tokenizer.batch(&chosen, &self.device)?;
            let named: Vec<_> = part.iter().map(|&i| (i, &rows[i])).collect();
            done.extend(part.iter().copied().zip(f(&texts, &named)?));
        }
        done.sort_by_key(|&(i, _)| i);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    }
}

/// The folder of a model: that of a path or id, or of the model in a run's folder.
pub(super) fn folder(model: &Path) -> Result<PathBuf> {
    let dir = locate(model)?;
    let inner = dir.join("model");
    let of_run = !dir.join("config.json").is_file() && inner.join("config.json").is_file();
    Ok(if of_run { inner } else { dir })
}

/// The keys of a folder's `config.json`.
pub(super) fn read_keys(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map_err(Error::json(&path))
}

/// The rows of a tensor `(n, m)` as plain numbers.
pub(super) fn rows(xs: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(xs.to_dtype(DType::F32)?.to_vec2()?)
}
