//! The sizes of EntNet.

use candle_core::Result;
use serde::{Deserialize, Serialize};

use crate::config::{Sizes, count, not_negative, positive, vocabulary};

/// The sizes of [`EntNet`](super::EntNet).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width `d` of words, sentences, keys and states, 100 in the paper.
    pub embedding_dim: usize,
    /// The number `m` of slots, 20 in the paper.
    pub num_slots: usize,
    /// The most sentences read, the most recent ones; 70 in the paper, 130 for task 3.
    pub memory_size: usize,
    /// The rows of the masks: the words of the longest sentence or question.
    pub sentence_len: usize,
    /// The standard deviation of the initial values, 0.1 in the paper.
    pub init_std: f64,
}

impl Config {
    /// The names of the presets.
    pub const PRESETS: &[&str] = &["entnet"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        (name == "entnet").then(|| Self::entnet(sizes))
    }

    /// The paper's model for the bAbI tasks: 20 slots with free keys, d = 100.
    pub fn entnet(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            embedding_dim: 100,
            num_slots: 20,
            memory_size: sizes.memory_size,
            sentence_len: sizes.sentence_len,
            init_std: 0.1,
        }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("entnet", self.vocab_size)?;
        let sizes = [
            ("embedding_dim", self.embedding_dim),
            ("num_slots", self.num_slots),
            ("memory_size", self.memory_size),
            ("sentence_len", self.sentence_len),
        ];
        positive("entnet", &sizes)?;
        not_negative("entnet", "init_std", self.init_std)
    }

    /// The number of scalar parameters.
    pub fn num_parameters(&self) -> u128 {
        let d = self.embedding_dim;
        let words = count(&[2, self.vocab_size, d]);
        let masks = count(&[2, self.sentence_len, d]);
        words + masks + count(&[self.num_slots, d]) + count(&[4, d, d]) + count(&[2, d])
    }
}
