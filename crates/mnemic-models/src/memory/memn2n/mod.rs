//! End-To-End Memory Networks (MemN2N): S. Sukhbaatar, A. Szlam, J. Weston, R. Fergus, NIPS 2015,
//! arXiv 1503.08895.
//!
//! Soft attention over embedded sentences, repeated for `K` hops, trained from answers alone. For a
//! story `x_1 … x_n` and a question `q`:
//!
//! - memories `m_i = Σ_j l_j ∘ A[x_ij] + T_A[i]`, `c_i = Σ_j l_j ∘ C[x_ij] + T_C[i]`, state
//!   `u^1 = Σ_j l_j ∘ B[q_j]`;
//! - a hop: `p_i = softmax_i(u · m_i)`, `o = Σ_i p_i c_i`, `u' = u + o` (layer-wise tying:
//!   `u' = H u + o`), then perhaps a ReLU;
//! - the answer: `softmax(W u^{K+1})` over the vocabulary.
//!
//! Time vectors `T` count backwards: row 0 belongs to the most recent sentence. Each table's
//! sentence vectors are made once; with adjacent tying a hop's output memory is the next hop's
//! input memory.
//!
//! Letters: b batch, n sentences, d embedding_dim, v vocabulary.
//!
//! Parameters. Adjacent: `words.{k}.weight (v, d)` and `temporal.{k} (memory_size, d)` for
//! `k = 0..=K`; hop `k` (from 0) reads table `k` and answers with table `k + 1`; `B` is table 0 and
//! `W` table `K`. Layer-wise: `a.weight`, `c.weight`, `b.weight`, `w.weight` `(v, d)`,
//! `temporal_a`, `temporal_c (memory_size, d)`, `h.weight (d, d)`.
//!
//! # Differences from the paper
//! - The presets use the position weights of the authors' program ([`Encoding::PositionCode`]),
//!   which made the published numbers; [`Encoding::Position`] is the printed formula. The program
//!   adds the time vector as a last word and so multiplies it by that place's weight; here it is
//!   added as the paper writes.
//! - Memories that fill up `memory_size` compete in the softmax with score 0, as in the authors'
//!   program, unless `mask_empty` is set; their number never depends on the padding of a batch.
//! - Ages that random noise pushes past the last time vector take the last one.
//! - `lw_relu_d100` follows what the paper and its successors say of the best model on 10k
//!   examples; whether it had linear start and noise is not stated. Its failure on task 16, which
//!   linear start solves, speaks against it: it is off.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Content, Context, Embedding, Linear, add, content_attention, init, length_mask, linear,
    position_encoding, relu,
};

pub use config::{Config, Encoding, Tying};

use crate::story::{Limits, NULL_WORD, Phase, StoryBatch, StoryModel, StoryOutput, answer_loss};

/// The end-to-end memory network.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::memory::memn2n::{Config, MemN2N};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let config = Config::pe_ls_rn(Sizes { vocab_size: 6, sentence_len: 2, memory_size: 10 });
/// let store = ParamStore::new(1);
/// let model = MemN2N::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![], &Device::Cpu)?;
///
/// let ctx = Context::eval().watching();
/// assert_eq!(model.forward(&batch, &ctx)?.logits.dims(), [1, 6]);
/// assert_eq!(ctx.take_trace().len(), 3); // the attention of each hop, (b, n)
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemN2N {
    config: Config,
    words: Vec<Embedding>,
    temporal: Vec<Tensor>,
    question: Embedding,
    answer: Tensor, // (v, d)
    transition: Option<Linear>,
    position: Option<Tensor>, // (sentence_len, d)
}

