//! Stories with a question: what the models of this crate read and answer.
//!
//! Letters: b batch, n sentences, j words of a sentence, q words of a question, v vocabulary.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Tensor, TensorId, bail};
use mnemic_layers::Context;
use mnemic_layers::losses::{CrossEntropy, Reduction, cross_entropy};

/// The id of the null word, which fills the padding.
pub const NULL_WORD: u32 = 0;

/// A padded batch of stories, each with a question.
///
/// Sentences stand oldest first, left-aligned; words likewise. Word 0 is the null word: it stands
/// in the padding and nowhere else. [`StoryBatch::from_rows`] pads lists of ids.
///
/// ```
/// use candle_core::Device;
/// use mnemic_models::StoryBatch;
/// // "mary kitchen. john garden." "where mary?" and "john kitchen." "where john?"
/// let stories = [vec![vec![1, 3], vec![2, 4]], vec![vec![2, 3]]];
/// let questions = [vec![5, 1], vec![5, 2]];
/// let batch = StoryBatch::from_rows(&stories, &questions, vec![vec![0], vec![0]], &Device::Cpu)?;
/// assert_eq!(batch.story.dims(), [2, 2, 2]);
/// assert_eq!(batch.sentence_lengths, [2, 2, 2, 0]);
/// batch.validate()?;
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StoryBatch {
    /// Word ids, u32 `(b, n, j)` with `n` and `j` at least 1.
    pub story: Tensor,
    /// The number of sentences of each story; may be 0.
    pub story_lengths: Vec<usize>,
    /// The number of words of each sentence, row by row (`b n` numbers); 0 for a padding sentence.
    pub sentence_lengths: Vec<usize>,
    /// Word ids of the questions, u32 `(b, q)`.
    pub question: Tensor,
    /// The number of words of each question, at least 1.
    pub question_lengths: Vec<usize>,
    /// The sentences that support each answer, in the order of the reasoning, counted from 0. A
    /// list may be empty, and so may the whole where supports are not known.
    pub supports: Vec<Vec<usize>>,
    /// The ids as the host knows them; `HostIds::default()` where it does not.
    pub host: HostIds,
}

/// The word ids of a batch on the host: read from the device once, when they are first needed, so that a training step
/// does not wait for the device to send them back.
#[derive(Debug, Clone, Default)]
pub struct HostIds(Arc<OnceLock<Known>>);

#[derive(Debug)]
struct Known {
    /// The tensors that hold these ids: a batch whose tensors were exchanged is not this one.
    of: [TensorId; 2],
    words: Vec<u32>,
    asked: Vec<u32>,
}

impl HostIds {
    fn of([story, question]: [&Tensor; 2], words: Vec<u32>, asked: Vec<u32>) -> Self {
        let known = Known { of: [story.id(), question.id()], words, asked };
        Self(Arc::new(OnceLock::from(known)))
    }

    fn get(&self, [story, question]: [&Tensor; 2]) -> Result<(Vec<u32>, Vec<u32>)> {
        let of = [story.id(), question.id()];
        if let Some(known) = self.0.get().filter(|known| known.of == of) {
            return Ok((known.words.clone(), known.asked.clone()));
        }
        let words = story.flatten_all()?.to_vec1::<u32>()?;
        let asked = question.flatten_all()?.to_vec1::<u32>()?;
        // Only the first tensors are remembered.
        let _ = self.0.set(Known { of, words: words.clone(), asked: asked.clone() });
        Ok((words, asked))
    }
}

impl StoryBatch {
    /// Pads `stories` (rows of sentences of word ids) and `questions`. `supports` is as in the
    /// struct.
    ///
    /// # Errors
    /// When the numbers of rows differ or [`StoryBatch::validate`] finds something wrong.
    pub fn from_rows(
        stories: &[Vec<Vec<u32>>],
        questions: &[Vec<u32>],
        supports: Vec<Vec<usize>>,
        device: &Device,
    ) -> Result<Self> {
        let b = stories.len();
        if questions.len() != b {
            bail!("story batch: {b} stories but {} questions", questions.len());
        }
        let n = stories.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let j = stories.iter().flatten().map(Vec::len).max().unwrap_or(0).max(1);
        let q = questions.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut words = vec![NULL_WORD; b * n * j];
        let mut sentence_lengths = vec![0; b * n];
        for (row, story) in stories.iter().enumerate() {
            for (i, sentence) in story.iter().enumerate() {
                let slot = row * n + i;
                words[slot * j..][..sentence.len()].copy_from_slice(sentence);
                sentence_lengths[slot] = sentence.len();
            }
        }
        let mut asked = vec![NULL_WORD; b * q];
        for (row, question) in questions.iter().enumerate() {
            asked[row * q..][..question.len()].copy_from_slice(question);
        }
        let story = Tensor::from_slice(&words, (b, n, j), device)?;
        let question = Tensor::from_slice(&asked, (b, q), device)?;
        let batch = Self {
            host: HostIds::of([&story, &question], words, asked),
            story,
            story_lengths: stories.iter().map(Vec::len).collect(),
            sentence_lengths,
            question,
            question_lengths: questions.iter().map(Vec::len).collect(),
            supports,
        };
        batch.validate()?;
        Ok(batch)
    }

