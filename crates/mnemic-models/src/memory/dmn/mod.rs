//! Dynamic Memory Network (DMN): A. Kumar et al., "Ask Me Anything: Dynamic Memory Networks for
//! Natural Language Processing", ICML 2016, arXiv 1506.07285.
//!
//! Gated passes over facts, each pass with another memory; the gates can be supervised by
//! supporting facts. For a story and a question:
//!
//! - facts `c_1 … c_n`: states at the ends of the sentences of one GRU over all words; question
//!   `q`: last state of a GRU; `m^0 = q`;
//! - pass `i`: `z_t = [c; m; q; c∘q; c∘m; |c-q|; |c-m|; cᵀW_b q; cᵀW_b m]`, gate
//!   `g_t = σ(w_2 tanh(W_1 z_t + b_1) + b_2)`;
//! - episode `h_t = g_t GRU(c_t, h_{t-1}) + (1-g_t) h_{t-1}`, `e = h_n`; memory
//!   `m^i = GRU(e, m^{i-1})`, the same in all passes;
//! - an end-of-passes vector is scored beside the facts; passes end where it has the largest score;
//! - answer `a_0 = m`, `a_t = GRU([y_{t-1}; q], a_{t-1})`, `y_t = softmax(W_a a_t)`; one step for
//!   bAbI, `y_0 = 0`.
//!
//! Loss, summed over rows: `α E(gates) + β E(answers)`. The target of pass `i` is the `i`-th
//! supporting fact, then the end of passes; in training the passes end there. [`Phase::Start`]
//! trains the gates alone.
//!
//! Letters: b batch, n sentences, t words of a story, d embedding_dim, h hidden_size, v vocabulary.
//!
//! Parameters: `embedding.weight (v, d)` (one row more with `end_of_sentence`), GRUs `story`,
//! `question`, `memory`, `answer` with PyTorch's names (`story.weight_ih_l0`, …),
//! `attention.{w1,w2}.{weight,bias}`, `attention.w_b (h, h)`, `episode.{weight,bias}_{ih,hh}`,
//! `end_of_passes (h)`, `output.weight (v, h)`.
//!
//! # Differences from the paper
//! - Word vectors are learned, not GloVe. Full stops are stripped by the readers of the data: a
//!   learned marker takes their place as the end of a sentence.
//! - The end-of-passes vector is scored, but not read by the episode's GRU, and the pass in which
//!   it wins changes nothing.
//! - The paper does not say whether the gates' cross-entropy is that of a softmax over the facts or
//!   of each gate; both are here ([`GateLoss`]). `dmn_supervised` takes the softmax, which learned
//!   and generalised better in our tests.
//! - A story of a single sentence has one fact, not one a word. Update gates are PyTorch's: `z`
//!   keeps.

mod config;
mod loss;
#[cfg(test)]
mod tests;

use candle_core::{DType, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, Embedding, EpisodicAttention, EpisodicKind, GatedGru, Gru, Linear, PreparedFacts,
    RecurrentConfig, RecurrentInit, gather_steps, init, length_mask, linear,
};

pub use config::{Config, GateLoss};

use crate::story::{
    Limits, NULL_WORD, Phase, Prepared, StoryBatch, StoryModel, StoryOutput, pad_sequences,
};

/// The dynamic memory network.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::memory::dmn::{Config, Dmn};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let config = Config::odmn(Sizes { vocab_size: 6, sentence_len: 2, memory_size: 70 });
/// let store = ParamStore::new(1);
/// let model = Dmn::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![], &Device::Cpu)?;
///
/// let ctx = Context::eval().watching();
/// assert_eq!(model.forward(&batch, &ctx)?.logits.dims(), [1, 6]);
/// assert_eq!(ctx.take_trace().len(), 3); // the gates of each pass, (b, n)
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dmn {
    config: Config,
    embedding: Embedding,
    question: Gru,
    episodes: Option<Episodes>,
    answer: Gru,
    output: Linear,
}

/// The input and the episodic memory module.
#[derive(Debug, Clone)]
struct Episodes {
    story: Gru,
    attention: EpisodicAttention,
    episode: GatedGru,
    memory: Gru,
    end_of_passes: Option<Tensor>, // (h)
}

