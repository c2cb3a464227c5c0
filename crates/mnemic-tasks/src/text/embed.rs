//! Vectors of texts.

use std::path::Path;

use candle_core::{DType, Tensor};
use mnemic_models::transformer::sentence::SentenceEncoder;
use mnemic_models::word_vectors::model2vec::Model2Vec;
use serde_json::Value;

use super::open;
use crate::{Error, Place, Result};

/// A model that gives texts vectors: a sentence encoder, pooled and normalised as the files of its modules say, or Model2Vec.
///
/// ```no_run
/// use mnemic_tasks::Place;
/// use mnemic_tasks::text::{Embedder, cosines};
/// let model = Embedder::open("all-MiniLM-L6-v2", Place::Cpu)?;
/// let vectors = model.embed(&["A man is eating food.", "Someone eats."])?;
/// println!("{:.2}", cosines(&vectors, &vectors)?[0][1]);
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
#[derive(Debug)]
pub struct Embedder {
    kind: Kind,
    batch: usize,
}

#[derive(Debug)]
enum Kind {
    Sentence(Box<SentenceEncoder>),
    Static(Box<Model2Vec>),
}

impl Embedder {
    /// Texts that are embedded together, where nothing else is said.
    const BATCH: usize = 1024;

    /// Opens a folder or an id of the hub.
    ///
    /// # Errors
    /// When there is no such model, or it is neither a sentence encoder nor Model2Vec.
    pub fn open(model: impl AsRef<Path>, place: Place) -> Result<Self> {
        let dir = open::folder(model.as_ref())?;
        let device = place.open()?;
        let keys = open::read_keys(&dir)?;
        let kind = match keys.get("model_type").and_then(Value::as_str) {
            Some("model2vec") => Kind::Static(Box::new(Model2Vec::from_folder(&dir, &device)?)),
            _ => {
                let encoder = SentenceEncoder::from_folder(&dir, DType::F32, &device)?;
                Kind::Sentence(Box::new(encoder))
            }
        };
        Ok(Self { kind, batch: Self::BATCH })
    }

    /// The same with at most this many texts at once.
    #[must_use]
    pub fn with_batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// The vectors of texts, in their order, all of one width.
    ///
    /// # Errors
    /// When there is no text, or one cannot be encoded.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Err(Error::request("embeddings: expected at least one text"));
        }
        // The encoder orders each batch by tokens; so that batches differ as little as may be, they are made by bytes.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let mut done = Vec::with_capacity(texts.len());
        for part in order.chunks(self.batch) {
            let chosen: Vec<&str> = part.iter().map(|&i| texts[i]).collect();
            done.extend(part.iter().copied().zip(open::rows(&self.vectors(&chosen)?)?));
        }
        done.sort_by_key(|&(i, _)| i);
        Ok(done.into_iter().map(|(_, vector)| vector).collect())
    }

    fn vectors(&self, texts: &[&str]) -> Result<Tensor> {
        Ok(match &self.kind {
            Kind::Sentence(encoder) => encoder.embed(texts)?,
            Kind::Static(model) => model.embed(texts)?,
        })
    }
}
