//! The config of the Differentiable Neural Computer.

use candle_core::{Result, bail};
use mnemic_layers::DncMemoryConfig;
use serde::{Deserialize, Serialize};

/// The sizes of a [`Dnc`](super::Dnc).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// Width of each layer of the controller.
    pub hidden_size: usize,
    /// Layers of the controller.
    pub num_layers: usize,
    /// Slots of the memory.
    pub num_slots: usize,
    /// Width of a slot.
    pub slot_width: usize,
    /// Read heads.
    pub read_heads: usize,
}

impl Config {
    /// The authors' example: an LSTM of 64, 16 slots of 16, four read heads.
    pub fn lstm(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            hidden_size: 64,
            num_layers: 1,
            num_slots: 16,
            slot_width: 16,
            read_heads: 4,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one is 0, naming it.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [
            ("input_size", self.input_size),
            ("output_size", self.output_size),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
            ("num_slots", self.num_slots),
            ("slot_width", self.slot_width),
            ("read_heads", self.read_heads),
        ] {
            if size == 0 {
                bail!("dnc config: {name} must be positive");
            }
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> DncMemoryConfig {
        DncMemoryConfig {
            controller_size: self.num_layers * self.hidden_size,
            num_slots: self.num_slots,
            slot_width: self.slot_width,
            read_heads: self.read_heads,
        }
    }
}
