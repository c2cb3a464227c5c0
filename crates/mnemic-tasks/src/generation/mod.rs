//! Decoding: greedy search, sampling, beam search and beam sampling over any [`Autoregressive`] model.
//!
//! What is chosen is what `transformers` 5.23 chooses for each row alone: the same processors in the same order, the same beams,
//! the same lengths and stopping rules. Padding and the other rows of a batch change nothing.
//!
//! # Greedy search and sampling
//! Processors change the logits `z` of a step (repetition penalty, repeated n-grams, bad words, least lengths, forced and suppressed
//! tokens; in sampling then temperature, top-k, top-p, min-p). Greedy search takes the largest, the first among equals; sampling draws
//! from `softmax(z)`. A row's random numbers depend on the seed, the row's number and the step only, so that it is the same in any
//! batch; see [`Generator::first_row`].
//!
//! # Beam search
//! A row has `K = num_beams` running beams with the sum `s` of their tokens' log-probabilities, which processors have changed.
//! Of all their continuations the best `max(2, 1 + e) K` are candidates, for `e` end tokens. A candidate that ends (an end token, a stop
//! sequence, the greatest length) is finished if it is among the first `K`, with the score `s / n^length_penalty` for `n` new tokens, and
//! forgotten otherwise. The best `K` that do not end run on; the best `K` finished ones are kept. For when it ends, see
//! [`EarlyStopping`]. Beam sampling draws the candidates without replacement from `softmax(s)` instead.
//!
//! # Differences from `transformers`
//! - Lengths (`max_length`, `min_length`) and repeated n-grams count a row's own tokens, not its padding.
//! - A row has no hypotheses that were never found: there may be fewer than asked for, where `transformers` gives empty ones.
//! - Greedy search and sampling have scores, too: those that beam search would give their tokens.
//! - Sampling draws other numbers.

mod beam;
mod checks;
mod config;
mod pick;
mod processors;
mod prompts;
mod rows;

use std::fmt;
use std::ops::ControlFlow;

use candle_core::{DType, Tensor};
use mnemic_models::{Autoregressive, Context, TextBatch};

pub use config::{EarlyStopping, GenerationConfig};

use crate::error::{Error, Result};
use prompts::Prompt;

/// Why a hypothesis ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With an end token, which is its last one.
    EndToken,
    /// With a stop sequence, which is its end.
    StopSequence,
    /// At the greatest length.
    Length,
    /// Because who was shown its last token said so.
    Stopped,
}

/// One continuation of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The new tokens: without prompt, start token and padding, with the end token.
    pub ids: Vec<u32>,
    /// The sum of the tokens' log-probabilities over their number to the power `length_penalty`.
    pub score: f64,
    /// The log-probability of each new token, after processing.
    pub token_scores: Vec<f32>,
    /// Why it ends.
    pub finish: Finish,
    /// The scores of all tokens at each step, after processing: what each token was chosen from. Empty unless
    /// [kept](Generator::keep_scores).
    pub step_scores: Vec<Vec<f32>>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// For each row of the batch its hypotheses: those of beam search best first, samples in the order of their numbers. At most
    /// `num_return_sequences`, at least one.
    pub rows: Vec<Vec<Hypothesis>>,
}

impl Generated {
    /// The new tokens of all hypotheses, row after row.
    pub fn sequences(&self) -> Vec<Vec<u32>> {
        self.rows.iter().flatten().map(|hypothesis| hypothesis.ids.clone()).collect()
    }

    /// The scores of all hypotheses, row after row.
    pub fn scores(&self) -> Vec<f64> {
        self.rows.iter().flatten().map(|hypothesis| hypothesis.score).collect()
    }

    /// [`sequences`](Self::sequences), filled with `pad` to the length of the longest.
    pub fn padded(&self, pad: u32) -> Vec<Vec<u32>> {
        let mut sequences = self.sequences();
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        sequences.iter_mut().for_each(|ids| ids.resize(longest, pad));
        sequences
    }
}

/// A token that has just been chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewToken {
    /// The row of the batch.
    pub row: usize,
    /// The number of the row's sample, from 0.
    pub sample: usize,
    /// Its place among the new tokens, from 0.
    pub step: usize,
    /// The token.
    pub id: u32,
    /// Its log-probability, after processing.
    pub score: f32,
    /// Why it is the last one, if it is.
    pub finish: Option<Finish>,
}

