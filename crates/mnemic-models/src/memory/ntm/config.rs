//! The config of the Neural Turing Machine.

use candle_core::{Result, bail};
use mnemic_layers::NtmMemoryConfig;
use serde::{Deserialize, Serialize};

/// What stands between input, memory and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// An LSTM, which has a memory of its own.
    Lstm,
    /// A layer with tanh, which has none.
    FeedForward,
}

/// The sizes of an [`Ntm`](super::Ntm).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// What the controller is.
    pub controller: Controller,
    /// Its width.
    pub hidden_size: usize,
    /// Its layers.
    pub num_layers: usize,
    /// Slots of the memory.
    pub num_slots: usize,
    /// Width of a slot.
    pub slot_width: usize,
    /// Read heads.
    pub read_heads: usize,
    /// Write heads.
    pub write_heads: usize,
    /// The largest shift of a weighting in one step.
    pub max_shift: usize,
}

impl Config {
    /// The row `copy` of the paper's table 2: an LSTM of 100, one head of each kind, a memory of 128 × 20.
    pub fn lstm(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            controller: Controller::Lstm,
            hidden_size: 100,
            num_layers: 1,
            num_slots: 128,
            slot_width: 20,
            read_heads: 1,
            write_heads: 1,
            max_shift: 1,
        }
    }

    /// The row `copy` of the paper's table 1: a feed-forward controller of 100.
    pub fn feed_forward(input_size: usize, output_size: usize) -> Self {
        Self { controller: Controller::FeedForward, ..Self::lstm(input_size, output_size) }
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
            ("num_layers", self.num_layers),
            ("num_slots", self.num_slots),
            ("slot_width", self.slot_width),
            ("read_heads", self.read_heads),
            ("write_heads", self.write_heads),
        ] {
            if size == 0 {
                bail!("ntm config: {name} must be positive");
            }
        }
        if self.max_shift >= self.num_slots {
            let (shift, slots) = (self.max_shift, self.num_slots);
            bail!("ntm config: max_shift {shift} must be below the {slots} slots");
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> NtmMemoryConfig {
        NtmMemoryConfig {
            controller_size: self.hidden_size,
            num_slots: self.num_slots,
            slot_width: self.slot_width,
            read_heads: self.read_heads,
            write_heads: self.write_heads,
            max_shift: self.max_shift,
        }
    }
}
