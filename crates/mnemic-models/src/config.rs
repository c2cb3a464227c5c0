//! What the configs of all models share.

use candle_core::{Result, bail};

/// The sizes that data give to a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The number of words, the null word and the answers included.
    pub vocab_size: usize,
    /// The words of the longest sentence or question.
    pub sentence_len: usize,
    /// The most sentences that are kept of a story, the most recent ones.
    pub memory_size: usize,
}

/// Refuses a size of 0.
pub(crate) fn positive(model: &str, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => bail!("{model} config: {name} must be positive"),
        None => Ok(()),
    }
}

/// Refuses a vocabulary that has no word beside the null word.
pub(crate) fn vocabulary(model: &str, vocab_size: usize) -> Result<()> {
    if vocab_size < 2 || vocab_size > u32::MAX as usize {
        bail!("{model} config: vocab_size must hold the null word and another, got {vocab_size}");
    }
    Ok(())
}

/// Refuses what is not in `[0, 1]`.
pub(crate) fn fraction(model: &str, name: &str, value: f64) -> Result<()> {
    if !(0. ..=1.).contains(&value) {
        bail!("{model} config: {name} must lie in [0, 1], got {value}");
    }
    Ok(())
}

/// Refuses what is negative or not finite.
pub(crate) fn not_negative(model: &str, name: &str, value: f64) -> Result<()> {
    if !value.is_finite() || value < 0. {
        bail!("{model} config: {name} must be a number that is not negative, got {value}");
    }
    Ok(())
}

/// The product of sizes as a count of parameters; hostile sizes saturate instead of wrapping.
pub(crate) fn count(factors: &[usize]) -> u128 {
    factors.iter().fold(1, |n: u128, &f| n.saturating_mul(f as u128))
}