/// Writes with a model.
///
/// ```
/// # use candle_core::{Device, Result as TensorResult, Tensor};
/// use std::ops::ControlFlow;
/// use mnemic_tasks::generation::{GenerationConfig, Generator};
/// use mnemic_tasks::models::{Autoregressive, Context, Padding, TextBatch};
///
/// /// Counts upwards: after `i` comes `i + 1`.
/// struct Counter;
/// # impl Autoregressive for Counter {
/// #     type State = ();
/// #     fn vocab_size(&self) -> usize { 10 }
/// #     fn is_encoder_decoder(&self) -> bool { false }
/// #     fn max_positions(&self) -> Option<usize> { None }
/// #     fn start(&self, _: &TextBatch, _: &Context) -> TensorResult<()> { Ok(()) }
/// #     fn step(&self, ids: &Tensor, _: &mut (), _: &Context) -> TensorResult<Tensor> {
/// #         let next = (ids.narrow(1, ids.dim(1)? - 1, 1)?.to_dtype(candle_core::DType::F32)? + 1.)?;
/// #         let places = Tensor::arange(0f32, 10., ids.device())?.unsqueeze(0)?;
/// #         places.broadcast_sub(&next)?.sqr()?.neg()
/// #     }
/// #     fn select(&self, _: &mut (), _: &[u32]) -> TensorResult<()> { Ok(()) }
/// # }
/// let prompts = TextBatch::from_rows(&[vec![1, 2], vec![6]], 0, Padding::Left, &Device::Cpu)?;
/// let config = GenerationConfig { eos_token_id: vec![9], max_new_tokens: Some(4), ..Default::default() };
/// let generator = Generator::new(&Counter, config)?.stop_sequences(&[vec![4, 5]])?;
/// let mut shown = Vec::new();
/// let written = generator.stream(&prompts, |token| {
///     shown.push((token.row, token.id));
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(written.sequences(), [vec![3, 4, 5], vec![7, 8, 9]]);
/// assert_eq!(shown, [(0, 3), (1, 7), (0, 4), (1, 8), (0, 5), (1, 9)]);
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
pub struct Generator<'m, M: ?Sized> {
    model: &'m M,
    config: GenerationConfig,
    stop_sequences: Vec<Vec<u32>>,
    keep_scores: bool,
    first_row: u64,
    ctx: Option<&'m Context>,
}

impl<M: ?Sized> fmt::Debug for Generator<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Generator");
        fields.field("config", &self.config).field("stop_sequences", &self.stop_sequences);
        fields.finish_non_exhaustive()
    }
}

impl<'m, M: Autoregressive + ?Sized> Generator<'m, M> {
    /// A writer with this model and configuration.
    ///
    /// # Errors
    /// When the configuration does not [validate](GenerationConfig::validate) or names tokens that the model does not have.
    pub fn new(model: &'m M, config: GenerationConfig) -> Result<Self> {
        config.validate()?;
        checks::ids(&config, model.vocab_size())?;
        let stop_sequences = Vec::new();
        Ok(Self { model, config, stop_sequences, keep_scores: false, first_row: 0, ctx: None })
    }

    /// The configuration.
    pub fn config(&self) -> &GenerationConfig {
        &self.config
    }

    /// Ends a row where its new tokens end in one of these sequences, too.
    ///
    /// # Errors
    /// When a sequence is empty.
    pub fn stop_sequences(self, stop_sequences: &[Vec<u32>]) -> Result<Self> {
        match stop_sequences.iter().any(Vec::is_empty) {
            true => Err(Error::generation("stop_sequences", "expected at least one id in each")),
            false => Ok(Self { stop_sequences: stop_sequences.to_vec(), ..self }),
        }
    }

    /// Keeps the scores of all tokens at each step of greedy search and sampling, in [`Hypothesis::step_scores`].
    pub fn keep_scores(self) -> Self {
        Self { keep_scores: true, ..self }
    }

    /// The number of a batch's first row: 0 if it is not set. Samples of row `i` of a batch are drawn from random stream
    /// `first_row + i` of the seed, so with the rows' places in the whole data set they do not depend on how it is cut into batches.
    pub fn first_row(self, first_row: u64) -> Self {
        Self { first_row, ..self }
    }