/// The facts of a batch, scored by every pass.
struct Facts {
    facts: Tensor,           // (b, n, h)
    prepared: PreparedFacts, // of (b, n, h), with an end-of-passes vector (b, n + 1, h)
    mask: Tensor,            // u8, of the same places
    lengths: Vec<usize>,
}

/// What the passes give.
struct Passes {
    memory: Tensor,      // (b, h)
    scores: Vec<Tensor>, // each pass, (b, n) or (b, n + 1)
    mask: Tensor,        // u8, of the same places
}

impl Dmn {
    /// The model with its parameters from `vb`: words uniform in `±√3`, other weights Xavier,
    /// biases 0.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (v, d, h) = (config.vocab_size, config.embedding_dim, config.hidden_size);
        let gru = |input: usize, name: &str| {
            Gru::with_init(RecurrentConfig::new(input, h), RecurrentInit::xavier(), vb.pp(name))
        };
        let words = init::uniform(3f64.sqrt());
        let episodes = match config.passes {
            0 => None,
            _ => Some(Episodes {
                story: gru(d, "story")?,
                attention: EpisodicAttention::new(EpisodicKind::Dmn, h, vb.pp("attention"))?,
                episode: GatedGru::with_init(h, h, RecurrentInit::xavier(), vb.pp("episode"))?,
                memory: gru(h, "memory")?,
                end_of_passes: match config.end_of_passes {
                    true => Some(vb.get_with_hints(h, "end_of_passes", init::normal(0.1))?),
                    false => None,
                },
            }),
        };
        Ok(Self {
            embedding: Embedding::new(
                config.num_words(),
                d,
                words,
                Some(NULL_WORD),
                vb.pp("embedding"),
            )?,
            question: gru(d, "question")?,
            episodes,
            answer: gru(v + h, "answer")?,
            output: linear(h, v, false, init::xavier_uniform(h, v), vb.pp("output"))?,
            config: config.clone(),
        })
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Decodes `steps` words a row: the scores of each step, `(b, v)`. A step is fed the word of
    /// `teacher` (one list a row, ids) that precedes it, or without a teacher, or past a list's
    /// end, the best word of the step before.
    ///
    /// # Errors
    /// When the batch is not valid or does not fit the model, or `teacher` does not fit the batch.
    pub fn decode(
        &self,
        batch: &StoryBatch,
        steps: usize,
        teacher: Option<&[Vec<u32>]>,
        ctx: &Context,
    ) -> Result<Vec<Tensor>> {
        if let Some(teacher) = teacher
            && teacher.len() != batch.batch_size()
        {
            bail!("dmn: {} answers for a batch of {}", teacher.len(), batch.batch_size());
        }
        let prepared = self.prepare(batch)?;
        let q = self.read_question(&prepared, ctx)?;
        let memory = self.passes(&prepared, &q, None, ctx)?.memory;
        self.answer_steps(&memory, &q, steps, teacher, ctx)
    }

    fn prepare(&self, batch: &StoryBatch) -> Result<Prepared> {
        batch.prepare(&Limits {
            model: "dmn",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: None,
        })
    }

    /// The question's vector, `(b, h)`.
    fn read_question(&self, prepared: &Prepared, ctx: &Context) -> Result<Tensor> {
        let batch = &prepared.batch;
        let words = self.embedding.forward(&batch.question)?; // (b, q, d)
        let words = ctx.dropout(&words, self.config.dropout)?;
        let lengths = Some(&batch.question_lengths[..]);
        self.question.forward(&words, None, lengths, ctx)?.state.squeeze(0)
    }

