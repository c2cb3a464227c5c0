//! The sizes and variants of MemN2N.

use candle_core::{Result, bail};
use mnemic_layers::PositionEncoding;
use serde::{Deserialize, Serialize};

use crate::config::{Sizes, count, fraction, not_negative, positive, vocabulary};

/// How the tables of the hops are shared (section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tying {
    /// `A^{k+1} = C^k`, `B = A^1`, `W = C^K`: `K + 1` tables.
    Adjacent,
    /// `A^1 = … = A^K`, `C^1 = … = C^K` and `u^{k+1} = H u^k + o^k`, as in an RNN; `B` and `W` are
    /// apart.
    LayerWise,
}

/// How the words of a sentence become one vector (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// The sum of the words.
    BagOfWords,
    /// Position encoding as the paper prints it.
    Position,
    /// Position encoding as the authors' program has it: about twice as large, symmetric about 1.
    PositionCode,
}

impl Encoding {
    pub(super) fn weights(self) -> Option<PositionEncoding> {
        match self {
            Self::BagOfWords => None,
            Self::Position => Some(PositionEncoding::Paper),
            Self::PositionCode => Some(PositionEncoding::Code),
        }
    }
}

/// The sizes and variants of [`MemN2N`](super::MemN2N).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width `d` of the vectors of words and sentences.
    pub embedding_dim: usize,
    /// The number `K` of hops.
    pub hops: usize,
    /// The most sentences kept, the most recent ones; also the number of time vectors.
    pub memory_size: usize,
    /// `J` of the position encoding: the words of the longest sentence or question.
    pub sentence_len: usize,
    /// How the tables are shared.
    pub tying: Tying,
    /// How sentences are encoded.
    pub encoding: Encoding,
    /// Whether a vector for the age of a sentence is added (temporal encoding).
    pub temporal: bool,
    /// Random noise (RN): in training, up to this share of empty memories is thrown in between, 0.1
    /// in the paper.
    pub temporal_noise: f64,
    /// Whether the recipe trains without the memory's softmax first (LS). The model takes the phase
    /// as an argument.
    pub linear_start: bool,
    /// Whether a ReLU follows each update of the controller.
    pub relu: bool,
    /// Whether empty memories are kept out of the softmax; else those that fill up `memory_size`
    /// compete with score 0, as in the authors' program.
    pub mask_empty: bool,
    /// The standard deviation of the initial values, 0.1 in the paper.
    pub init_std: f64,
}

impl Config {
    /// The names of the presets, after the columns of table 1.
    pub const PRESETS: &[&str] =
        &["bow", "pe", "pe_ls", "pe_ls_rn", "pe_ls_rn_joint", "pe_ls_lw_joint", "lw_relu_d100"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        Some(match name {
            "bow" => Self::bow(sizes),
            "pe" => Self::pe(sizes),
            "pe_ls" => Self::pe_ls(sizes),
            "pe_ls_rn" => Self::pe_ls_rn(sizes),
            "pe_ls_rn_joint" => Self::pe_ls_rn_joint(sizes),
            "pe_ls_lw_joint" => Self::pe_ls_lw_joint(sizes),
            "lw_relu_d100" => Self::lw_relu_d100(sizes),
            _ => return None,
        })
    }

    /// Bag of words, 3 hops, adjacent tying, d = 20, one task at a time.
    pub fn bow(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            embedding_dim: 20,
            hops: 3,
            memory_size: sizes.memory_size,
            sentence_len: sizes.sentence_len,
            tying: Tying::Adjacent,
            encoding: Encoding::BagOfWords,
            temporal: true,
            temporal_noise: 0.,
            linear_start: false,
            relu: false,
            mask_empty: false,
            init_std: 0.1,
        }
    }

    /// Position encoding.
    pub fn pe(sizes: Sizes) -> Self {
        Self { encoding: Encoding::PositionCode, ..Self::bow(sizes) }
    }

    /// Position encoding and linear start.
    pub fn pe_ls(sizes: Sizes) -> Self {
        Self { linear_start: true, ..Self::pe(sizes) }
    }

    /// Position encoding, linear start and random noise: the paper's best without joint training.
    pub fn pe_ls_rn(sizes: Sizes) -> Self {
        Self { temporal_noise: 0.1, ..Self::pe_ls(sizes) }
    }

    /// The same for all tasks at once, d = 50.
    pub fn pe_ls_rn_joint(sizes: Sizes) -> Self {
        Self { embedding_dim: 50, ..Self::pe_ls_rn(sizes) }
    }

    /// All tasks at once with layer-wise tying, d = 50.
    pub fn pe_ls_lw_joint(sizes: Sizes) -> Self {
        Self { embedding_dim: 50, tying: Tying::LayerWise, ..Self::pe_ls(sizes) }
    }

    /// The paper's best on 10k examples: layer-wise tying with a ReLU, d = 100.
    pub fn lw_relu_d100(sizes: Sizes) -> Self {
        Self { embedding_dim: 100, tying: Tying::LayerWise, relu: true, ..Self::pe(sizes) }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("memn2n", self.vocab_size)?;
        let sizes = [
            ("embedding_dim", self.embedding_dim),
            ("hops", self.hops),
            ("memory_size", self.memory_size),
            ("sentence_len", self.sentence_len),
        ];
        positive("memn2n", &sizes)?;
        fraction("memn2n", "temporal_noise", self.temporal_noise)?;
        not_negative("memn2n", "init_std", self.init_std)?;
        if self.temporal_noise > 0. && !self.temporal {
            bail!("memn2n config: temporal_noise needs temporal = true");
        }
        Ok(())
    }

    /// The number of scalar parameters.
    pub fn num_parameters(&self) -> u128 {
        let d = self.embedding_dim;
        let table = count(&[self.vocab_size, d]);
        let time = if self.temporal { count(&[self.memory_size, d]) } else { 0 };
        match self.tying {
            Tying::Adjacent => {
                table.saturating_add(time).saturating_mul((self.hops as u128).saturating_add(1))
            }
            Tying::LayerWise => table
                .saturating_mul(4)
                .saturating_add(time.saturating_mul(2))
                .saturating_add(count(&[d, d])),
        }
    }
}
