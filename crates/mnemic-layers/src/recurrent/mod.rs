//! Recurrent layers with PyTorch's parameters: stacks, both directions, padded batches.
//!
//! Layer `l` has `weight_ih_l{l} (g h, d)`, `weight_hh_l{l} (g h, h)`, `bias_ih_l{l}` and
//! `bias_hh_l{l} (g h)`; the backward direction has the same names with `_reverse`. Layers above
//! the first read the concatenated directions of the one below.
//!
//! Rows may end early (`lengths`): outputs after a row's end are zero, its final state is that of
//! its last valid step, the backward direction starts there, and what stands in the padding has no
//! effect.

mod gated;
mod init;
mod lstm;
mod simple;
mod stack;

pub use gated::{AttentionGru, GatedGru};
pub use init::{GateInit, RecurrentInit};
pub use lstm::{Lstm, RecurrentLstm};
pub use mnemic_kernels::recurrent::{Nonlinearity, Reset};
pub use simple::{Gru, Rnn};

use candle_core::{Result, Tensor, bail};

/// The sizes of a recurrent stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecurrentConfig {
    /// Width `d` of the inputs.
    pub input_size: usize,
    /// Width `h` of the state, of each direction.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Whether each layer reads in both directions; the outputs are concatenated, forward first.
    pub bidirectional: bool,
    /// Whether there are biases (two vectors a layer and direction, as in PyTorch).
    pub bias: bool,
    /// Probability of dropout on the outputs of each layer but the last, in training.
    pub dropout: f64,
}

impl RecurrentConfig {
    /// One layer in one direction, with biases and without dropout.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self {
            input_size,
            hidden_size,
            num_layers: 1,
            bidirectional: false,
            bias: true,
            dropout: 0.,
        }
    }

    /// The number of directions, 1 or 2.
    pub fn directions(&self) -> usize {
        if self.bidirectional { 2 } else { 1 }
    }

    /// The width of the outputs: `h`, or `2h` with both directions.
    pub fn output_size(&self) -> usize {
        self.hidden_size * self.directions()
    }

    fn validate(&self, op: &str) -> Result<()> {
        for (name, size) in [
            ("input_size", self.input_size),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
        ] {
            if size == 0 {
                bail!("{op}: {name} must be positive");
            }
        }
        if !(0. ..=1.).contains(&self.dropout) {
            bail!("{op}: dropout must lie in [0, 1], got {}", self.dropout);
        }
        Ok(())
    }
}

/// What an [`Rnn`] or a [`Gru`] gives back.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// The last layer's states, `(b, t, h · directions)`; `(b, h)` from `step`.
    pub output: Tensor,
    /// The state of every layer and direction after the last step read,
    /// `(layers · directions, b, h)`; pass it on to continue the sequence.
    pub state: Tensor,
}
