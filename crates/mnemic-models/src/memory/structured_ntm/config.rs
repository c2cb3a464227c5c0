//! The config of the Neural Turing Machine with a memory of two layers.

use candle_core::{Result, bail};
use mnemic_layers::{MemoryStructure, StructuredMemoryConfig};
use serde::{Deserialize, Serialize};

/// How the layers of the memory hang together, see [`MemoryStructure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// A hidden layer follows the one that is written.
    Ntm1,
    /// The second layer mixes the first in and is written, too.
    Ntm2,
    /// Each layer mixes the other in before it is written.
    Ntm3,
}

impl From<Structure> for MemoryStructure {
    fn from(structure: Structure) -> Self {
        match structure {
            Structure::Ntm1 => Self::Ntm1,
            Structure::Ntm2 => Self::Ntm2,
            Structure::Ntm3 => Self::Ntm3,
        }
    }
}

/// The sizes of a [`StructuredNtm`](super::StructuredNtm).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// How the layers of the memory hang together.
    pub structure: Structure,
    /// Width of the controller.
    pub hidden_size: usize,
    /// Its layers.
    pub num_layers: usize,
    /// Slots of each layer of the memory.
    pub num_slots: usize,
    /// Width of a slot.
    pub slot_width: usize,
    /// The largest shift of a weighting in one step.
    pub max_shift: usize,
    /// How much a layer keeps where another is mixed in, from 0 to 1; left out, it is learnt from ½.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

impl Config {
    /// NTM1 in the sizes of the NTM: an LSTM of 100, layers of 128 × 20.
    pub fn ntm1(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            structure: Structure::Ntm1,
            hidden_size: 100,
            num_layers: 1,
            num_slots: 128,
            slot_width: 20,
            max_shift: 1,
            share: None,
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
            ("num_layers", self.num_layers),
            ("num_slots", self.num_slots),
            ("slot_width", self.slot_width),
        ] {
            if size == 0 {
                bail!("structured ntm config: {name} must be positive");
            }
        }
        if self.max_shift >= self.num_slots {
            let (shift, slots) = (self.max_shift, self.num_slots);
            bail!("structured ntm config: max_shift {shift} must be below the {slots} slots");
        }
        if let Some(share) = self.share.filter(|share| !(0. ..=1.).contains(share)) {
            bail!("structured ntm config: share {share} must be from 0 to 1");
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> StructuredMemoryConfig {
        StructuredMemoryConfig {
            structure: self.structure.into(),
            controller_size: self.hidden_size,
            num_slots: self.num_slots,
            slot_width: self.slot_width,
            max_shift: self.max_shift,
            share: self.share,
        }
    }
}