impl MemN2N {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (v, d) = (config.vocab_size, config.embedding_dim);
        let drawn = init::normal(config.init_std);
        let table = |name: &str| Embedding::new(v, d, drawn, Some(NULL_WORD), vb.pp(name));
        let (words, question, answer, transition) = match config.tying {
            Tying::Adjacent => {
                let words = (0..=config.hops)
                    .map(|k| table(&format!("words.{k}")))
                    .collect::<Result<Vec<_>>>()?;
                let (question, answer) = (words[0].clone(), words[config.hops].weight().clone());
                (words, question, answer, None)
            }
            Tying::LayerWise => {
                let answer = table("w")?.weight().clone();
                let transition = linear(d, d, false, drawn, vb.pp("h"))?;
                (vec![table("a")?, table("c")?], table("b")?, answer, Some(transition))
            }
        };
        let temporal = Self::temporal_tables(config, drawn, &vb)?;
        let position = config
            .encoding
            .weights()
            .map(|e| position_encoding(config.sentence_len, d, e, vb.dtype(), vb.device()))
            .transpose()?;
        Ok(Self { config: config.clone(), words, temporal, question, answer, transition, position })
    }

    fn temporal_tables(config: &Config, drawn: Init, vb: &VarBuilder<'_>) -> Result<Vec<Tensor>> {
        let shape = (config.memory_size, config.embedding_dim);
        let names: Vec<String> = match (config.temporal, config.tying) {
            (false, _) => vec![],
            (true, Tying::Adjacent) => (0..=config.hops).map(|k| format!("temporal.{k}")).collect(),
            (true, Tying::LayerWise) => vec!["temporal_a".into(), "temporal_c".into()],
        };
        names.iter().map(|name| vb.get_with_hints(shape, name, drawn)).collect()
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The forward pass, with `linear` without the softmax over memories (linear start, section
    /// 4.2). The softmax of the answer stays.
    ///
    /// # Errors
    /// When the batch is not valid or does not fit the model.
    pub fn forward_with(
        &self,
        batch: &StoryBatch,
        ctx: &Context,
        linear: bool,
    ) -> Result<StoryOutput> {
        let limits = Limits {
            model: "memn2n",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: Some(self.config.sentence_len),
        };
        let batch = batch.prepare(&limits)?.batch;
        let memories = self.memories(&batch, ctx)?;
        let attention = Attention::new(&self.config, &batch, linear)?;
        let weights = self.position_weights(batch.question.dim(1)?)?;
        let mut u = self.question.pooled(&batch.question, weights.as_ref())?; // (b, d)
        let mut gate_scores = Vec::with_capacity(self.config.hops);
        for hop in 0..self.config.hops {
            let (input, output) = match self.config.tying {
                Tying::Adjacent => (&memories[hop], &memories[hop + 1]),
                Tying::LayerWise => (&memories[0], &memories[1]),
            };
            let read = content_attention(&u, input, output, attention.content())?;
            ctx.watch("attention", hop, || Ok(read.weights.clone()))?;
            let o = read.output; // (b, d)
            u = match &self.transition {
                None => add(&u, &o)?,
                Some(h) => add(&h.forward(&u)?, &o)?,
            };
            if self.config.relu {
                u = relu(&u)?;
            }
            gate_scores.push(read.scores);
        }
        let logits = Linear::new(self.answer.clone(), None).forward(&u)?; // (b, v)
        Ok(StoryOutput { logits, gate_scores, retrieved: Vec::new() })
    }

    /// The sentence vectors of every table, `(b, n, d)` each; zero for padding sentences.
    ///
    /// A time vector is one more word of its sentence, with the weight 1: words and times of a hop are pooled as one table.
    fn memories(&self, batch: &StoryBatch, ctx: &Context) -> Result<Vec<Tensor>> {
        let (b, n, j) = batch.story.dims3()?;
        let weights = self.position_weights(j)?;
        if !self.config.temporal {
            return self.words.iter().map(|t| t.pooled(&batch.story, weights.as_ref())).collect();
        }
        let v = self.config.vocab_size;
        let ages = self.ages(&batch.story_lengths, n, ctx);
        let there = |i: usize| i % n < batch.story_lengths[i / n];
        let times = ages.iter().enumerate();
        let times = times.map(|(i, a)| if there(i) { v as u32 + a } else { NULL_WORD });
        let times = Tensor::from_vec(times.collect(), (b, n, 1), batch.story.device())?;
        let ids = Tensor::cat(&[&batch.story, &times], 2)?; // (b, n, j + 1)
        let weights = match weights {
            Some(w) => Some(Tensor::cat(&[&w, &w.narrow(0, 0, 1)?.ones_like()?], 0)?),
            None => None,
        };
        let pool = |(words, times): (&Embedding, &Tensor)| {
            let table = Tensor::cat(&[words.weight(), times], 0)?;
            Embedding::from_weight(table, Some(NULL_WORD))?.pooled(&ids, weights.as_ref())
        };
        self.words.iter().zip(&self.temporal).map(pool).collect()
    }

    fn position_weights(&self, words: usize) -> Result<Option<Tensor>> {
        self.position.as_ref().map(|l| l.narrow(0, 0, words)).transpose()
    }

    /// The row of the time tables for each sentence, `b n` of them: 0 for the most recent. With
    /// random noise (section 4.2) the `n` sentences take `n` of `n + blank` ages, `blank` uniform
    /// in `0..=ceil(noise n)`.
    fn ages(&self, lengths: &[usize], n: usize, ctx: &Context) -> Vec<u32> {
        let noise = self.config.temporal_noise;
        let rng = if noise > 0. { ctx.rng() } else { None };
        let oldest = self.config.memory_size - 1;
        let mut ages = vec![0; lengths.len() * n];
        for (row, &length) in lengths.iter().enumerate() {
            let mut chosen: Vec<usize> = (0..length).collect();
            if let Some(rng) = rng {
                let draw = |k: usize, below: usize| {
                    rng.below(((row as u64) << 32) | k as u64, below as u64) as usize
                };
                let most = (noise * length as f64).ceil() as usize;
                let all = length + draw(0, most + 1);
                // The first `length` places of a shuffle.
                let mut places: Vec<usize> = (0..all).collect();
                for k in 0..length {
                    places.swap(k, k + draw(k + 1, all - k));
                }
                places.truncate(length);
                places.sort_unstable();
                chosen = places;
            }
            for (i, age) in chosen.iter().rev().enumerate() {
                ages[row * n + i] = (*age).min(oldest) as u32;
            }
        }
        ages
    }
}

impl StoryModel for MemN2N {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        self.forward_with(batch, ctx, false)
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn loss_in(
        &self,
        phase: Phase,
        batch: &StoryBatch,
        answers: &[u32],
        ctx: &Context,
    ) -> Result<Tensor> {
        let linear = phase == Phase::Start;
        if linear && !self.has_start_phase() {
            bail!("memn2n: the config has no linear start");
        }
        answer_loss(&self.forward_with(batch, ctx, linear)?.logits, answers)
    }

    fn has_start_phase(&self) -> bool {
        self.config.linear_start
    }

    fn null_rows(&self) -> Vec<String> {
        match self.config.tying {
            Tying::Adjacent => {
                (0..=self.config.hops).map(|k| format!("words.{k}.weight")).collect()
            }
            Tying::LayerWise => ["a.weight", "b.weight", "c.weight"].map(String::from).to_vec(),
        }
    }
}

/// How scores become weights, for one batch.
struct Attention {
    linear: bool,
    mask: Tensor, // u8 (b, n)
    /// The logarithm of the number of empty memories of each row: together they count as one place with that score.
    empty: Option<Vec<f64>>,
}

impl Attention {
    fn new(config: &Config, batch: &StoryBatch, linear: bool) -> Result<Self> {
        let (_, n, _) = batch.story.dims3()?;
        let lengths = &batch.story_lengths;
        let log = |l: &usize| ((config.memory_size - l) as f64).ln(); // -inf where none is empty
        let empty = (!config.mask_empty).then(|| lengths.iter().map(log).collect());
        Ok(Self { linear, mask: length_mask(lengths, n, batch.story.device())?, empty })
    }

    fn content(&self) -> Content<'_> {
        let absent = self.empty.as_deref();
        Content { mask: Some(&self.mask), linear: self.linear, absent }
    }
}