    /// The batch on a device.
    ///
    /// # Errors
    /// What [`StoryBatch::validate`] says of word ids; the device may fail.
    pub fn on(&self, device: &Device) -> Result<Self> {
        let (words, asked) = self.host.get([&self.story, &self.question])?;
        let (story, question) = (self.story.to_device(device)?, self.question.to_device(device)?);
        let host = HostIds::of([&story, &question], words, asked);
        Ok(Self { story, question, host, ..self.clone() })
    }

    /// The number of rows.
    pub fn batch_size(&self) -> usize {
        self.story_lengths.len()
    }

    /// Checks shapes, lengths, supports, and that null words fill the padding and nothing else.
    ///
    /// # Errors
    /// When something does not fit, naming the row and what was expected.
    pub fn validate(&self) -> Result<()> {
        self.host_words().map(|_| ())
    }

    /// The ids of story and question in the host's memory, after all checks.
    fn host_words(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let (b, n, j) = self.story.dims3()?;
        let (question_rows, q) = self.question.dims2()?;
        for (name, ids) in [("story", &self.story), ("question", &self.question)] {
            if ids.dtype() != DType::U32 {
                bail!("story batch: expected {name} ids of type u32, got {:?}", ids.dtype());
            }
        }
        if b == 0 || n == 0 || j == 0 {
            bail!("story batch: expected a story (b, n, j) without a 0, got ({b}, {n}, {j})");
        }
        for (name, found, expected) in [
            ("questions", question_rows, b),
            ("story_lengths", self.story_lengths.len(), b),
            ("question_lengths", self.question_lengths.len(), b),
            ("sentence_lengths", self.sentence_lengths.len(), b * n),
        ] {
            if found != expected {
                bail!("story batch: expected {expected} {name}, got {found}");
            }
        }
        self.check_lengths(n, j, q)?;
        self.check_supports()?;
        let (words, asked) = self.host.get([&self.story, &self.question])?;
        check_nulls("sentence", &words, j, &self.sentence_lengths, n)?;
        check_nulls("question", &asked, q, &self.question_lengths, 1)?;
        Ok((words, asked))
    }

    fn check_lengths(&self, n: usize, j: usize, q: usize) -> Result<()> {
        for (row, &length) in self.story_lengths.iter().enumerate() {
            if length > n {
                bail!("story batch: row {row}: {length} sentences, but n is {n}");
            }
            for (i, &words) in self.sentence_lengths[row * n..][..n].iter().enumerate() {
                if i < length && (words == 0 || words > j) {
                    bail!(
                        "story batch: row {row}, sentence {i}: expected 1 to {j} words, got {words}"
                    );
                }
                if i >= length && words != 0 {
                    bail!("story batch: row {row}: padding sentence {i} has {words} words");
                }
            }
        }
        for (row, &length) in self.question_lengths.iter().enumerate() {
            if length == 0 || length > q {
                bail!(
                    "story batch: row {row}: expected a question of 1 to {q} words, got {length}"
                );
            }
        }
        Ok(())
    }

    fn check_supports(&self) -> Result<()> {
        if !self.supports.is_empty() && self.supports.len() != self.batch_size() {
            let (b, found) = (self.batch_size(), self.supports.len());
            bail!("story batch: expected supports for {b} rows or none, got {found}");
        }
        for (row, (supports, &n)) in self.supports.iter().zip(&self.story_lengths).enumerate() {
            if let Some(bad) = supports.iter().find(|&&s| s >= n) {
                bail!("story batch: row {row}: support {bad} is not one of its {n} sentences");
            }
        }
        Ok(())
    }

