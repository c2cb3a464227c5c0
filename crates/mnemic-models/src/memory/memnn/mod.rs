//! Memory Networks (MemNN), strongly supervised: J. Weston, S. Chopra, A. Bordes, arXiv 1410.3916
//! (2014), with the extensions of J. Weston et al., arXiv 1502.05698 (2015).
//!
//! Supports are retrieved one after another by a hard decision, then an answer word is ranked.
//! Training is told the supports, so nothing flows through the decisions. With bags of words `Φ` in
//! three blocks (question, supports retrieved so far, candidate) and `U_O`, `U_R (n, 3|W|)`:
//!
//! - match `a(y) = Φx(x)ᵀ Uᵀ U Φy(y)`, computed as the inner product of `U Φx(x)` and `U Φy(y)`;
//!   NL: of `tanh(W tanh(U Φ))`;
//! - comparison of two candidates `s(x, y, y') = a(y) - a(y') + τ [y was written after y']`,
//!   `τ = Φx(x)ᵀ Uᵀ u_newer`;
//! - after the first hop, `a(y)` has `ω [y was written after the support retrieved last]` added, `ω = Φx(x)ᵀ Uᵀ u_after`;
//! - a hop: a tournament over the memories in the order in which they were written, the challenger
//!   winning where `s(x, m_i, m_t) > 0`; the winner's words join the second block of `x`;
//! - AM: the winner meets a learned stop memory, which has no age; hops end where that wins;
//! - response: the word that maximises `s_R([x, m_o1, …], w)`.
//!
//! Loss, one sampled negative a term: for each hop, on the **gold** chain,
//! `[γ - s(x, gold, f)]₊ + [γ + s(x, f, gold)]₊` (one hinge where there are no time features), and
//! `[γ - s_R(r) + s_R(w)]₊`. In evaluation the negatives are not sampled but averaged over.
//!
//! Letters: b batch, n sentences, d embedding_dim, v vocabulary.
//!
//! Parameters, with blocks apart: `u_o.question.weight`, `u_o.support.weight`,
//! `u_o.candidate.weight (features, d)`, `u_o.newer (d)`, `u_o.after (d)`, `u_o.stop (d)`,
//! `u_r.question.weight`, `u_r.support.weight (features, d)`, `u_r.candidate.weight (v, d)`; NL: `u_o.w.weight`,
//! `u_r.w.weight (d, d)`. With one hop there is neither `u_o.support` nor `u_o.after`.
//!
//! # Differences from the paper
//! - Of the three time features, two compare a memory with `x`. The question is newer than all memories: at the first hop they
//!   are constant and left out. Later `x` is taken to be as old as the support retrieved last, and the two share one weight, with
//!   opposite signs; where a thing was dropped cannot be told without. The third reads "y is older than y'",
//!   which never holds in the paper's tournament, whose challenger is always newer; its mirror
//!   image "newer" is used, with a weight of the other sign.
//! - n-grams (NG) are hashed into `ngram_buckets` rather than listed from the training set, so that
//!   unseen ones need no care; two may share a bucket.
//! - Initial values are not stated in the paper: normal, standard deviation `init_std`.
//! - Exact-match features, hashing of memories, the segmenter and the model of unseen words are not
//!   here, nor is the multilinear map (ML).

mod config;
mod features;
#[cfg(test)]
mod tests;
mod training;

use candle_core::{DType, Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Embedding, Linear, init, linear};

pub use config::Config;

use crate::story::{Limits, NULL_WORD, Prepared, StoryBatch, StoryModel, StoryOutput};

/// The strongly supervised memory network.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::memory::memnn::{Config, MemNN};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let config = Config::memnn(Sizes { vocab_size: 6, sentence_len: 2, memory_size: 10 });
/// let store = ParamStore::new(1);
/// let model = MemNN::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![vec![0]], &Device::Cpu)?;
///
/// let out = model.forward(&batch, &Context::eval())?;
/// assert_eq!(out.retrieved[0].len(), 2); // two hops
/// let loss = model.loss(&batch, &[3], &Context::train(0, 0))?; // a negative sampled for each term
/// assert!(loss.to_scalar::<f32>()?.is_finite());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemNN {
    config: Config,
    retrieval: Match,
    response: Match,
    newer: Option<Tensor>, // (d)
    after: Option<Tensor>, // (d)
    stop: Option<Tensor>,  // (d)
}

/// One of the matrices `U_O`, `U_R`, block by block.
#[derive(Debug, Clone)]
struct Match {
    question: Embedding,
    /// `None` for retrieval with one hop, which has no support to read.
    support: Option<Embedding>,
    candidate: Embedding,
    nonlinear: Option<Linear>,
}