    /// What every forward pass is given, in order to watch attention; evaluation if it is not set.
    pub fn context(self, ctx: &'m Context) -> Self {
        Self { ctx: Some(ctx), ..self }
    }

    /// Goes on from every row of `batch`, or, in encoder-decoders, writes to each.
    ///
    /// # Errors
    /// When a row is empty, not padded on the left (decoders) or too long already; when the model fails; when its scores are NaN or
    /// +inf, or every token is banned: step and row are named.
    pub fn generate(&self, batch: &TextBatch) -> Result<Generated> {
        match self.config.num_beams {
            1 => rows::generate(self, batch, &mut |_| ControlFlow::Continue(())),
            _ => beam::generate(self, batch),
        }
    }

    /// [`generate`](Self::generate) by greedy search or sampling, with every token shown to `on_token` as soon as it is chosen: step by
    /// step, in each step row after row. Where it breaks, the token stays and the row (its sample) ends: so text is stopped at words.
    ///
    /// # Errors
    /// Those of `generate`, and when `num_beams` is above 1: beams change their past.
    pub fn stream(
        &self,
        batch: &TextBatch,
        mut on_token: impl FnMut(&NewToken) -> ControlFlow<()>,
    ) -> Result<Generated> {
        match self.config.num_beams {
            1 => rows::generate(self, batch, &mut on_token),
            beams => {
                let reason = format!("only 1 beam can be streamed, got {beams}");
                Err(Error::generation("num_beams", reason))
            }
        }
    }

    /// The prompts and the model's state before them.
    fn start(&self, batch: &TextBatch, ctx: &Context) -> Result<(Vec<Prompt>, M::State, Tensor)> {
        let prompts = checks::prompts(&self.config, self.model, batch)?;
        let state = self.model.start(batch, ctx)?;
        let ids = match self.model.is_encoder_decoder() {
            true => column(prompts.iter().flat_map(|p| p.ids.iter().copied()), batch)?,
            false => batch.input_ids().clone(),
        };
        Ok((prompts, state, ids))
    }

    /// The scores that a step of the model gives, `rows` of them.
    fn logits(
        &self,
        ids: &Tensor,
        state: &mut M::State,
        ctx: &Context,
        rows: usize,
    ) -> Result<Tensor> {
        let logits = self.model.step(ids, state, ctx)?;
        let expected = (rows, self.model.vocab_size());
        if logits.dims() != [expected.0, expected.1] {
            let reason = format!("expected scores {expected:?}, got {:?}", logits.dims());
            return Err(Error::generation("the model's step", reason));
        }
        Ok(logits.to_dtype(DType::F32)?)
    }
}

/// [`Generator::generate`] with nothing but a configuration.
///
/// # Errors
/// Those of [`Generator::new`] and [`Generator::generate`].
pub fn generate<M: Autoregressive + ?Sized>(
    model: &M,
    batch: &TextBatch,
    config: &GenerationConfig,
) -> Result<Generated> {
    Generator::new(model, config.clone())?.generate(batch)
}

/// One id a row, `(rows, 1)`, where the batch lies.
fn column(ids: impl Iterator<Item = u32>, batch: &TextBatch) -> Result<Tensor> {
    let ids: Vec<u32> = ids.collect();
    let rows = ids.len();
    Ok(Tensor::from_vec(ids, (rows, 1), batch.input_ids().device())?)
}

/// Makes row `i` of the state what row `sources[i]` is, where that changes anything.
fn select<M: Autoregressive + ?Sized>(
    model: &M,
    state: &mut M::State,
    sources: &[u32],
    rows: usize,
) -> Result<()> {
    let same = sources.len() == rows && sources.iter().zip(0..).all(|(&source, i)| source == i);
    match same {
        true => Ok(()),
        false => Ok(model.select(state, sources)?),
    }
}

/// Refuses scores that nothing can be chosen by; -inf only says that a token is impossible.
fn check_scores(scores: &[f32], step: usize, row: usize) -> Result<()> {
    // Without a branch, so that it takes no time.
    match scores.iter().fold(true, |good, &score| good & (score < f32::INFINITY)) {
        true => Ok(()),
        false => Err(stuck(step, row, "the model's scores are NaN or infinite")),
    }
}

/// The error of a step in which nothing can be chosen. Steps count from 1.
fn stuck(step: usize, row: usize, reason: &str) -> Error {
    Error::generation(format!("step {}, row {row}", step + 1), reason)
}
