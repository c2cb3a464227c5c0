//! A classifier and its texts as the training engine sees them, and its test.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use mnemic_data::batches;
use mnemic_models::{
    Context, CrossEntropy, IGNORE, ParamStore, Reduction, TextBatch, Tokenizer, cross_entropy,
    scale,
};
use mnemic_train::{LossOutput, Problem, Validation};

use super::data::{Labelled, TextData};
use super::entities::EntityCounts;
use super::model::Classifier;
use super::recipe::{Head, TextBatches};
use crate::Result;
use crate::error::engine;

/// Texts that are evaluated at once.
const EVAL_BATCH: usize = 64;

/// How well a classifier does on some texts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Texts.
    pub texts: usize,
    /// What was given a class: the texts, or their words. Words that were cut off are left out.
    pub classified: usize,
    /// Those with the right class.
    pub right: usize,
    /// The summed loss.
    pub loss: f64,
    /// Entities, where words have classes. Words that were cut off count as `O`.
    pub entities: Option<EntityCounts>,
}

impl Scores {
    /// The share of right classes.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.classified.max(1) as f64
    }

    /// The metrics by name: those of [`Head::metrics`].
    pub fn metrics(&self) -> BTreeMap<&'static str, f64> {
        match &self.entities {
            Some(counts) => counts.metrics(),
            None => [("accuracy", self.accuracy())].into(),
        }
    }

    fn validation(&self) -> Validation {
        let mean = Validation::new(self.loss / self.classified.max(1) as f64);
        let all = self.metrics().into_iter();
        all.fold(mean.with("error", 1. - self.accuracy()), |v, (name, value)| v.with(name, value))
    }
}

/// Texts as tensors, and what is to be learnt of each text or token.
#[derive(Debug)]
pub struct TextTargets {
    batch: TextBatch,
    /// Row by row, [`IGNORE`] at padding.
    targets: Vec<i64>,
    texts: usize,
}

impl TextTargets {
    fn new<'a>(
        texts: impl Iterator<Item = &'a Labelled>,
        head: Head,
        tokenizer: &Tokenizer,
        device: &Device,
    ) -> Result<Self> {
        let (rows, each): (Vec<_>, Vec<_>) =
            texts.map(|text| (text.encoded.clone(), text.targets(head))).unzip();
        let batch = tokenizer.batch(&rows, device)?;
        let width = each.iter().map(Vec::len).max().unwrap_or(0);
        let padded = each.iter().flat_map(|targets| {
            targets.iter().copied().chain(std::iter::repeat_n(IGNORE, width - targets.len()))
        });
        Ok(Self { batch, targets: padded.collect(), texts: rows.len() })
    }

    /// The number of terms of the loss.
    fn counted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }
}

/// The scores of all targets `(n, labels)`, and the cross-entropy summed over those that count.
fn loss<M: Classifier>(model: &M, texts: &TextTargets, ctx: &Context) -> Result<(Tensor, Tensor)> {
    let logits = model.logits(&texts.batch, ctx)?;
    let logits = if logits.rank() == 3 { logits.flatten(0, 1)? } else { logits }; // (n, labels)
    let options = CrossEntropy { reduction: Reduction::Sum, ..Default::default() };
    let loss = cross_entropy(&logits, &texts.targets, &options)?;
    Ok((logits, loss))
}

/// Tests a classifier on texts.
///
/// # Errors
/// When the texts do not fit the model.
pub fn evaluate<M: Classifier>(
    model: &M,
    texts: &[Labelled],
    labels: &[&str],
    head: Head,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<Scores> {
    let mut scores = Scores::default();
    let mut entities = EntityCounts::default();
    // By length, so that little is padding; the sums do not depend on the order.
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].encoded.ids.len());
    for chunk in order.chunks(EVAL_BATCH) {
        let batch = TextTargets::new(chunk.iter().map(|&i| &texts[i]), head, tokenizer, device)?;
        let (logits, loss) = loss(model, &batch, &Context::eval())?;
        let said = logits.argmax(1)?.to_vec1::<u32>()?;
        scores.texts += chunk.len();
        scores.classified += batch.counted();
        scores.right += right(&said, &batch.targets);
        scores.loss += loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let width = batch.targets.len() / chunk.len();
        let rows = chunk.iter().zip(said.chunks(width.max(1)));
        for (text, said) in rows.map(|(&i, said)| (&texts[i], said)) {
            if head == Head::TokenClassification {
                count_entities(&mut entities, text, said, labels);
            }
        }
    }
    scores.entities = (head == Head::TokenClassification).then_some(entities);
    Ok(scores)
}