impl Match {
    fn new(config: &Config, response: bool, vb: &VarBuilder<'_>) -> Result<Self> {
        let (v, d) = (config.vocab_size, config.embedding_dim);
        let features = config.num_features().unwrap_or(v);
        let drawn = init::normal(config.init_std);
        let block = |name: &str| Embedding::new(features, d, drawn, Some(NULL_WORD), vb.pp(name));
        let candidate = match response {
            // Answers are single words, and the null word is one of the wrong ones.
            true => Embedding::new(v, d, drawn, None, vb.pp("candidate"))?,
            false => block("candidate")?,
        };
        let nonlinear = match config.nonlinear {
            true => Some(linear(d, d, false, drawn, vb.pp("w"))?),
            false => None,
        };
        let read = response || config.hops > 1;
        let support = read.then(|| block("support")).transpose()?;
        Ok(Self { question: block("question")?, support, candidate, nonlinear })
    }

    /// What each sentence of `story` adds to `x` once it is retrieved, `(b, n, d)`.
    fn supports(&self, story: &Tensor) -> Result<Tensor> {
        match &self.support {
            Some(words) => words.pooled(story, None),
            None => {
                let (b, n, _) = story.dims3()?;
                let weight = self.candidate.weight();
                Tensor::zeros((b, n, weight.dim(1)?), weight.dtype(), weight.device())
            }
        }
    }

    /// The embedding of `xs (…, d)`, a sum of feature vectors: itself, or `tanh(W tanh(xs))`.
    fn embed(&self, xs: &Tensor) -> Result<Tensor> {
        let Some(w) = &self.nonlinear else { return Ok(xs.clone()) };
        let d = xs.dims()[xs.rank() - 1];
        let flat = xs.tanh()?.reshape(((), d))?;
        w.forward(&flat)?.tanh()?.reshape(xs.dims())
    }
}

/// A batch embedded for retrieval and response.
struct Read {
    prepared: Prepared,
    question: Tensor,        // retrieval, before the non-linearity, (b, d)
    supports: Tensor,        // likewise for each sentence, (b, n, d)
    candidates: Tensor,      // embedded, (b, n, d), with the stop memory (b, n + 1, d)
    answer_question: Tensor, // response, before the non-linearity, (b, d)
    answer_supports: Tensor, // likewise for each sentence, (b, n, d)
}

impl Read {
    /// 1 for each candidate that was written after the `last` support of its row; the stop memory was not.
    fn after(&self, last: &[Option<usize>]) -> Result<Tensor> {
        let (b, all, _) = self.candidates.dims3()?;
        let n = self.supports.dim(1)?;
        let newer = |last: &Option<usize>| {
            let last = last.unwrap_or(n);
            (0..all).map(move |i| f32::from(i > last && i < n)).collect::<Vec<_>>()
        };
        let values = last.iter().flat_map(newer).collect();
        Tensor::from_vec(values, (b, all), self.candidates.device())
    }
}

impl MemNN {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let drawn = init::normal(config.init_std);
        let vector = |name: &str| vb.get_with_hints(config.embedding_dim, name, drawn);
        Ok(Self {
            retrieval: Match::new(config, false, &vb.pp("u_o"))?,
            response: Match::new(config, true, &vb.pp("u_r"))?,
            newer: config.temporal.then(|| vector("u_o.newer")).transpose()?,
            after: (config.temporal && config.hops > 1).then(|| vector("u_o.after")).transpose()?,
            stop: config.adaptive.then(|| vector("u_o.stop")).transpose()?,
            config: config.clone(),
        })
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn read(&self, batch: &StoryBatch) -> Result<Read> {
        let prepared = batch.prepare(&Limits {
            model: "memnn",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: None,
        })?;
        let (story, question) = features::bags(&self.config, &prepared)?;
        let mut candidates = self.retrieval.candidate.pooled(&story, None)?;
        if let Some(stop) = &self.stop {
            let (b, d) = (candidates.dim(0)?, self.config.embedding_dim);
            let stop = stop.reshape((1, 1, d))?.broadcast_as((b, 1, d))?;
            candidates = Tensor::cat(&[&candidates, &stop.contiguous()?], 1)?;
        }
        Ok(Read {
            question: self.retrieval.question.pooled(&question, None)?,
            supports: self.retrieval.supports(&story)?,
            candidates: self.retrieval.embed(&candidates)?,
            answer_question: self.response.question.pooled(&question, None)?,
            answer_supports: self.response.supports(&story)?,
            prepared,
        })
    }

