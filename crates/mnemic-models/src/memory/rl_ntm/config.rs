//! The config of the RL-NTM.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

/// The sizes of an [`RlNtm`](super::RlNtm).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width V of a cell of the input tape: its symbols.
    pub input_size: usize,
    /// Width of the outputs: as many symbols.
    pub output_size: usize,
    /// Width of the controller.
    pub hidden_size: usize,
    /// Width of a cell of the memory tape; that of a symbol with direct access.
    pub memory_width: usize,
    /// How far the heads see to either side.
    pub radius: usize,
    /// The factor on the logits of moves, which keeps them near uniform while the predictions are learnt.
    pub slowdown: f64,
    /// Whether symbols can be copied past the LSTM: from the input to the memory, and from both to the scores.
    pub direct_access: bool,
    /// Whether the input head may only stay or move on.
    pub forward_only: bool,
    /// The weight of the entropy of moves in training.
    pub entropy: f64,
}

impl Config {
    /// The authors' runs: an LSTM of 25 with direct access, heads that see two cells to either side.
    pub fn direct(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            hidden_size: 25,
            memory_width: input_size,
            radius: 2,
            slowdown: 0.03,
            direct_access: true,
            forward_only: false,
            entropy: 0.,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense, naming it.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [
            ("input_size", self.input_size),
            ("output_size", self.output_size),
            ("hidden_size", self.hidden_size),
            ("memory_width", self.memory_width),
        ] {
            if size == 0 {
                bail!("rl-ntm config: {name} must be positive");
            }
        }
        for (name, value) in [("slowdown", self.slowdown), ("entropy", self.entropy)] {
            if !(value >= 0. && value.is_finite()) {
                bail!("rl-ntm config: {name} must be at least 0, got {value}");
            }
        }
        let (v, o, w) = (self.input_size, self.output_size, self.memory_width);
        if self.direct_access && (v != o || v != w) {
            bail!(
                "rl-ntm config: direct access needs one width, got input_size {v}, output_size {o}, memory_width {w}"
            );
        }
        Ok(())
    }

    /// The cells that a head sees.
    pub(super) fn seen(&self) -> usize {
        2 * self.radius + 1
    }
}
