//! Recurrent Entity Network (EntNet): M. Henaff, J. Weston, A. Szlam, A. Bordes, Y. LeCun, "Tracking the World State with Recurrent
//! Entity Networks", ICLR 2017, arXiv 1612.03969.
//!
//! A fixed set of slots, each with a key, reads the story once. A slot changes as far as a sentence fits its key or its content,
//! so that each can follow one entity; no sentence is looked at again when the question is asked. For sentences `x_1 … x_n` and a
//! question `q`:
//!
//! - sentence `s_t = Σ_i f_i ∘ E[x_ti]`, question `q = Σ_i f'_i ∘ E[q_i]`, with learnt masks `f`, `f'` for the places of words;
//! - for each sentence and slot `j`, from `h_j = w_j`: gate `g_j = σ(s_t·h_j + s_t·w_j)`, candidate
//!   `h̃_j = φ(U h_j + V w_j + W s_t + b)`, `h_j ← h_j + g_j h̃_j`, `h_j ← h_j / |h_j|`;
//! - answer: `p = softmax_j(q·h_j)`, `u = Σ_j p_j h_j`, logits `R φ(q + H u)`.
//!
//! `φ` is a PReLU with a slope for each unit, the same in memory and answer.
//!
//! Watched: `gates (b, n, m)`, the gates `g` of every sentence and slot, and `attention (b, n)`, their mean over the slots weighted by
//! `p`: how far a sentence was written into the slots that the answer was read from. The latter is no distribution: all sentences
//! may have written, or none.
//!
//! Letters: b batch, n sentences, m slots, d embedding_dim, v vocabulary.
//!
//! Parameters: `embedding.weight (v, d)`, `story_mask` and `question_mask (sentence_len, d)`, `keys (m, d)`, `u.weight`, `v.weight`,
//! `w.weight`, `h.weight (d, d)`, `bias (d)`, `prelu.weight (d)`, `r.weight (v, d)`.
//!
//! # Differences from the paper
//! - The equations of the paper have no biases. The candidate has one here, as in the authors' program; that program's bias for the
//!   gate of each slot is left out.
//! - Padding sentences leave the slots as they are; the authors' program normalises them once more.
//! - Keys are free vectors (the setting of the bAbI results), not tied to the words of entities, and `φ` is always the PReLU: the
//!   simpler model for the Children's Book Test is not built.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Addressed, Content, Context, Embedding, EntityScan, EntityWeights, Linear, content_attention,
    entity_scan, init, linear, relu,
};

pub use config::Config;

use crate::story::{Limits, NULL_WORD, StoryBatch, StoryModel, StoryOutput};

/// The recurrent entity network.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::memory::entnet::{Config, EntNet};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let config = Config::entnet(Sizes { vocab_size: 6, sentence_len: 2, memory_size: 70 });
/// let store = ParamStore::new(1);
/// let model = EntNet::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![], &Device::Cpu)?;
///
/// let ctx = Context::eval().watching();
/// assert_eq!(model.forward(&batch, &ctx)?.logits.dims(), [1, 6]);
/// let trace = ctx.take_trace();
/// assert_eq!((trace[0].name.as_str(), trace[0].value.dims()), ("gates", [1, 2, 20].as_slice()));
/// assert_eq!((trace[1].name.as_str(), trace[1].value.dims()), ("attention", [1, 2].as_slice()));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EntNet {
    config: Config,
    embedding: Embedding,
    story_mask: Tensor,    // (sentence_len, d)
    question_mask: Tensor, // (sentence_len, d)
    keys: Tensor,          // (m, d)
    state: Linear,         // U
    key: Linear,           // V
    input: Linear,         // W
    bias: Tensor,          // (d)
    slopes: Tensor,        // (d)
    read: Linear,          // H
    answer: Linear,        // R
}

impl EntNet {
    /// The model with its parameters from `vb`: weights normal with deviation `init_std`, masks and slopes 1, the bias 0.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (v, d) = (config.vocab_size, config.embedding_dim);
        let (drawn, one) = (init::normal(config.init_std), init::constant(1.));
        let mask = |name: &str| vb.get_with_hints((config.sentence_len, d), name, one);
        let square = |name: &str| linear(d, d, false, drawn, vb.pp(name));
        Ok(Self {
            embedding: Embedding::new(v, d, drawn, Some(NULL_WORD), vb.pp("embedding"))?,
            story_mask: mask("story_mask")?,
            question_mask: mask("question_mask")?,
            keys: vb.get_with_hints((config.num_slots, d), "keys", drawn)?,
            state: square("u")?,
            key: square("v")?,
            input: square("w")?,
            bias: vb.get_with_hints(d, "bias", init::constant(0.))?,
            slopes: vb.get_with_hints(d, "prelu.weight", one)?,
            read: square("h")?,
            answer: linear(d, v, false, drawn, vb.pp("r"))?,
            config: config.clone(),
        })
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The vectors of sentences or questions, `(…, d)`.
    fn encode(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let words = ids.dim(candle_core::D::Minus1)?;
        self.embedding.pooled(ids, Some(&mask.narrow(0, 0, words)?))
    }

    /// Reads the stories into the slots.
    fn remember(&self, batch: &StoryBatch) -> Result<EntityScan> {
        let sentences = self.encode(&batch.story, &self.story_mask)?; // (b, n, d)
        let weights = EntityWeights {
            state: self.state.weight(),
            key: self.key.weight(),
            input: self.input.weight(),
            bias: &self.bias,
            slopes: &self.slopes,
            gate_bias: None,
        };
        entity_scan(&sentences, &self.keys, &self.keys, weights, Some(&batch.story_lengths))
    }

    fn prelu(&self, xs: &Tensor) -> Result<Tensor> {
        relu(xs)? - relu(&xs.neg()?)?.broadcast_mul(&self.slopes)?
    }
}

impl StoryModel for EntNet {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        let limits = Limits {
            model: "entnet",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: Some(self.config.sentence_len),
        };
        let batch = batch.prepare(&limits)?.batch;
        let EntityScan { state, gates } = self.remember(&batch)?;
        let q = self.encode(&batch.question, &self.question_mask)?; // (b, d)
        let Addressed { weights, output, .. } =
            content_attention(&q, &state, &state, Content::default())?; // (b, m), (b, d)
        ctx.watch("gates", 0, || Ok(gates.clone()))?;
        ctx.watch("attention", 0, || gates.matmul(&weights.unsqueeze(2)?)?.squeeze(2))?;
        let y = self.prelu(&(q + self.read.forward(&output)?)?)?;
        let logits = self.answer.forward(&y)?; // (b, v)
        Ok(StoryOutput { logits, gate_scores: Vec::new(), retrieved: Vec::new() })
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn null_rows(&self) -> Vec<String> {
        vec!["embedding.weight".into()]
    }
}