    /// The match `a` of every candidate `(b, n)` (with the stop memory `(b, n + 1)`) and `τ (b)`,
    /// for `x (b, d)` before its non-linearity and the support that each row retrieved `last`.
    fn scores(
        &self,
        read: &Read,
        x: &Tensor,
        last: &[Option<usize>],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let q = self.retrieval.embed(x)?;
        let mut a = read.candidates.matmul(&q.unsqueeze(2)?)?.squeeze(2)?;
        if let Some(after) = self.after.as_ref().filter(|_| last.iter().any(Option::is_some)) {
            let omega = q.broadcast_mul(after)?.sum_keepdim(1)?; // (b, 1)
            a = (a + read.after(last)?.to_dtype(q.dtype())?.broadcast_mul(&omega)?)?;
        }
        let tau = self.newer.as_ref().map(|newer| q.broadcast_mul(newer)?.sum(1)).transpose()?;
        Ok((a, tau))
    }

    /// The scores of all words `(b, v)` for `x (b, d)` before its non-linearity.
    fn respond(&self, x: &Tensor) -> Result<Tensor> {
        let words = self.response.embed(self.response.candidate.weight())?;
        self.response.embed(x)?.matmul(&words.t()?)
    }

    /// Retrieves supports hop by hop and returns them per row, as indices of the sentences kept,
    /// with the scores of the hops.
    fn retrieve(&self, read: &Read, ctx: &Context) -> Result<(Vec<Vec<usize>>, Vec<Tensor>)> {
        let (b, n, _) = read.supports.dims3()?;
        let lengths = &read.prepared.batch.story_lengths;
        let mut alive: Vec<bool> = lengths.iter().map(|&l| l > 0).collect();
        let (mut chains, mut scores) = (vec![Vec::new(); b], Vec::new());
        let (mut x, mut won) = (read.question.clone(), vec![None; b]);
        for hop in 0..self.config.hops {
            let (a, tau) = self.scores(read, &x, &won)?;
            let matches = a.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            let tau = match tau {
                Some(tau) => tau.to_dtype(DType::F64)?.to_vec1::<f64>()?,
                None => vec![0.; b],
            };
            for row in 0..b {
                let winner = tournament(&matches[row][..lengths[row]], tau[row]);
                won[row] = winner.filter(|&t| alive[row] && !self.stops(&matches[row], t));
                alive[row] = won[row].is_some();
                chains[row].extend(won[row]);
            }
            if !alive.contains(&true) {
                break;
            }
            let device = x.device();
            ctx.watch("attention", hop, || one_hot(&won, n, device))?;
            scores.push(a.narrow(1, 0, n)?);
            x = (x + pick(&read.supports, &won)?)?;
        }
        Ok((chains, scores))
    }

    /// Whether the stop memory, which stands last, beats the winner `t`.
    fn stops(&self, matches: &[f64], t: usize) -> bool {
        self.config.adaptive && matches.last().is_some_and(|&stop| stop > matches[t])
    }
}

/// The winner of memories with matches `a`, oldest first, a challenger being favoured by `tau`
/// (algorithm 1 of the paper).
fn tournament(a: &[f64], tau: f64) -> Option<usize> {
    let mut best = 0;
    for (i, score) in a.iter().enumerate().skip(1) {
        if score - a[best] + tau > 0. {
            best = i;
        }
    }
    (!a.is_empty()).then_some(best)
}

fn one_hot(places: &[Option<usize>], n: usize, device: &candle_core::Device) -> Result<Tensor> {
    let at = |p: &Option<usize>| (0..n).map(move |i| f32::from(*p == Some(i))).collect::<Vec<_>>();
    Tensor::from_vec(places.iter().flat_map(at).collect(), (places.len(), n), device)
}

/// One sentence vector a row of `xs (b, n, d)`, or zeros: `(b, d)`.
fn pick(xs: &Tensor, places: &[Option<usize>]) -> Result<Tensor> {
    let (_, n, _) = xs.dims3()?;
    let chosen = one_hot(places, n, xs.device())?.to_dtype(xs.dtype())?; // (b, n)
    chosen.unsqueeze(1)?.matmul(xs)?.squeeze(1)
}

impl StoryModel for MemNN {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        let read = self.read(batch)?;
        let (chains, gate_scores) = self.retrieve(&read, ctx)?;
        let mut x = read.answer_question.clone();
        for hop in 0..chains.iter().map(Vec::len).max().unwrap_or(0) {
            let places: Vec<_> = chains.iter().map(|c| c.get(hop).copied()).collect();
            x = (x + pick(&read.answer_supports, &places)?)?;
        }
        let dropped = &read.prepared.dropped;
        let retrieved = chains.into_iter().zip(dropped);
        let retrieved = retrieved.map(|(c, d)| c.into_iter().map(|i| i + d).collect()).collect();
        Ok(StoryOutput { logits: self.respond(&x)?, gate_scores, retrieved })
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn loss(&self, batch: &StoryBatch, answers: &[u32], ctx: &Context) -> Result<Tensor> {
        self.ranking_loss(batch, answers, ctx)
    }

    fn needs_supports(&self) -> bool {
        true
    }
}
