//! The config of the stack-augmented recurrent network.

use candle_core::{Result, bail};
use mnemic_layers::{ActionStackConfig, ActionStructure};
use serde::{Deserialize, Serialize};

/// What the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// Pushed and popped at the top.
    Stack,
    /// A doubly linked list under a head.
    List,
}

/// The sizes of a [`StackRnn`](super::StackRnn).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// What the memory is.
    pub structure: Structure,
    /// Width of the hidden layer, m.
    pub hidden_size: usize,
    /// Stacks or lists.
    pub stacks: usize,
    /// The most cells of each; what moves further is lost.
    pub capacity: usize,
    /// Cells of each that the hidden layer sees, k.
    pub visible_cells: usize,
    /// Whether there is the action of doing nothing.
    pub no_op: bool,
    /// Whether the hidden layer sees itself a step before (R); without it the stacks are all the memory there is.
    pub recurrence: bool,
    /// Whether, outside of training, the likeliest action is done in full.
    pub rounding: bool,
}

impl Config {
    /// The paper's stack RNN for counting: 40 hidden units, 10 stacks, PUSH and POP only, no recurrence.
    pub fn stack(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            structure: Structure::Stack,
            hidden_size: 40,
            stacks: 10,
            capacity: 200,
            visible_cells: 2,
            no_op: false,
            recurrence: false,
            rounding: false,
        }
    }

    /// The paper's list RNN for counting: 40 hidden units, 5 lists. The head has as many cells on either side as a stack has.
    pub fn list(input_size: usize, output_size: usize) -> Self {
        let stack = Self::stack(input_size, output_size);
        Self { structure: Structure::List, stacks: 5, capacity: 401, ..stack }
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
            ("stacks", self.stacks),
            ("capacity", self.capacity),
            ("visible_cells", self.visible_cells),
        ] {
            if size == 0 {
                bail!("stack RNN config: {name} must be positive");
            }
        }
        if self.structure == Structure::List && self.capacity.is_multiple_of(2) {
            let got = self.capacity;
            bail!(
                "stack RNN config: capacity of a list must be odd, with the head in the middle, got {got}"
            );
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> ActionStackConfig {
        ActionStackConfig {
            structure: match self.structure {
                Structure::Stack => ActionStructure::Stack,
                Structure::List => ActionStructure::List,
            },
            stacks: self.stacks,
            capacity: self.capacity,
            visible: self.visible_cells,
            no_op: self.no_op,
            rounding: self.rounding,
        }
    }
}
