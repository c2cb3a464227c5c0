//! Differentiable Neural Computer that answers questions about stories: Graves et al. 2016 (Nature 538), "Synthetic question answering experiments".
//!
//! A [`Dnc`] reads all words of the story, oldest sentence first, and then the question, a word a step; its scores after the last word are the answer:
//! `y = DNC(E[x_11], …, E[x_nj], E[q_1], …)`.
//!
//! Letters: b batch, t words of story and question, v vocabulary.
//!
//! Parameters: `embedding.weight (v, embedding_dim)`, and those of [`Dnc`] below `dnc`.
//!
//! # Differences from the paper
//! - One question after its story, where the paper's episodes go on behind a question; answers of several words are one answer.
//! - Words are embedded, where the paper's are one-hot vectors: a linear map that the controller has there itself.
//! - Sentences are joined without a mark between them, since final stops are stripped.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Embedding, init, last_states};
use serde::{Deserialize, Serialize};

use super::dnc::{self, Dnc};
use crate::config::{Sizes, count, fraction, positive, vocabulary};
use crate::sequence::step_through;
use crate::story::{Limits, NULL_WORD, StoryBatch, StoryModel, StoryOutput};

/// The sizes of [`DncReader`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width of the word vectors.
    pub embedding_dim: usize,
    /// Width of the controller, an LSTM.
    pub hidden_size: usize,
    /// Slots of the memory.
    pub num_slots: usize,
    /// Width of a slot.
    pub slot_width: usize,
    /// Read heads.
    pub read_heads: usize,
    /// The most sentences read, the most recent ones.
    pub memory_size: usize,
    /// Dropout on the word vectors.
    pub dropout: f64,
}

impl Config {
    /// The names of the presets.
    pub const PRESETS: &[&str] = &["dnc"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        (name == "dnc").then(|| Self::dnc(sizes))
    }

    /// The paper's computer for bAbI: an LSTM of 256, 256 slots of 64, four read heads. The width of the word vectors is ours.
    pub fn dnc(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            embedding_dim: 64,
            hidden_size: 256,
            num_slots: 256,
            slot_width: 64,
            read_heads: 4,
            memory_size: sizes.memory_size,
            dropout: 0.,
        }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("dnc-reader", self.vocab_size)?;
        let sizes = [
            ("embedding_dim", self.embedding_dim),
            ("hidden_size", self.hidden_size),
            ("num_slots", self.num_slots),
            ("slot_width", self.slot_width),
            ("read_heads", self.read_heads),
            ("memory_size", self.memory_size),
        ];
        positive("dnc-reader", &sizes)?;
        fraction("dnc-reader", "dropout", self.dropout)
    }

    fn computer(&self) -> dnc::Config {
        dnc::Config {
            hidden_size: self.hidden_size,
            num_slots: self.num_slots,
            slot_width: self.slot_width,
            read_heads: self.read_heads,
            ..dnc::Config::lstm(self.embedding_dim, self.vocab_size)
        }
    }

    /// The number of parameters, to be checked before any is made.
    pub(crate) fn num_parameters(&self) -> u128 {
        let (v, d, h) = (self.vocab_size, self.embedding_dim, self.hidden_size);
        let (w, r) = (self.slot_width, self.read_heads);
        let read = count(&[r, w]);
        let controller = count(&[4, h]).saturating_mul(read + d as u128 + h as u128 + 2);
        let emitted = read + 3 * w as u128 + 5 * r as u128 + 3;
        let interface = emitted.saturating_mul(h as u128 + 1);
        let output = (v as u128).saturating_mul(h as u128 + read + 1);
        [count(&[v, d]), controller, interface, output].into_iter().fold(0, u128::saturating_add)
    }
}

/// The computer as a reader of stories.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::memory::dnc_reader::{Config, DncReader};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let sizes = Sizes { vocab_size: 6, sentence_len: 2, memory_size: 70 };
/// let config = Config { hidden_size: 16, num_slots: 8, slot_width: 4, ..Config::dnc(sizes) };
/// let store = ParamStore::new(1);
/// let model = DncReader::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![], &Device::Cpu)?;
/// assert_eq!(model.forward(&batch, &Context::eval())?.logits.dims(), [1, 6]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DncReader {
    config: Config,
    embedding: Embedding,
    dnc: Dnc,
}

impl DncReader {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (v, d) = (config.vocab_size, config.embedding_dim);
        let words = init::uniform(0.1);
        Ok(Self {
            config: config.clone(),
            embedding: Embedding::new(v, d, words, Some(NULL_WORD), vb.pp("embedding"))?,
            dnc: Dnc::new(&config.computer(), vb.pp("dnc"))?,
        })
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the scores are linear in after the last word of each row, `(b, f)`; steps after it, which others of the batch still need, change nothing.
    fn read(&self, words: &Tensor, lengths: &[usize], ctx: &Context) -> Result<Tensor> {
        let mut state = self.dnc.start(words.dim(0)?)?;
        let features = step_through(words, None, |word| {
            let (given, next) = self.dnc.step(word, &state, ctx)?;
            state = next;
            Ok(given)
        })?;
        last_states(&features, lengths)
    }
}

impl StoryModel for DncReader {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        let limits = Limits {
            model: "dnc-reader",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: None,
        };
        let (ids, lengths) = batch.prepare(&limits)?.in_a_row()?;
        let words = ctx.dropout(&self.embedding.forward(&ids)?, self.config.dropout)?; // (b, t, d)
        let logits = self.dnc.scores(&self.read(&words, &lengths, ctx)?)?; // (b, v)
        Ok(StoryOutput { logits, gate_scores: Vec::new(), retrieved: Vec::new() })
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use mnemic_layers::ParamStore;

    use super::*;
    use crate::testing::{
        VOCAB, accuracy, check_differences, check_padding, check_seeds, stories, train,
        without_gradient,
    };

    const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 6, memory_size: 10 };

    fn build(seed: u64, dtype: DType) -> (DncReader, ParamStore) {
        let config = Config {
            embedding_dim: 8,
            hidden_size: 12,
            num_slots: 9,
            slot_width: 5,
            read_heads: 2,
            ..Config::dnc(SIZES)
        };
        let store = ParamStore::new(seed);
        let model = DncReader::new(&config, store.builder(dtype, &Device::Cpu)).unwrap();
        assert_eq!(store.num_parameters() as u128, config.num_parameters());
        (model, store)
    }

    #[test]
    fn padding_changes_nothing() {
        check_padding(&build(1, DType::F64).0);
    }

    #[test]
    fn gradients_reach_every_parameter_and_are_right() {
        let (batch, answers) = stories(3, 4);
        let (model, store) = build(2, DType::F64);
        let loss = || model.loss(&batch, &answers, &Context::eval());
        assert_eq!(without_gradient(&store, &loss().unwrap()), Vec::<String>::new());
        for name in ["embedding.weight", "dnc.memory.interface.weight", "dnc.output.bias"] {
            check_differences(&store, name, 2, loss);
        }
    }

    #[test]
    fn learns_small_stories_alike_from_one_seed() {
        let (batch, answers) = stories(12, 6);
        let (model, store) = build(1, DType::F32);
        train(&model, &store, (&batch, &answers), 0.02, 150);
        assert_eq!(accuracy(&model, &batch, &answers), 1.);
        check_seeds(|seed| {
            let (model, store) = build(seed, DType::F32);
            train(&model, &store, (&batch, &answers), 0.02, 2);
            model.forward(&batch, &Context::eval()).unwrap().logits
        });
    }
}
