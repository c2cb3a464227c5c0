//! Improved dynamic memory network (DMN+): C. Xiong, S. Merity, R. Socher, "Dynamic Memory Networks for Visual and Textual Question
//! Answering", ICML 2016, arXiv 1603.01417.
//!
//! It needs no labels of supporting facts. For a story `x_1 … x_n` of sentences and a question `q`:
//!
//! - sentence reader `f_i = Σ_j l_j ∘ E[x_ij]` with the position weights of MemN2N;
//! - input fusion `f̄_i = GRU→(f)_i + GRU←(f)_i`; question `q`: the last state of a GRU over its words; memory `m^0 = q`;
//! - pass `t`: `z_i = [f̄_i∘q; f̄_i∘m; |f̄_i-q|; |f̄_i-m|]`, `g = softmax_i(w_2 tanh(W_1 z_i + b_1) + b_2)`;
//! - context `c`: the last state of an attention GRU, `h_i = g_i h̃_i + (1-g_i) h_{i-1}` (or `Σ g_i f̄_i`);
//! - memory `m^t = ReLU(W^t [m^{t-1}; c; q] + b^t)` (or a tied GRU);
//! - answer `softmax(W_a [q; m^T] + b_a)`.
//!
//! Letters: b batch, n sentences, h hidden_size, v vocabulary.
//!
//! Parameters, in PyTorch's names: `embedding.weight (v, h)`, `fusion.*_l0[_reverse]`, `question.*_l0` (GRU), `attention.{w1,w2}.{weight,bias}`,
//! `attention_gru.{weight,bias}_{ih,hh}`, `memory.{t}.{weight (h, 3h), bias}` or `memory.*_l0` (GRU), `answer.{weight (v, 2h), bias}`.
//!
//! # Differences from the paper
//! - A GRU keeps two bias vectors, as in PyTorch, and its reset gate acts after the recurrent product.
//! - The attention GRU, too, starts its biases at 0 and has two of them.
//! - The L2 term of the loss is the trainer's weight decay (for weights other than the embedding), which has the same gradient.
//! - Text only: no grid of image features.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    AttentionGru, Context, Embedding, EpisodicAttention, EpisodicKind, Gru, Linear,
    PositionEncoding, RecurrentConfig, RecurrentInit, add, concat, init, length_mask, linear,
    masked_softmax, position_encoding, relu,
};

pub use config::{Config, ContextKind, MemoryUpdate};

use crate::story::{Limits, NULL_WORD, StoryBatch, StoryModel, StoryOutput};

/// The improved dynamic memory network.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::memory::dmn_plus::{Config, DmnPlus};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let config = Config::dmn_plus(Sizes { vocab_size: 6, sentence_len: 2, memory_size: 70 });
/// let store = ParamStore::new(1);
/// let model = DmnPlus::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![], &Device::Cpu)?;
///
/// let ctx = Context::eval().watching();
/// assert_eq!(model.forward(&batch, &ctx)?.logits.dims(), [1, 6]);
/// assert_eq!(ctx.take_trace().len(), 3); // the attention of each pass, (b, n)
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DmnPlus {
    config: Config,
    embedding: Embedding,
    position: Tensor, // (sentence_len, h)
    fusion: Option<Gru>,
    question: Gru,
    attention: EpisodicAttention,
    attention_gru: Option<AttentionGru>,
    memory: Memory,
    answer: Linear,
}

/// The memory update.
#[derive(Debug, Clone)]
enum Memory {
    Tied(Gru),
    Untied(Vec<Linear>),
}

