//! What every model that writes one token after another has in common, so that one search serves them all.

use candle_core::{Result, Tensor};
use mnemic_layers::Context;

use crate::text::TextBatch;

/// A model that gives the next token's scores: decoders that go on from a prompt, and encoder-decoders.
///
/// ```text
/// let mut state = model.start(&batch, &ctx)?;              // encoder-decoders read their input here
/// let mut ids = first ids                                  // the prompt, or the decoder's start token
/// loop { logits = model.step(&ids, &mut state, &ctx)?; ids = chosen (b, 1) }
/// ```
pub trait Autoregressive {
    /// Everything that was read so far: keys and values of all layers, the encoder's output, masks. A value, so searches can
    /// keep several.
    type State: Clone;

    /// The number of scores of a step.
    fn vocab_size(&self) -> usize;

    /// Whether the input goes to an encoder. Then the first ids of [`step`](Self::step) are the start token; else they are the prompt,
    /// padded on the left.
    fn is_encoder_decoder(&self) -> bool;

    /// The most ids a row may have, start token or prompt included; `None` where there is no limit.
    fn max_positions(&self) -> Option<usize>;

    /// The state before anything is written. An encoder-decoder encodes `batch`; a decoder takes note of its mask only.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn start(&self, batch: &TextBatch, ctx: &Context) -> Result<Self::State>;

    /// Reads `ids` (u32, `(b, t)`) after what `state` has read: scores (logits) of the id that follows the last one, `(b, v)`.
    ///
    /// # Errors
    /// When the batch is not the state's, an id is not in the vocabulary, or the row grows too long.
    fn step(&self, ids: &Tensor, state: &mut Self::State, ctx: &Context) -> Result<Tensor>;

    /// Makes row `i` of the state what row `rows[i]` was; there may be more or fewer rows than before. For beams.
    ///
    /// # Errors
    /// When there is no such row.
    fn select(&self, state: &mut Self::State, rows: &[u32]) -> Result<()>;
}