    /// The states at the ends of the sentences of one GRU over all words, `(b, n, h)`; its words
    /// stand without padding between.
    fn read_story(&self, gru: &Gru, prepared: &Prepared, ctx: &Context) -> Result<Tensor> {
        let b = prepared.batch.batch_size();
        let (mut rows, mut ends) = (Vec::with_capacity(b), Vec::with_capacity(b));
        for row in 0..b {
            let (mut words, mut row_ends) = (Vec::new(), Vec::new());
            for sentence in prepared.sentences(row)? {
                words.extend_from_slice(sentence);
                if self.config.end_of_sentence {
                    words.push(self.config.vocab_size as u32);
                }
                row_ends.push(words.len() - 1);
            }
            rows.push(words);
            ends.push(row_ends);
        }
        let (ids, lengths) = pad_sequences(&rows, prepared.batch.story.device())?;
        let words = ctx.dropout(&self.embedding.forward(&ids)?, self.config.dropout)?; // (b, t, d)
        let states = gru.forward(&words, None, Some(&lengths), ctx)?.output;
        let facts = gather_steps(&states, &ends)?;
        // A batch without a sentence keeps one place, which is masked.
        match facts.dim(1)? {
            0 => Tensor::zeros((b, 1, self.config.hidden_size), states.dtype(), states.device()),
            _ => Ok(facts),
        }
    }

    /// Runs the passes. With `gold` chains of facts, rows end with their chain; else where the
    /// end-of-passes vector wins.
    fn passes(
        &self,
        prepared: &Prepared,
        q: &Tensor,
        gold: Option<&[Vec<usize>]>,
        ctx: &Context,
    ) -> Result<Passes> {
        let lengths = &prepared.batch.story_lengths;
        let (b, n, _) = prepared.batch.story.dims3()?;
        let Some(episodes) = &self.episodes else {
            let mask = length_mask(lengths, n, q.device())?;
            return Ok(Passes { memory: q.clone(), scores: Vec::new(), mask });
        };
        let facts = self.read_story(&episodes.story, prepared, ctx)?; // (b, n, h)
        let facts = episodes.facts(facts, q, lengths)?;
        let mut active = vec![true; b];
        let (mut m, mut all_scores) = (q.clone(), Vec::new());
        for pass in 0..self.config.passes {
            let scores = episodes.attention.scores(&facts.prepared, &m)?;
            if self.config.end_of_passes {
                match gold {
                    Some(gold) => {
                        active.iter_mut().zip(gold).for_each(|(a, g)| *a &= pass < g.len())
                    }
                    None => stop_where_the_end_wins(&mut active, &scores, lengths)?,
                }
            }
            let rows = row_mask(&active, &scores)?; // (b, 1)
            let gates = sigmoid(&scores.narrow(1, 0, n)?)?;
            let gates = (gates * facts.mask.narrow(1, 0, n)?.to_dtype(q.dtype())?)?; // (b, n)
            ctx.watch("attention", pass, || gates.broadcast_mul(&rows.to_dtype(q.dtype())?))?;
            all_scores.push(scores);
            if !active.contains(&true) {
                break;
            }
            let e = episodes.episode.forward(&facts.facts, &gates, Some(&facts.lengths))?; // (b, h)
            let new = episodes.memory.step(&e, Some(&m.unsqueeze(0)?), ctx)?.output;
            m = rows.broadcast_as(m.shape())?.where_cond(&new, &m)?;
        }
        Ok(Passes { memory: m, scores: all_scores, mask: facts.mask })
    }

    fn answer_steps(
        &self,
        memory: &Tensor,
        q: &Tensor,
        steps: usize,
        teacher: Option<&[Vec<u32>]>,
        ctx: &Context,
    ) -> Result<Vec<Tensor>> {
        let (b, v) = (q.dim(0)?, self.config.vocab_size);
        let mut a = ctx.dropout(memory, self.config.dropout)?; // (b, h)
        let mut word = Tensor::zeros((b, v), q.dtype(), q.device())?;
        let mut logits: Vec<Tensor> = Vec::with_capacity(steps);
        for step in 0..steps {
            if let Some(last) = logits.last() {
                let mut ids = last.detach().argmax(1)?.to_vec1::<u32>()?;
                for (id, taught) in ids.iter_mut().zip(teacher.unwrap_or_default()) {
                    *id = taught.get(step - 1).copied().unwrap_or(*id);
                }
                word = one_hot(&ids, v, q)?;
            }
            let state = a.unsqueeze(0)?;
            a = self.answer.step(&Tensor::cat(&[&word, q], 1)?, Some(&state), ctx)?.output;
            logits.push(self.output.forward(&a)?); // (b, v)
        }
        Ok(logits)
    }
}

