//! Models that read a vector and give one at every step: what learns algorithms.

use candle_core::{Result, Tensor, bail};
use mnemic_layers::Context;

/// A model from sequences of vectors to sequences of scores.
pub trait SequenceModel {
    /// Width of the inputs.
    fn input_size(&self) -> usize;

    /// Width of the outputs.
    fn output_size(&self) -> usize;

    /// The scores (before a sigmoid) of `inputs (b, t, input_size)` at the steps that are `wanted` (all where `None`), `(b, steps, output_size)`. A
    /// step sees no later input, so padding at the end changes nothing before it.
    ///
    /// # Errors
    /// When the shapes do not fit, or no step is wanted.
    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor>;
}

/// The steps that are wanted of `t`, checked.
pub(crate) fn wanted_steps(wanted: Option<&[bool]>, t: usize) -> Result<Vec<bool>> {
    let wanted = wanted.map_or_else(|| vec![true; t], <[bool]>::to_vec);
    if wanted.len() != t || !wanted.contains(&true) {
        bail!("sequence model: expected {t} steps of which some are wanted, got {wanted:?}");
    }
    Ok(wanted)
}