    /// Checks the batch against a model's sizes and cuts it to what the model reads: the most
    /// recent `memory_size` sentences, `n` and `j` no longer than the longest.
    pub(crate) fn prepare(&self, limits: &Limits) -> Result<Prepared> {
        let (words, asked) = self.host_words()?;
        limits.check_ids("story", &words)?;
        limits.check_ids("question", &asked)?;
        let (b, n, j) = self.story.dims3()?;
        let q = self.question.dim(1)?;
        let size = limits.memory_size.max(1);
        let new_n = self.story_lengths.iter().max().map_or(1, |&l| l.clamp(1, size));
        let dropped: Vec<usize> =
            self.story_lengths.iter().map(|l| l.saturating_sub(size)).collect();
        let kept = |row: usize| {
            let first = row * n + dropped[row];
            first..first + self.story_lengths[row].min(size)
        };
        let new_j = (0..b).flat_map(kept).map(|s| self.sentence_lengths[s]).max();
        let new_j = new_j.unwrap_or(1).max(1);
        let new_q = self.question_lengths.iter().max().map_or(1, |&l| l);
        limits.check_len("sentence", new_j)?;
        limits.check_len("question", new_q)?;
        let (story, sentence_lengths, words) =
            if (new_n, new_j) == (n, j) && dropped.iter().all(|&d| d == 0) {
                (self.story.clone(), self.sentence_lengths.clone(), words)
            } else {
                let mut cut = vec![NULL_WORD; b * new_n * new_j];
                let mut lengths = vec![0; b * new_n];
                for row in 0..b {
                    for (i, slot) in kept(row).enumerate() {
                        let length = self.sentence_lengths[slot];
                        let at = row * new_n + i;
                        cut[at * new_j..][..length].copy_from_slice(&words[slot * j..][..length]);
                        lengths[at] = length;
                    }
                }
                let story = Tensor::from_slice(&cut, (b, new_n, new_j), self.story.device())?;
                (story, lengths, cut)
            };
        let question = self.question.narrow(1, 0, new_q)?.contiguous()?;
        let asked = asked.chunks(q).flat_map(|row| row[..new_q].to_vec()).collect();
        let supports = self.supports.iter().zip(&dropped);
        let batch = Self {
            story,
            story_lengths: self.story_lengths.iter().map(|&l| l.min(size)).collect(),
            sentence_lengths,
            question,
            question_lengths: self.question_lengths.clone(),
            supports: supports.map(|(s, &d)| known_chain(s, d)).collect(),
            host: HostIds::default(),
        };
        Ok(Prepared { batch, words, asked, dropped })
    }
}

/// The supports up to the first that has fallen out of the memory, counted from the first sentence
/// kept.
fn known_chain(supports: &[usize], dropped: usize) -> Vec<usize> {
    supports.iter().map_while(|s| s.checked_sub(dropped)).collect()
}

/// Null words must fill what lies past each length, and only that. `per_row` lengths belong to one
/// row.
fn check_nulls(
    what: &str,
    ids: &[u32],
    width: usize,
    lengths: &[usize],
    per_row: usize,
) -> Result<()> {
    for (k, (ids, &length)) in ids.chunks(width).zip(lengths).enumerate() {
        if let Some(at) = (0..width).find(|&i| (ids[i] == NULL_WORD) != (i >= length)) {
            let (row, i) = (k / per_row, k % per_row);
            let expected = if at < length { "a word" } else { "the null word 0" };
            bail!(
                "story batch: row {row}, {what} {i} of {length} words: expected {expected} at place \
                 {at}, got {}",
                ids[at]
            );
        }
    }
    Ok(())
}

/// What a model can take in.
pub(crate) struct Limits {
    /// The model, for messages.
    pub(crate) model: &'static str,
    pub(crate) vocab_size: usize,
    pub(crate) memory_size: usize,
    /// The most words of a sentence or question, where position weights are made for so many.
    pub(crate) sentence_len: Option<usize>,
}

impl Limits {
    fn check_ids(&self, what: &str, ids: &[u32]) -> Result<()> {
        let v = self.vocab_size;
        if let Some(bad) = ids.iter().find(|&&id| id as usize >= v) {
            bail!("{}: word {bad} of a {what} is not below the vocabulary size {v}", self.model);
        }
        Ok(())
    }

    fn check_len(&self, what: &str, found: usize) -> Result<()> {
        match self.sentence_len {
            Some(most) if found > most => {
                bail!("{}: a {what} has {found} words, but sentence_len is {most}", self.model)
            }
            _ => Ok(()),
        }
    }
}