impl Episodes {
    /// Prepares facts for the passes, with the end-of-passes vector right after the last of each
    /// row.
    fn facts(&self, facts: Tensor, q: &Tensor, lengths: &[usize]) -> Result<Facts> {
        let (b, n, h) = facts.dims3()?;
        let (scored, mask) = match &self.end_of_passes {
            None => (facts.clone(), length_mask(lengths, n, facts.device())?),
            Some(end) => {
                let ids: Vec<u32> = lengths.iter().map(|&l| l as u32).collect();
                let place = one_hot(&ids, n + 1, &facts)?.unsqueeze(2)?; // (b, n + 1, 1)
                let ends = place.broadcast_mul(&end.reshape((1, 1, h))?)?;
                let longer: Vec<usize> = lengths.iter().map(|l| l + 1).collect();
                let none = Tensor::zeros((b, 1, h), facts.dtype(), facts.device())?;
                let scored = (Tensor::cat(&[&facts, &none], 1)? + ends)?;
                (scored, length_mask(&longer, n + 1, facts.device())?)
            }
        };
        let prepared = self.attention.prepare(&scored, q)?;
        Ok(Facts { facts, prepared, mask, lengths: lengths.to_vec() })
    }
}

/// Ends the rows whose end-of-passes score exceeds those of all facts.
fn stop_where_the_end_wins(active: &mut [bool], scores: &Tensor, lengths: &[usize]) -> Result<()> {
    let scores = scores.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
    for ((active, scores), &n) in active.iter_mut().zip(&scores).zip(lengths) {
        *active &= scores[..n].iter().any(|s| *s >= scores[n]);
    }
    Ok(())
}

/// 1 for active rows, u8 `(b, 1)`.
fn row_mask(active: &[bool], like: &Tensor) -> Result<Tensor> {
    let mask: Vec<u8> = active.iter().map(|&a| u8::from(a)).collect();
    Tensor::from_vec(mask, (active.len(), 1), like.device())
}

fn one_hot(ids: &[u32], n: usize, like: &Tensor) -> Result<Tensor> {
    if let Some(bad) = ids.iter().find(|&&id| id as usize >= n) {
        bail!("dmn: word {bad} is not below {n}");
    }
    let mut values = vec![0f32; ids.len() * n];
    ids.iter().enumerate().for_each(|(row, &id)| values[row * n + id as usize] = 1.);
    Tensor::from_vec(values, (ids.len(), n), like.device())?.to_dtype(like.dtype())
}

fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    // 1/2 (1 + tanh(x/2)): no overflow on either side.
    ((xs * 0.5)?.tanh()? + 1.)? * 0.5
}

impl StoryModel for Dmn {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        let prepared = self.prepare(batch)?;
        let q = self.read_question(&prepared, ctx)?;
        let passes = self.passes(&prepared, &q, None, ctx)?;
        let logits = self.answer_steps(&passes.memory, &q, 1, None, ctx)?.remove(0);
        let n = prepared.batch.story.dim(1)?;
        let gate_scores = passes.scores.iter().map(|s| s.narrow(1, 0, n)).collect::<Result<_>>()?;
        Ok(StoryOutput { logits, gate_scores, retrieved: Vec::new() })
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn loss(&self, batch: &StoryBatch, answers: &[u32], ctx: &Context) -> Result<Tensor> {
        let (gates, answers_weight) = (self.config.gate_weight, self.config.answer_weight);
        self.weighted_loss(batch, answers, (gates, answers_weight), ctx)
    }

    fn loss_in(
        &self,
        phase: Phase,
        batch: &StoryBatch,
        answers: &[u32],
        ctx: &Context,
    ) -> Result<Tensor> {
        match phase {
            Phase::Main => self.loss(batch, answers, ctx),
            Phase::Start if self.has_start_phase() => {
                self.weighted_loss(batch, answers, (1., 0.), ctx)
            }
            Phase::Start => bail!("dmn: gates that are not supervised have no phase of their own"),
        }
    }

    fn has_start_phase(&self) -> bool {
        self.config.gate_weight > 0.
    }

    fn needs_supports(&self) -> bool {
        self.config.gate_weight > 0.
    }
}
