//! The sizes and variants of DMN.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::{Sizes, count, fraction, not_negative, positive, vocabulary};

/// How the gates of a pass are supervised by the fact that is to be found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateLoss {
    /// Cross-entropy of a softmax over the facts' scores. Its gradient by a score is
    /// `p - 1{target}`. It asks only that the right fact scores most; how far its gate opens is
    /// learned from the answers.
    Softmax,
    /// Binary cross-entropy of every fact's gate. Its gradient by a score is `g - 1{target}`. Facts
    /// are read forwards and cannot know that a later sentence will outdate them, so this cannot be
    /// met where the last of several like facts is the right one (bAbI task 1).
    Binary,
}

/// The sizes and variants of [`Dmn`](super::Dmn).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width `d` of the word vectors.
    pub embedding_dim: usize,
    /// Width `h` of facts, question, episodes and memory.
    pub hidden_size: usize,
    /// The most passes over the facts; 0 answers from the question alone.
    pub passes: usize,
    /// The most sentences kept, the most recent ones.
    pub memory_size: usize,
    /// Whether a learned marker is read after the words of each sentence, in place of the paper's
    /// full stop.
    pub end_of_sentence: bool,
    /// Whether a learned end-of-passes vector is scored beside the facts and ends the passes where
    /// it wins. Needs supervision.
    pub end_of_passes: bool,
    /// How gates are supervised.
    pub gate_loss: GateLoss,
    /// The weight `α` of the loss of the gates; 0 without supervision.
    pub gate_weight: f64,
    /// The weight `β` of the loss of the answers.
    pub answer_weight: f64,
    /// Dropout on the word vectors and on the last memory.
    pub dropout: f64,
}

impl Config {
    /// The names of the presets.
    pub const PRESETS: &[&str] = &["dmn_supervised", "odmn"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        Some(match name {
            "dmn_supervised" => Self::dmn_supervised(sizes),
            "odmn" => Self::odmn(sizes),
            _ => return None,
        })
    }

    /// The model of the bAbI table of Kumar et al.: gates supervised by the supporting facts, up to
    /// 5 passes. The paper tuned sizes by task and does not print them; these are those of DMN+.
    pub fn dmn_supervised(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            embedding_dim: 80,
            hidden_size: 80,
            passes: 5,
            memory_size: sizes.memory_size,
            end_of_sentence: true,
            end_of_passes: true,
            gate_loss: GateLoss::Softmax,
            gate_weight: 1.,
            answer_weight: 1.,
            dropout: 0.1,
        }
    }

    /// ODMN of the DMN+ paper: no supporting facts, 3 passes.
    pub fn odmn(sizes: Sizes) -> Self {
        Self { passes: 3, end_of_passes: false, gate_weight: 0., ..Self::dmn_supervised(sizes) }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("dmn", self.vocab_size)?;
        let sizes = [
            ("embedding_dim", self.embedding_dim),
            ("hidden_size", self.hidden_size),
            ("memory_size", self.memory_size),
        ];
        positive("dmn", &sizes)?;
        not_negative("dmn", "gate_weight", self.gate_weight)?;
        not_negative("dmn", "answer_weight", self.answer_weight)?;
        fraction("dmn", "dropout", self.dropout)?;
        if self.end_of_passes && self.gate_weight == 0. {
            bail!("dmn config: end_of_passes needs a gate_weight above 0 to be learned");
        }
        if self.passes == 0 && self.gate_weight > 0. {
            bail!("dmn config: a gate_weight above 0 needs passes");
        }
        Ok(())
    }

    /// The rows of the word table: the vocabulary and the marker.
    pub(super) fn num_words(&self) -> usize {
        self.vocab_size + usize::from(self.end_of_sentence)
    }

    /// The number of scalar parameters.
    pub fn num_parameters(&self) -> u128 {
        let (v, d, h) = (self.vocab_size, self.embedding_dim, self.hidden_size);
        let gru = |input: usize| {
            let columns = (input as u128).saturating_add(h as u128).saturating_add(2);
            count(&[3, h]).saturating_mul(columns)
        };
        let mut parts = vec![
            count(&[v, d]).saturating_add(if self.end_of_sentence { d as u128 } else { 0 }),
            gru(d),
            gru(v.saturating_add(h)),
            count(&[v, h]),
        ];
        if self.passes > 0 {
            // Attention: W_b, W_1 (h, 7h + 2), b_1, w_2, b_2.
            parts.extend([count(&[8, h, h]), count(&[4, h]), 1]);
            parts.extend([gru(d), gru(h), gru(h)]);
        }
        if self.end_of_passes {
            parts.push(h as u128);
        }
        parts.into_iter().fold(0, u128::saturating_add)
    }
}
