//! Classes of texts, and entities in them.

use std::path::Path;

use candle_core::{DType, IndexOp};
use mnemic_models::transformer::auto::{
    AutoSequenceClassifier, AutoSequenceClassifierConfig, AutoTokenClassifier,
    AutoTokenClassifierConfig,
};
use mnemic_models::{Context, Encoded, softmax};
use serde::Serialize;
use serde_json::Value;

use super::open::{self, BATCH, Opened};
use crate::fine_tune::{Entity, entities, first_pieces};
use crate::{Place, Result};

/// A label and how much the model holds it for right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// Its name, that of `config.json`.
    pub label: String,
    /// Its probability: `softmax` over the labels, `sigmoid` where a text may have several; a plain number where there is but one label.
    pub score: f32,
}

/// An entity in a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FoundEntity {
    /// Its kind: the label without `B-` or `I-`.
    pub label: String,
    /// The first character, counted from 0.
    pub start: usize,
    /// The character after the last one.
    pub end: usize,
    /// Its text.
    pub text: String,
    /// The mean probability of its words' labels.
    pub score: f32,
}

/// What a classifier says of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Classified {
    /// All labels, the most probable first.
    Labels(Vec<LabelScore>),
    /// The entities, in the order of the text.
    Entities(Vec<FoundEntity>),
}

/// A model that gives texts, or the words in them, classes.
///
/// A word has the label of its first piece (J. Devlin et al., NAACL 2019, arXiv 1810.04805, section 5.3); words are what blanks and outer punctuation set apart. Labels that
/// are not of the form `B-kind` and `I-kind` are entities of one word each, but for `O`.
///
/// ```no_run
/// use mnemic_tasks::Place;
/// use mnemic_tasks::text::{Classified, TextClassifier};
/// let model = TextClassifier::open("distilbert-base-uncased-finetuned-sst-2-english", Place::Cpu)?;
/// if let Classified::Labels(labels) = &model.classify(&["What a film!"])?[0] {
///     println!("{} {:.3}", labels[0].label, labels[0].score);
/// }
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
#[derive(Debug)]
pub struct TextClassifier {
    kind: Kind,
    batch: usize,
}

#[derive(Debug)]
enum Kind {
    Texts(Box<Opened<AutoSequenceClassifier>>),
    Tokens(Box<Opened<AutoTokenClassifier>>),
}

impl TextClassifier {
    /// Opens a folder or an id of the hub.
    ///
    /// # Errors
    /// When there is no such model, or it has no head that gives classes.
    pub fn open(model: impl AsRef<Path>, place: Place) -> Result<Self> {
        let dir = open::folder(model.as_ref())?;
        let keys = open::read_keys(&dir)?;
        let classes = keys.get("architectures").and_then(Value::as_array);
        let mut classes = classes.into_iter().flatten().filter_map(Value::as_str);
        let kind = match classes.any(|class| class.ends_with("ForTokenClassification")) {
            true => Kind::Tokens(Box::new(Opened::new(
                &dir,
                place,
                AutoTokenClassifierConfig::max_tokens,
            )?)),
            false => Kind::Texts(Box::new(Opened::new(
                &dir,
                place,
                AutoSequenceClassifierConfig::max_tokens,
            )?)),
        };
        Ok(Self { kind, batch: BATCH })
    }

    /// The same with at most this many texts at once.
    #[must_use]
    pub fn with_batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// Classes or entities of each text, in the order of the texts.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn classify(&self, texts: &[&str]) -> Result<Vec<Classified>> {
        match &self.kind {
            Kind::Texts(opened) => label_texts(opened, texts, self.batch),
            Kind::Tokens(opened) => find_entities(opened, texts, self.batch),
        }
    }
}

