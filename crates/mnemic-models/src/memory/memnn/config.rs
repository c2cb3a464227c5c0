//! The sizes and extensions of MemNN.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::{Sizes, count, not_negative, positive, vocabulary};

/// The sizes and extensions of [`MemNN`](super::MemNN).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// Width `n` of the embedding space.
    pub embedding_dim: usize,
    /// The number `k` of supports retrieved; with `adaptive` the most.
    pub hops: usize,
    /// The most sentences kept, the most recent ones.
    pub memory_size: usize,
    /// Whether the order in which sentences were written is a feature (section 3.4 of the paper).
    pub temporal: bool,
    /// AM: whether hops go on until a learned stop memory wins.
    pub adaptive: bool,
    /// NG: the longest n-grams in the bags, 1 for words alone and 3 in the paper.
    pub ngrams: usize,
    /// The number of buckets that n-grams longer than a word are hashed into; 0 where `ngrams` is
    /// 1.
    pub ngram_buckets: usize,
    /// NL: whether both sides are embedded by `tanh(W tanh(U Φ))`.
    pub nonlinear: bool,
    /// The margin `γ` of the ranking loss, 0.1 in the paper.
    pub margin: f64,
    /// The standard deviation of the initial values.
    pub init_std: f64,
}

impl Config {
    /// The names of the presets, after the columns of table 3 of the bAbI paper.
    pub const PRESETS: &[&str] = &["memnn", "am", "am_nl", "am_ng", "am_ng_nl"];

    /// The preset of this name.
    pub fn preset(name: &str, sizes: Sizes) -> Option<Self> {
        Some(match name {
            "memnn" => Self::memnn(sizes),
            "am" => Self::am(sizes),
            "am_nl" => Self::am_nl(sizes),
            "am_ng" => Self::am_ng(sizes),
            "am_ng_nl" => Self::am_ng_nl(sizes),
            _ => return None,
        })
    }

    /// The base model with time features and `k = 2`; set `hops = 1` where one sentence supports an
    /// answer.
    pub fn memnn(sizes: Sizes) -> Self {
        Self {
            vocab_size: sizes.vocab_size,
            embedding_dim: 100,
            hops: 2,
            memory_size: sizes.memory_size,
            temporal: true,
            adaptive: false,
            ngrams: 1,
            ngram_buckets: 0,
            nonlinear: false,
            margin: 0.1,
            init_std: 0.1,
        }
    }

    /// Adaptive memory: up to 10 hops.
    pub fn am(sizes: Sizes) -> Self {
        Self { adaptive: true, hops: 10, ..Self::memnn(sizes) }
    }

    /// Adaptive memory and the non-linear match.
    pub fn am_nl(sizes: Sizes) -> Self {
        Self { nonlinear: true, ..Self::am(sizes) }
    }

    /// Adaptive memory and bags of up to trigrams.
    pub fn am_ng(sizes: Sizes) -> Self {
        Self { ngrams: 3, ngram_buckets: 4096, ..Self::am(sizes) }
    }

    /// All three extensions.
    pub fn am_ng_nl(sizes: Sizes) -> Self {
        Self { nonlinear: true, ..Self::am_ng(sizes) }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        vocabulary("memnn", self.vocab_size)?;
        let sizes = [
            ("embedding_dim", self.embedding_dim),
            ("hops", self.hops),
            ("memory_size", self.memory_size),
            ("ngrams", self.ngrams),
        ];
        positive("memnn", &sizes)?;
        not_negative("memnn", "margin", self.margin)?;
        not_negative("memnn", "init_std", self.init_std)?;
        if (self.ngrams > 1) != (self.ngram_buckets > 0) {
            bail!("memnn config: ngram_buckets must be positive exactly where ngrams exceeds 1");
        }
        if self.num_features().is_none_or(|f| f > u32::MAX as usize) {
            bail!("memnn config: ngram_buckets {} is too large", self.ngram_buckets);
        }
        Ok(())
    }

    /// The number of features of a bag: words, then buckets of n-grams.
    pub(super) fn num_features(&self) -> Option<usize> {
        self.vocab_size.checked_add(self.ngram_buckets)
    }

    /// The number of scalar parameters.
    pub fn num_parameters(&self) -> u128 {
        let n = self.embedding_dim;
        let bags = if self.hops > 1 { 5 } else { 4 };
        let bag = count(&[self.num_features().unwrap_or(usize::MAX), n]).saturating_mul(bags);
        let after = self.temporal && self.hops > 1;
        let vectors = usize::from(self.temporal) + usize::from(after) + usize::from(self.adaptive);
        let square = if self.nonlinear { count(&[n, n]).saturating_mul(2) } else { 0 };
        bag.saturating_add(count(&[self.vocab_size, n]))
            .saturating_add(count(&[vectors, n]))
            .saturating_add(square)
    }
}
