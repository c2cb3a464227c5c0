//! What hidden tokens may be.

use std::path::Path;

use candle_core::IndexOp;
use mnemic_models::transformer::auto::{AutoMaskedLm, AutoMaskedLmConfig};
use mnemic_models::{Context, softmax};
use serde::Serialize;

use super::open::{self, BATCH, Opened};
use crate::{Error, Place, Result};

/// The ways in which masks are written; whichever a text has, the model gets its own.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// A token that a hidden one may be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filled {
    /// The token as the vocabulary spells it.
    pub token: String,
    /// Its text.
    pub text: String,
    /// Its id.
    pub id: u32,
    /// Its probability.
    pub probability: f32,
}

/// A masked language model.
///
/// ```no_run
/// use mnemic_tasks::Place;
/// use mnemic_tasks::text::FillMask;
/// let model = FillMask::open("bert-base-uncased", Place::Cpu)?;
/// for filled in &model.fill(&["Paris is the [MASK] of France."], 3)?[0][0] {
///     println!("{} {:.3}", filled.text, filled.probability);
/// }
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
#[derive(Debug)]
pub struct FillMask {
    opened: Opened<AutoMaskedLm>,
    mask: u32,
    spelling: String,
    batch: usize,
}

impl FillMask {
    /// Opens a folder or an id of the hub.
    ///
    /// # Errors
    /// When there is no such model, it has no head for hidden tokens, or its tokenizer no token that hides one.
    pub fn open(model: impl AsRef<Path>, place: Place) -> Result<Self> {
        let dir = open::folder(model.as_ref())?;
        let opened = Opened::<AutoMaskedLm>::new(&dir, place, AutoMaskedLmConfig::max_tokens)?;
        let mask = opened.tokenizer.special().mask;
        let found = mask.and_then(|id| Some((id, opened.tokenizer.token(id)?)));
        let Some((mask, spelling)) = found else {
            let dir = dir.display();
            return Err(Error::request(format!(
                "{dir}: expected a tokenizer with a mask token, such as [MASK] or <mask>"
            )));
        };
        Ok(Self { opened, mask, spelling, batch: BATCH })
    }

    /// The same with at most this many texts at once.
    #[must_use]
    pub fn with_batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// The token that hides one, as the model spells it.
    pub fn mask_token(&self) -> &str {
        &self.spelling
    }

    /// For each text and each `[MASK]` or `<mask>` in it the `top` most probable tokens, the first among equals first:
    /// `softmax` over the vocabulary.
    ///
    /// # Errors
    /// When a text has no mask, or none within the model's length.
    pub fn fill(&self, texts: &[&str], top: usize) -> Result<Vec<Vec<Vec<Filled>>>> {
        let own: Vec<String> = texts.iter().map(|text| self.masked(text)).collect::<Result<_>>()?;
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.opened.in_batches(&own, self.batch, |batch, rows| {
            let logits = self.opened.model.forward(batch, &Context::eval())?; // (b, t, v)
            let row = |(at, &(i, encoded)): (usize, &(usize, &mnemic_models::Encoded))| {
                let is_mask = |&(_, &id): &(usize, &u32)| id == self.mask;
                let places = encoded.ids.iter().enumerate().filter(is_mask);
                let filled = places
                    .map(|(place, _)| {
                        let scores = softmax(&logits.i((at, place..place + 1))?.contiguous()?)?;
                        self.best(&open::rows(&scores)?.concat(), top)
                    })
                    .collect::<Result<Vec<_>>>()?;
                match filled.is_empty() {
                    true => {
                        let most = encoded.ids.len();
                        let text = texts.get(i).unwrap_or(&"");
                        Err(Error::request(format!(
                            "`{text}`: expected a mask within {most} tokens, where the text is cut"
                        )))
                    }
                    false => Ok(filled),
                }
            };
            rows.iter().enumerate().map(row).collect()
        })
    }

    /// The text with the model's own masks.
    fn masked(&self, text: &str) -> Result<String> {
        let mask = &self.spelling;
        let text = MASKS.iter().fold(text.to_string(), |text, other| text.replace(other, mask));
        match text.contains(mask.as_str()) {
            true => Ok(text),
            false => Err(Error::request(format!("`{text}`: expected {mask} in the text"))),
        }
    }

    fn best(&self, probabilities: &[f32], top: usize) -> Result<Vec<Filled>> {
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let tokenizer = &self.opened.tokenizer;
        let filled = |&id: &usize| {
            let probability = probabilities[id];
            let id = id as u32;
            // Rows that fill up the table have no token.
            let token = tokenizer.token(id).unwrap_or_else(|| format!("<{id}>"));
            let text = tokenizer.decode(&[id], false)?;
            Ok(Filled { token, text: text.trim().to_string(), id, probability })
        };
        order.iter().take(top).map(filled).collect()
    }
}
