//! Models that read a vector and give one at every step: what learns algorithms.

use candle_core::{Result, Tensor};
use mnemic_layers::Context;

/// A model from sequences of vectors to sequences of scores.
pub trait SequenceModel {
    /// Width of the inputs.
    fn input_size(&self) -> usize;

    /// Width of the outputs.
    fn output_size(&self) -> usize;

    /// The scores (before a sigmoid) `(b, t, output_size)` of `inputs (b, t, input_size)`. A step sees no later input, so padding at the end
    /// changes nothing before it.
    ///
    /// # Errors
    /// When the shape does not fit.
    fn forward(&self, inputs: &Tensor, ctx: &Context) -> Result<Tensor>;
}