/// A batch as a model reads it.
pub(crate) struct Prepared {
    pub(crate) batch: StoryBatch,
    /// The story's ids, `b n j`.
    pub(crate) words: Vec<u32>,
    /// The question's ids, `b q`.
    pub(crate) asked: Vec<u32>,
    /// How many of the oldest sentences of each row were left out.
    pub(crate) dropped: Vec<usize>,
}

impl Prepared {
    /// The words of the sentences of a row, oldest first.
    pub(crate) fn sentences(&self, row: usize) -> Result<impl Iterator<Item = &[u32]>> {
        let (_, n, j) = self.batch.story.dims3()?;
        let length = self.batch.story_lengths[row];
        Ok((row * n..row * n + length)
            .map(move |s| &self.words[s * j..][..self.batch.sentence_lengths[s]]))
    }

    /// All words of the story and then the question of each row, padded `(b, t)`, with their numbers.
    pub(crate) fn in_a_row(&self) -> Result<(Tensor, Vec<usize>)> {
        let mut rows = Vec::with_capacity(self.batch.batch_size());
        for row in 0..self.batch.batch_size() {
            let mut words = self.sentences(row)?.flatten().copied().collect::<Vec<u32>>();
            words.extend(self.question(row)?);
            rows.push(words);
        }
        pad_sequences(&rows, self.batch.story.device())
    }

    /// The words of a row's question.
    pub(crate) fn question(&self, row: usize) -> Result<&[u32]> {
        let q = self.batch.question.dim(1)?;
        Ok(&self.asked[row * q..][..self.batch.question_lengths[row]])
    }
}

/// Word sequences of different lengths as one padded tensor.
pub(crate) fn pad_sequences(rows: &[Vec<u32>], device: &Device) -> Result<(Tensor, Vec<usize>)> {
    let t = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let mut ids = vec![NULL_WORD; rows.len() * t];
    for (row, words) in rows.iter().enumerate() {
        ids[row * t..][..words.len()].copy_from_slice(words);
    }
    let lengths = rows.iter().map(Vec::len).collect();
    Ok((Tensor::from_vec(ids, (rows.len(), t), device)?, lengths))
}

/// What a model says about a batch.
#[derive(Debug, Clone)]
pub struct StoryOutput {
    /// Scores of the answers, `(b, v)`: larger is better. Logits of a softmax, but for MemNN, whose
    /// scores are trained by a margin.
    pub logits: Tensor,
    /// The scores of the sentences before softmax or sigmoid, one `(b, n)` a hop or pass, with `n`
    /// counted over the sentences that the model kept. Empty where there are none.
    pub gate_scores: Vec<Tensor>,
    /// For a model that retrieves sentences one by one: those of each row, by their index in the
    /// story. Else empty.
    pub retrieved: Vec<Vec<usize>>,
}

/// The phases of a training recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// What some papers train first: MemN2N's linear start, DMN's gates alone.
    Start,
    /// The loss of the paper.
    #[default]
    Main,
}

/// A model that answers questions about stories with one word of its vocabulary.
///
/// Attention is recorded by a watching [`Context`] as `attention`, one `(b, n)` a hop or pass, over
/// the most recent sentences that the model kept (all, unless a story is longer than its
/// `memory_size`).
pub trait StoryModel: Debug {
    /// Reads stories and questions.
    ///
    /// # Errors
    /// When the batch is not valid or does not fit the model.
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput>;

    /// The number of words, and so of answers.
    fn vocab_size(&self) -> usize;

    /// The paper's training loss, **summed** over the rows: a learning rate `η` for it is one of
    /// `b η` for the mean. By default the cross-entropy of the answers (word ids).
    ///
    /// # Errors
    /// When the batch does not fit, or the answers are not one id of the vocabulary a row.
    fn loss(&self, batch: &StoryBatch, answers: &[u32], ctx: &Context) -> Result<Tensor> {
        answer_loss(&self.forward(batch, ctx)?.logits, answers)
    }

    /// The loss in a phase of training; [`StoryModel::loss`] unless the model [has a start
    /// phase](StoryModel::has_start_phase).
    ///
    /// # Errors
    /// As [`StoryModel::loss`].
    fn loss_in(
        &self,
        _phase: Phase,
        batch: &StoryBatch,
        answers: &[u32],
        ctx: &Context,
    ) -> Result<Tensor> {
        self.loss(batch, answers, ctx)
    }

    /// Whether the paper trains first with another loss.
    fn has_start_phase(&self) -> bool {
        false
    }

    /// Whether training needs the supporting sentences.
    fn needs_supports(&self) -> bool {
        false
    }

