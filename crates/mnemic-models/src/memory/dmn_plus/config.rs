//! The sizes and variants of DMN+.

use candle_core::Result;
use serde::{Deserialize, Serialize};

use crate::config::{Sizes, count, fraction, positive, vocabulary};

/// How a pass makes its context of the attended facts (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextKind {
    /// The sum of the facts, weighted by the attention.
    Soft,
    /// The last state of a GRU whose update gate is the attention.
    AttentionGru,
}

/// How a pass updates the memory (section 3.3, "Episode memory updates").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryUpdate {
    /// A GRU step, the same weights in every pass.
    TiedGru,
    /// `ReLU(W^t [m; c; q] + b^t)`, with weights of its own in every pass.
    UntiedRelu,
}

/// The sizes and variants of [`DmnPlus`](super::DmnPlus).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width `h` of word vectors, facts, question and memory, 80 in the paper.
    pub hidden_size: usize,
    /// The number `T` of passes over the facts, 3 in the paper.
    pub passes: usize,
    /// The most sentences kept, the most recent ones.
    pub memory_size: usize,
    /// `M` of the position encoding: the words of the longest sentence or question.
    pub sentence_len: usize,
    /// Whether a bidirectional GRU lets the sentences exchange information (input fusion).
    pub input_fusion: bool,
    /// How a pass makes its context.
    pub context: ContextKind,
    /// How a pass updates the memory.
    pub memory_update: MemoryUpdate,
    /// Dropout on sentence encodings and on the answer module's input, 0.1 in the paper.
    pub dropout: f64,
}

impl Config {
    /// The names of the presets, after the columns of table 1. `odmn` is a preset of [`dmn`](super::super::dmn).
    pub const PRESETS: &[&str] = &["dmn2", "dmn3", "dmn_plus"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        Some(match name {
            "dmn2" => Self::dmn2(sizes),
            "dmn3" => Self::dmn3(sizes),
            "dmn_plus" => Self::dmn_plus(sizes),
            _ => return None,
        })
    }

    /// Input fusion, soft attention, tied memory GRU.
    pub fn dmn2(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            hidden_size: 80,
            passes: 3,
            memory_size: sizes.memory_size,
            sentence_len: sizes.sentence_len,
            input_fusion: true,
            context: ContextKind::Soft,
            memory_update: MemoryUpdate::TiedGru,
            dropout: 0.1,
        }
    }

    /// DMN2 with the attention GRU.
    pub fn dmn3(sizes: Sizes) -> Self {
        Self { context: ContextKind::AttentionGru, ..Self::dmn2(sizes) }
    }

    /// DMN3 with untied ReLU memory updates: the full model.
    pub fn dmn_plus(sizes: Sizes) -> Self {
        Self { memory_update: MemoryUpdate::UntiedRelu, ..Self::dmn3(sizes) }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("dmn-plus", self.vocab_size)?;
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("passes", self.passes),
            ("memory_size", self.memory_size),
            ("sentence_len", self.sentence_len),
        ];
        positive("dmn-plus", &sizes)?;
        fraction("dmn-plus", "dropout", self.dropout)
    }

    /// The number of parameters, to be checked before any is made.
    pub(crate) fn num_parameters(&self) -> u128 {
        let (v, h) = (self.vocab_size, self.hidden_size);
        let gru = count(&[6, h, h]) + count(&[6, h]);
        let fusion = if self.input_fusion { 2 * gru } else { 0 };
        let attention = count(&[4, h, h]) + count(&[2, h]) + 1;
        let context = match self.context {
            ContextKind::Soft => 0,
            ContextKind::AttentionGru => count(&[4, h, h]) + count(&[4, h]),
        };
        let memory = match self.memory_update {
            MemoryUpdate::TiedGru => gru,
            MemoryUpdate::UntiedRelu => count(&[self.passes, h]) * (count(&[3, h]) + 1),
        };
        let words = count(&[v, h]);
        words + fusion + gru + attention + context + memory + count(&[2, h, v]) + count(&[v])
    }
}