impl DmnPlus {
    /// The model with its parameters from `vb`: words uniform in `±√3`, other weights Xavier, biases 0.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (v, h) = (config.vocab_size, config.hidden_size);
        let words = init::uniform(3f64.sqrt());
        let embedding = Embedding::new(v, h, words, Some(NULL_WORD), vb.pp("embedding"))?;
        let position = position_encoding(
            config.sentence_len,
            h,
            PositionEncoding::Paper,
            vb.dtype(),
            vb.device(),
        )?;
        let gru = |name: &str, bidirectional: bool| {
            let sizes = RecurrentConfig { bidirectional, ..RecurrentConfig::new(h, h) };
            Gru::with_init(sizes, RecurrentInit::xavier(), vb.pp(name))
        };
        let attention_gru = match config.context {
            ContextKind::Soft => None,
            ContextKind::AttentionGru => {
                let vb = vb.pp("attention_gru");
                Some(AttentionGru::with_init(h, h, RecurrentInit::xavier(), vb)?)
            }
        };
        let memory = match config.memory_update {
            MemoryUpdate::TiedGru => Memory::Tied(gru("memory", false)?),
            MemoryUpdate::UntiedRelu => Memory::Untied(
                (0..config.passes)
                    .map(|t| {
                        let vb = vb.pp("memory").pp(t);
                        linear(3 * h, h, true, init::xavier_uniform(3 * h, h), vb)
                    })
                    .collect::<Result<_>>()?,
            ),
        };
        Ok(Self {
            embedding,
            position,
            fusion: config.input_fusion.then(|| gru("fusion", true)).transpose()?,
            question: gru("question", false)?,
            attention: EpisodicAttention::new(EpisodicKind::DmnPlus, h, vb.pp("attention"))?,
            attention_gru,
            memory,
            answer: linear(2 * h, v, true, init::xavier_uniform(2 * h, v), vb.pp("answer"))?,
            config: config.clone(),
        })
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The facts of the stories, `(b, n, h)`.
    fn facts(&self, batch: &StoryBatch, ctx: &Context) -> Result<Tensor> {
        let (_, _, words) = batch.story.dims3()?;
        let weights = self.position.narrow(0, 0, words)?;
        let sentences = self.embedding.pooled(&batch.story, Some(&weights))?; // (b, n, h)
        let sentences = ctx.dropout(&sentences, self.config.dropout)?;
        let Some(fusion) = &self.fusion else { return Ok(sentences) };
        let directions = fusion.forward_apart(&sentences, Some(&batch.story_lengths), ctx)?;
        add(&directions[0], &directions[1])
    }

    fn encode_question(&self, batch: &StoryBatch, ctx: &Context) -> Result<Tensor> {
        let words = self.embedding.forward(&batch.question)?; // (b, q, h)
        let read = self.question.forward(&words, None, Some(&batch.question_lengths), ctx)?;
        read.state.squeeze(0) // (b, h)
    }

    /// What the passes read: the input products of the attention GRU, or the facts themselves.
    fn inputs(&self, facts: &Tensor) -> Result<Tensor> {
        match &self.attention_gru {
            Some(gru) => gru.project(facts),
            None => Ok(facts.clone()),
        }
    }

    /// The context of a pass, `(b, h)`.
    fn context(&self, inputs: &Tensor, gates: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        match &self.attention_gru {
            Some(gru) => gru.forward_projected(inputs, gates, Some(lengths)),
            None => gates.unsqueeze(1)?.matmul(inputs)?.squeeze(1),
        }
    }

    /// The memory after pass `t`, `(b, h)`.
    fn update(
        &self,
        t: usize,
        m: &Tensor,
        c: &Tensor,
        q: &Tensor,
        ctx: &Context,
    ) -> Result<Tensor> {
        match &self.memory {
            Memory::Tied(gru) => gru.step(c, Some(&m.unsqueeze(0)?), ctx)?.state.squeeze(0),
            Memory::Untied(layers) => {
                relu(&layers[t].forward(&concat(&[m.clone(), c.clone(), q.clone()])?)?)
            }
        }
    }
}

impl StoryModel for DmnPlus {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        let limits = Limits {
            model: "dmn-plus",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: Some(self.config.sentence_len),
        };
        let batch = batch.prepare(&limits)?.batch;
        let facts = self.facts(&batch, ctx)?; // (b, n, h)
        let q = self.encode_question(&batch, ctx)?; // (b, h)
        let lengths = &batch.story_lengths;
        let mask = length_mask(lengths, facts.dim(1)?, facts.device())?;
        let prepared = self.attention.prepare(&facts, &q)?;
        let inputs = self.inputs(&facts)?;
        let mut m = q.clone();
        let mut gate_scores = Vec::with_capacity(self.config.passes);
        for t in 0..self.config.passes {
            let scores = self.attention.scores(&prepared, &m)?; // (b, n)
            let g = masked_softmax(&scores, &mask)?;
            ctx.watch("attention", t, || Ok(g.clone()))?;
            let c = self.context(&inputs, &g, lengths)?; // (b, h)
            m = self.update(t, &m, &c, &q, ctx)?;
            gate_scores.push(scores);
        }
        let last = ctx.dropout(&concat(&[q, m])?, self.config.dropout)?;
        let logits = self.answer.forward(&last)?; // (b, v)
        Ok(StoryOutput { logits, gate_scores, retrieved: Vec::new() })
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }
}