fn right(said: &[u32], targets: &[i64]) -> usize {
    said.iter().zip(targets).filter(|&(&said, &target)| i64::from(said) == target).count()
}

/// Counts the entities of a sentence by what was said of each of its tokens.
fn count_entities(counts: &mut EntityCounts, text: &Labelled, said: &[u32], labels: &[&str]) {
    let name = |label: usize| labels.get(label).copied().unwrap_or("O");
    let gold: Vec<&str> = text.labels.iter().map(|&label| name(label)).collect();
    let of_word = |first: &Option<usize>| first.and_then(|i| said.get(i));
    let said: Vec<&str> = text
        .firsts
        .iter()
        .map(|first| of_word(first).map_or("O", |&label| name(label as usize)))
        .collect();
    counts.add(&gold, &said);
}

/// A classifier that learns the labels of texts.
pub struct ClassifierProblem<'a, M> {
    /// The model.
    pub model: &'a M,
    /// Its parameters.
    pub store: &'a ParamStore,
    /// Its texts.
    pub data: &'a TextData,
    /// What it gives a class to.
    pub head: Head,
    /// Its tokenizer, which pads.
    pub tokenizer: &'a Tokenizer,
    /// How batches are made.
    pub batches: &'a TextBatches,
    /// What batches are drawn with.
    pub seed: u64,
    /// Where the parameters are.
    pub device: Device,
    /// What must be the same for a run to go on.
    pub fingerprint: String,
}

impl<M: Classifier> Problem for ClassifierProblem<'_, M> {
    type Batch = TextTargets;

    fn store(&self) -> &ParamStore {
        self.store
    }

    fn train_batches(&self, epoch: usize) -> mnemic_train::Result<Vec<Vec<usize>>> {
        let lengths: Vec<usize> =
            self.data.train.iter().map(|text| text.encoded.ids.len()).collect();
        let TextBatches { size, sampling } = *self.batches;
        batches(&lengths, size, sampling, self.seed, epoch as u64).map_err(|e| engine(e.into()))
    }

    fn load_batch(&self, indices: &[usize]) -> mnemic_train::Result<TextTargets> {
        let texts = indices.iter().filter_map(|&i| self.data.train.get(i));
        TextTargets::new(texts, self.head, self.tokenizer, &self.device).map_err(engine)
    }

    fn loss(&self, batch: &TextTargets, ctx: &Context) -> mnemic_train::Result<LossOutput> {
        let (logits, loss) = loss(self.model, batch, ctx).map_err(engine)?;
        let said = logits.argmax(1)?.to_vec1::<u32>()?;
        let n = batch.counted();
        let wrong = (n - right(&said, &batch.targets)) as f64 / n.max(1) as f64;
        let mean = scale(&loss, 1. / n.max(1) as f64)?;
        // Metrics are means over texts; that of words is taken text by text.
        let output = LossOutput::new(mean, batch.texts).weighted(n as f64);
        Ok(output.with("error", wrong * batch.texts as f64))
    }

    fn validate(&self) -> mnemic_train::Result<Validation> {
        let TextData { labels, valid, .. } = self.data;
        evaluate(self.model, valid, labels, self.head, self.tokenizer, &self.device)
            .map(|scores| scores.validation())
            .map_err(engine)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn describe_batch(&self, indices: &[usize]) -> String {
        let first = indices.first().and_then(|&i| self.data.train.get(i));
        let tokens = first.map(|text| text.encoded.tokens.join(" ")).unwrap_or_default();
        format!("{} training texts, the first: {tokens}", indices.len())
    }
}