fn label_texts(
    opened: &Opened<AutoSequenceClassifier>,
    texts: &[&str],
    batch: usize,
) -> Result<Vec<Classified>> {
    let labels = opened.config.labels();
    opened.in_batches(texts, batch, |batch, _| {
        let logits = opened.model.forward(batch, &Context::eval())?.to_dtype(DType::F32)?; // (b, labels)
        let scores = match (opened.config.is_multi_label(), labels.len()) {
            (true, _) => open::rows(&logits)?
                .into_iter()
                .map(|row| row.into_iter().map(|z| 1. / (1. + (-z).exp())).collect())
                .collect(),
            (false, 1) => open::rows(&logits)?,
            (false, _) => open::rows(&softmax(&logits)?)?,
        };
        let classified = |row: Vec<f32>| {
            let named = labels.iter().cloned().zip(row);
            let mut all: Vec<_> = named.map(|(label, score)| LabelScore { label, score }).collect();
            all.sort_by(|a, b| b.score.total_cmp(&a.score));
            Classified::Labels(all)
        };
        Ok(scores.into_iter().map(classified).collect())
    })
}

fn find_entities(
    opened: &Opened<AutoTokenClassifier>,
    texts: &[&str],
    batch: usize,
) -> Result<Vec<Classified>> {
    let labels = opened.config.labels();
    opened.in_batches(texts, batch, |batch, rows| {
        let logits = opened.model.forward(batch, &Context::eval())?; // (b, t, labels)
        let scores = softmax(&logits.to_dtype(DType::F32)?)?;
        let row = |(at, &(i, encoded)): (usize, &(usize, &Encoded))| {
            let scores = open::rows(&scores.i(at)?)?;
            let text = texts.get(i).unwrap_or(&"");
            Ok(Classified::Entities(entities_of(text, encoded, &scores, &labels)))
        };
        rows.iter().enumerate().map(row).collect()
    })
}

/// The entities of a text by the probabilities of its tokens' labels.
pub(super) fn entities_of(
    text: &str,
    encoded: &Encoded,
    scores: &[Vec<f32>],
    labels: &[String],
) -> Vec<FoundEntity> {
    let places = words(text);
    let best = |row: &Vec<f32>| {
        let all = row.iter().zip(labels).map(|(&score, label)| (label.as_str(), score));
        // The first among equals.
        all.reduce(|best, next| if next.1 > best.1 { next } else { best })
    };
    let said: Vec<(&str, f32)> = first_pieces(encoded, &places)
        .into_iter()
        .map(|piece| piece.and_then(|p| best(scores.get(p)?)).unwrap_or(("O", 0.)))
        .collect();
    let tags: Vec<&str> = said.iter().map(|&(tag, _)| tag).collect();
    let spans = match labels.iter().any(|l| l.starts_with("B-") || l.starts_with("I-")) {
        true => entities(&tags),
        false => {
            let plain = tags.iter().enumerate().filter(|(_, tag)| **tag != "O");
            plain.map(|(i, kind)| Entity { start: i, end: i + 1, kind }).collect()
        }
    };
    let found = |e: &Entity<'_>| {
        let (start, end) = (places.get(e.start)?.0, places.get(e.end - 1)?.1);
        let characters = |end: usize| text.get(..end).map(|part| part.chars().count());
        let words = said.get(e.start..e.end)?;
        Some(FoundEntity {
            label: e.kind.to_string(),
            start: characters(start)?,
            end: characters(end)?,
            text: text.get(start..end)?.to_string(),
            score: words.iter().map(|w| w.1).sum::<f32>() / words.len() as f32,
        })
    };
    spans.iter().filter_map(found).collect()
}

/// From which byte to which byte each word goes: what blanks set apart, without punctuation around it, which makes words of its own.
fn words(text: &str) -> Vec<(usize, usize)> {
    let opens = |c: char| "([{\"'`\u{ab}\u{201c}\u{201e}\u{2018}\u{bf}\u{a1}".contains(c);
    let ends = |c: char| ".,;:!?)]}\"'\u{bb}\u{201d}\u{2019}\u{2026}".contains(c);
    let mut found = vec![];
    let mut at = 0;
    for part in text.split(char::is_whitespace) {
        let (start, end) = (at, at + part.len());
        at = end + text[end..].chars().next().map_or(0, char::len_utf8);
        let inner = part.trim_start_matches(opens);
        let first = end - inner.len();
        let last = first + inner.trim_end_matches(ends).len();
        let single = |from: usize, to: usize| {
            let each = text[from..to].char_indices();
            each.map(move |(i, c)| (from + i, from + i + c.len_utf8())).collect::<Vec<_>>()
        };
        found.extend(single(start, first));
        if last > first {
            found.push((first, last));
        }
        found.extend(single(last, end));
    }
    found
}