    /// The parameters whose row 0, the null word, is to be set to 0 after each step.
    fn null_rows(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The cross-entropy of answers given as word ids, summed over the rows.
///
/// # Errors
/// When there is not one id of the vocabulary a row.
pub fn answer_loss(logits: &Tensor, answers: &[u32]) -> Result<Tensor> {
    let targets: Vec<i64> = answers.iter().map(|&a| i64::from(a)).collect();
    let options = CrossEntropy { reduction: Reduction::Sum, ..Default::default() };
    cross_entropy(logits, &targets, &options)
}

/// How many of the `gold` supports were retrieved at their place in the chain of reasoning, and how
/// many there are.
///
/// ```
/// let (right, all) = mnemic_models::support_accuracy(&[vec![2, 0]], &[vec![2, 1]]);
/// assert_eq!((right, all), (1, 2));
/// ```
pub fn support_accuracy(retrieved: &[Vec<usize>], gold: &[Vec<usize>]) -> (usize, usize) {
    let right = retrieved
        .iter()
        .zip(gold)
        .map(|(r, g)| r.iter().zip(g).filter(|(a, b)| a == b).count())
        .sum();
    (right, gold.iter().map(Vec::len).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> StoryBatch {
        let stories = [vec![vec![1, 2, 3], vec![4], vec![5, 6]], vec![vec![2, 2]], vec![]];
        let questions = [vec![7], vec![7, 1], vec![3]];
        StoryBatch::from_rows(&stories, &questions, vec![vec![2, 0], vec![0], vec![]], &Device::Cpu)
            .unwrap()
    }

    fn limits(memory_size: usize) -> Limits {
        Limits { model: "test", vocab_size: 8, memory_size, sentence_len: Some(3) }
    }

    #[test]
    fn keeps_the_most_recent_sentences() {
        let prepared = batch().prepare(&limits(2)).unwrap();
        assert_eq!(prepared.batch.story_lengths, [2, 1, 0]);
        assert_eq!(prepared.batch.story.dims(), [3, 2, 2]);
        assert_eq!(prepared.words, [4, 0, 5, 6, 2, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(prepared.dropped, [1, 0, 0]);
        assert_eq!(prepared.batch.supports, [vec![1], vec![0], vec![]]);
        prepared.batch.validate().unwrap();
        let sentences: Vec<_> = prepared.sentences(0).unwrap().collect();
        assert_eq!(sentences, [&[4][..], &[5, 6]]);
    }

    #[test]
    fn trims_padding_away() {
        let original = batch();
        let padded = crate::testing::pad(&original, 2, 3, 1);
        assert_eq!(padded.story.dims(), [3, 5, 6]);
        let a = original.prepare(&limits(9)).unwrap();
        let b = padded.prepare(&limits(9)).unwrap();
        assert_eq!((a.words, a.asked), (b.words, b.asked));
        assert_eq!(a.batch.sentence_lengths, b.batch.sentence_lengths);
    }

    #[test]
    fn wrong_batches_are_named() {
        let message = |change: &dyn Fn(&mut StoryBatch)| {
            let mut bad = batch();
            change(&mut bad);
            bad.validate().unwrap_err().to_string()
        };
        assert!(message(&|b| b.story_lengths[0] = 4).contains("row 0: 4 sentences"));
        assert!(
            message(&|b| b.story_lengths[1] = 2).contains("row 1, sentence 1: expected 1 to 3")
        );
        assert!(message(&|b| b.story_lengths[1] = 0).contains("padding sentence 0"));
        assert!(
            message(&|b| b.sentence_lengths[0] = 2).contains("the null word 0 at place 2, got 3")
        );
        assert!(message(&|b| b.sentence_lengths[1] = 3).contains("expected a word at place 1"));
        assert!(message(&|b| b.supports[1] = vec![1]).contains("row 1: support 1"));
        assert!(message(&|b| b.question_lengths[2] = 0).contains("row 2: expected a question"));
        assert!(message(&|b| b.question_lengths = vec![1]).contains("expected 3 question_lengths"));
        let floats = |b: &mut StoryBatch| b.story = b.story.to_dtype(DType::F32).unwrap();
        assert!(message(&floats).contains("u32"));
        let limits = Limits { vocab_size: 7, ..limits(9) };
        let error = batch().prepare(&limits).err().unwrap().to_string();
        assert!(error.contains("word 7 of a question"), "{error}");
        let limits = Limits { vocab_size: 8, sentence_len: Some(2), ..limits };
        let error = batch().prepare(&limits).err().unwrap().to_string();
        assert!(error.contains("a sentence has 3 words"), "{error}");
    }
}
