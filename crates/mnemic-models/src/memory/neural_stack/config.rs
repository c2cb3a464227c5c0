//! The config of the network with a continuous stack, queue or deque.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

/// What the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// Last in, first out.
    Stack,
    /// First in, first out.
    Queue,
    /// Two ends.
    Deque,
}

impl From<Structure> for mnemic_layers::Structure {
    fn from(structure: Structure) -> Self {
        match structure {
            Structure::Stack => Self::Stack,
            Structure::Queue => Self::Queue,
            Structure::Deque => Self::Deque,
        }
    }
}

/// The sizes of a [`NeuralStackLstm`](super::NeuralStackLstm).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// What the memory is.
    pub structure: Structure,
    /// Width of the embedded inputs.
    pub embedding_size: usize,
    /// Width of the controller.
    pub hidden_size: usize,
    /// Layers of the controller.
    pub num_layers: usize,
    /// Width of a row of the memory.
    pub memory_width: usize,
}

impl Config {
    /// A stack with the paper's sizes: embeddings of 64, a controller of 256, rows of 256.
    pub fn stack(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            structure: Structure::Stack,
            embedding_size: 64,
            hidden_size: 256,
            num_layers: 1,
            memory_width: 256,
        }
    }

    /// The same with a queue.
    pub fn queue(input_size: usize, output_size: usize) -> Self {
        Self { structure: Structure::Queue, ..Self::stack(input_size, output_size) }
    }

    /// The same with a double-ended queue.
    pub fn deque(input_size: usize, output_size: usize) -> Self {
        Self { structure: Structure::Deque, ..Self::stack(input_size, output_size) }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one is 0, naming it.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [
            ("input_size", self.input_size),
            ("output_size", self.output_size),
            ("embedding_size", self.embedding_size),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
            ("memory_width", self.memory_width),
        ] {
            if size == 0 {
                bail!("neural stack config: {name} must be positive");
            }
        }
        Ok(())
    }
}
