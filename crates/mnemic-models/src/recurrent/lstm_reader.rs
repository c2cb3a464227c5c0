//! LSTM baseline for question answering: the weakly supervised baseline of Weston et al. 2015 (arXiv 1502.05698), as MemN2N's and DMN's
//! papers quote it.
//!
//! One LSTM reads all words of the story, oldest sentence first, and then the question; its last hidden state gives the answer:
//! `h = LSTM(E[x_11], …, E[x_nj], E[q_1], …)`, `softmax(W h + b)`.
//!
//! Letters: b batch, t words of story and question, h hidden_size, d embedding_dim, v vocabulary.
//!
//! Parameters, in PyTorch's names: `embedding.weight (v, d)`, `lstm.{weight_ih,weight_hh,bias_ih,bias_hh}_l{k}`, `answer.{weight (v, h), bias}`.
//!
//! # Differences from the paper
//! - Sizes and training are not printed there; the preset's are ours, with a forget bias of 1.
//! - Sentences are joined without a mark between them, since final stops are stripped.

use candle_core::{Module, Result};
use candle_nn::VarBuilder;
use mnemic_layers::{
    Context, Embedding, Linear, Lstm, RecurrentConfig, RecurrentInit, init, linear,
};
use serde::{Deserialize, Serialize};

use crate::config::{Sizes, count, fraction, positive, vocabulary};
use crate::story::{Limits, NULL_WORD, StoryBatch, StoryModel, StoryOutput};

/// The sizes of [`LstmReader`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width `d` of the word vectors.
    pub embedding_dim: usize,
    /// Width `h` of the hidden and cell states.
    pub hidden_size: usize,
    /// Stacked layers.
    pub num_layers: usize,
    /// The most sentences read, the most recent ones.
    pub memory_size: usize,
    /// Dropout on the word vectors, between layers and on the last state.
    pub dropout: f64,
}

impl Config {
    /// The names of the presets.
    pub const PRESETS: &[&str] = &["lstm"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        (name == "lstm").then(|| Self::lstm(sizes))
    }

    /// One layer of 100 units.
    pub fn lstm(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            embedding_dim: 50,
            hidden_size: 100,
            num_layers: 1,
            memory_size: sizes.memory_size,
            dropout: 0.1,
        }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("lstm", self.vocab_size)?;
        let sizes = [
            ("embedding_dim", self.embedding_dim),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
            ("memory_size", self.memory_size),
        ];
        positive("lstm", &sizes)?;
        fraction("lstm", "dropout", self.dropout)
    }

    /// The number of parameters, to be checked before any is made.
    pub(crate) fn num_parameters(&self) -> u128 {
        let (v, d, h) = (self.vocab_size, self.embedding_dim, self.hidden_size);
        let recurrent = count(&[4, h]).saturating_mul(h as u128 + 2);
        let first = recurrent + count(&[4, h, d]);
        let above = (recurrent + count(&[4, h, h])) * (self.num_layers as u128 - 1);
        count(&[v, d]) + first + above + count(&[h, v]) + count(&[v])
    }
}

/// The LSTM baseline.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{Context, ParamStore};
/// use mnemic_models::recurrent::lstm_reader::{Config, LstmReader};
/// use mnemic_models::{Sizes, StoryBatch, StoryModel};
/// let config = Config::lstm(Sizes { vocab_size: 6, sentence_len: 2, memory_size: 70 });
/// let store = ParamStore::new(1);
/// let model = LstmReader::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let story = [vec![vec![1, 3], vec![2, 4]]];
/// let batch = StoryBatch::from_rows(&story, &[vec![5, 1]], vec![], &Device::Cpu)?;
/// assert_eq!(model.forward(&batch, &Context::eval())?.logits.dims(), [1, 6]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LstmReader {
    config: Config,
    embedding: Embedding,
    lstm: Lstm,
    answer: Linear,
}

impl LstmReader {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (v, d, h) = (config.vocab_size, config.embedding_dim, config.hidden_size);
        let words = init::uniform(0.1);
        let sizes = RecurrentConfig {
            num_layers: config.num_layers,
            dropout: config.dropout,
            ..RecurrentConfig::new(d, h)
        };
        let start = RecurrentInit::orthogonal().with_gate_bias(1.);
        Ok(Self {
            config: config.clone(),
            embedding: Embedding::new(v, d, words, Some(NULL_WORD), vb.pp("embedding"))?,
            lstm: Lstm::with_init(sizes, start, vb.pp("lstm"))?,
            answer: linear(h, v, true, init::xavier_uniform(h, v), vb.pp("answer"))?,
        })
    }

    /// The config that the model was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl StoryModel for LstmReader {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> Result<StoryOutput> {
        let limits = Limits {
            model: "lstm",
            vocab_size: self.config.vocab_size,
            memory_size: self.config.memory_size,
            sentence_len: None,
        };
        let (ids, lengths) = batch.prepare(&limits)?.in_a_row()?;
        let words = ctx.dropout(&self.embedding.forward(&ids)?, self.config.dropout)?; // (b, t, d)
        let hidden = self.lstm.forward(&words, None, Some(&lengths), ctx)?.hidden; // (layers, b, h)
        let last = ctx.dropout(&hidden.get(self.config.num_layers - 1)?, self.config.dropout)?;
        let logits = self.answer.forward(&last)?; // (b, v)
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

    fn build(layers: usize, seed: u64, dtype: DType) -> (LstmReader, ParamStore) {
        let config = Config {
            embedding_dim: 8,
            hidden_size: 16,
            num_layers: layers,
            dropout: 0.,
            ..Config::lstm(SIZES)
        };
        let store = ParamStore::new(seed);
        let model = LstmReader::new(&config, store.builder(dtype, &Device::Cpu)).unwrap();
        assert_eq!(store.num_parameters() as u128, config.num_parameters());
        (model, store)
    }

    #[test]
    fn padding_changes_nothing() {
        check_padding(&build(2, 1, DType::F64).0);
    }

    #[test]
    fn gradients_reach_every_parameter_and_are_right() {
        let (batch, answers) = stories(3, 8);
        let (model, store) = build(2, 2, DType::F64);
        let loss = || model.loss(&batch, &answers, &Context::eval());
        assert_eq!(without_gradient(&store, &loss().unwrap()), Vec::<String>::new());
        for (name, _) in store.vars() {
            check_differences(&store, &name, 2, loss);
        }
    }

    #[test]
    fn learns_small_stories_alike_from_one_seed() {
        let (batch, answers) = stories(12, 6);
        let (model, store) = build(1, 1, DType::F32);
        train(&model, &store, (&batch, &answers), 0.02, 150);
        assert_eq!(accuracy(&model, &batch, &answers), 1.);
        check_seeds(|seed| {
            let (model, store) = build(1, seed, DType::F32);
            train(&model, &store, (&batch, &answers), 0.02, 2);
            model.forward(&batch, &Context::eval()).unwrap().logits
        });
    }
}
