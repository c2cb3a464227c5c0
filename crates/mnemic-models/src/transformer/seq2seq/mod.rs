//! What the Transformers that read one text and write another have in common (Vaswani et al. 2017, section 3).
//!
//! Letters: b batch, s tokens of the source, t tokens of the target, d width, v vocabulary.

mod embedder;
mod layers;
mod state;

use candle_core::{IndexOp, Module, Result, Tensor};
use mnemic_layers::{AttentionOptions, Context, Linear, Mask};

pub(super) use embedder::{Embedder, Positions};
pub(super) use layers::{Layer, Stack};
pub use state::DecoderState;
pub(super) use state::KeysValues;

use crate::text::TextBatch;

/// Causal self-attention over a padded target.
pub(super) fn causal(target: &TextBatch) -> AttentionOptions<'_> {
    let options = target.options();
    AttentionOptions { mask: Mask { causal: true, ..options.mask }, ..options }
}

/// An encoder and a decoder with their embeddings and the output layer.
#[derive(Debug, Clone)]
pub(super) struct Seq2Seq {
    pub(super) source: Embedder,
    pub(super) encoder: Stack,
    pub(super) target: Embedder,
    pub(super) decoder: Stack,
    pub(super) head: Linear,
}

impl Seq2Seq {
    /// The encoding `(b, s, d)`.
    pub(super) fn encode(&self, source: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.source.forward(source.input_ids(), 0, ctx)?;
        self.encoder.encode(&xs, source, ctx)
    }

    /// Scores `(b, t, v)` of the token after each of the target's.
    pub(super) fn forward(
        &self,
        source: &TextBatch,
        target: &TextBatch,
        ctx: &Context,
    ) -> Result<Tensor> {
        let cross = self.decoder.keys_values(&self.encode(source, ctx)?)?;
        let xs = self.target.forward(target.input_ids(), 0, ctx)?;
        let xs = self.decoder.decode(&xs, &causal(target), None, (source, &cross), ctx)?;
        self.head.forward(&xs)
    }

    pub(super) fn start(&self, source: &TextBatch, ctx: &Context) -> Result<DecoderState> {
        DecoderState::new(source, self.decoder.keys_values(&self.encode(source, ctx)?)?)
    }

    pub(super) fn step(
        &self,
        ids: &Tensor,
        state: &mut DecoderState,
        ctx: &Context,
    ) -> Result<Tensor> {
        state.check(ids)?;
        let xs = self.target.forward(ids, state.read, ctx)?;
        let source = (&state.source, state.cross.as_slice());
        let (own, caches) = (AttentionOptions::causal(), Some(state.caches.as_mut_slice()));
        let xs = self.decoder.decode(&xs, &own, caches, source, ctx)?;
        let t = ids.dim(1)?;
        state.read += t;
        self.head.forward(&xs.i((.., t - 1))?.contiguous()?)
    }

    /// The number of scores.
    pub(super) fn vocab_size(&self) -> usize {
        self.head.weight().dims().first().copied().unwrap_or(0)
    }
}

/// The methods of a model that is a [`Seq2Seq`] in its field `inner`.
macro_rules! seq2seq {
    ($model:ident, $place:literal) => {
        impl $model {
            /// The encoder's output, `(b, s, d)`; rows at padding mean nothing.
            ///
            /// # Errors
            /// When a row is too long or an id is not in the vocabulary.
            pub fn encode(
                &self,
                source: &$crate::TextBatch,
                ctx: &$crate::Context,
            ) -> candle_core::Result<candle_core::Tensor> {
                self.inner.encode(source, ctx).map_err(|e| e.context($place))
            }

            /// Scores of the token that follows each of the target's, `(b, t, v)`. The target begins with the start token; for
            /// training it is what is to be written, moved by one place.
            ///
            /// # Errors
            /// When the batches do not fit together, a row is too long, or an id is not in the vocabulary.
            pub fn forward(
                &self,
                source: &$crate::TextBatch,
                target: &$crate::TextBatch,
                ctx: &$crate::Context,
            ) -> candle_core::Result<candle_core::Tensor> {
                self.inner.forward(source, target, ctx).map_err(|e| e.context($place))
            }
        }

        impl $crate::Autoregressive for $model {
            type State = $crate::transformer::DecoderState;

            fn vocab_size(&self) -> usize {
                self.inner.vocab_size()
            }

            fn is_encoder_decoder(&self) -> bool {
                true
            }

            fn max_positions(&self) -> Option<usize> {
                self.inner.target.max_positions
            }

            fn start(
                &self,
                batch: &$crate::TextBatch,
                ctx: &$crate::Context,
            ) -> candle_core::Result<Self::State> {
                self.inner.start(batch, ctx).map_err(|e| e.context($place))
            }

            fn step(
                &self,
                ids: &candle_core::Tensor,
                state: &mut Self::State,
                ctx: &$crate::Context,
            ) -> candle_core::Result<candle_core::Tensor> {
                self.inner.step(ids, state, ctx).map_err(|e| e.context($place))
            }

            fn select(&self, state: &mut Self::State, rows: &[u32]) -> candle_core::Result<()> {
                state.select(rows).map_err(|e| e.context($place))
            }
        }
    };
}

pub(super) use seq2seq;
