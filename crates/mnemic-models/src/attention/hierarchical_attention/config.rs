//! The sizes of a hierarchical attention encoder.

use candle_core::{Result, bail};
use mnemic_layers::HierarchicalAttentionConfig;
use serde::{Deserialize, Serialize};

/// How what was seen is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// One attention over all nodes of the frontier (variant A).
    Flat,
    /// One attention a level, from the top down (variant B).
    TopDown,
    /// A soft descent to the leaves (variant C).
    Descent,
}

/// The sizes of a [`HierarchicalAttentionEncoder`](super::HierarchicalAttentionEncoder).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// Width d of leaves, nodes and readouts.
    pub hidden_size: usize,
    /// Heads of every attention.
    pub num_heads: usize,
    /// Children of a node.
    pub branching: usize,
    /// Summarising levels above the leaves.
    pub levels: usize,
    /// Vectors that a node is made of.
    pub summaries: usize,
    /// The readout.
    pub readout: Readout,
    /// Nodes that a descent expands at once; all where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beam: Option<usize>,
    /// Inputs that a leaf is made of, the last ones.
    pub conv_width: usize,
}

impl Config {
    /// The essay's geometry: windows of 100 vectors, and readouts over 100 of their summaries, 10,000 vectors in all. Width, heads and the single
    /// summary a node are ours.
    pub fn essay(input_size: usize, output_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            hidden_size: 64,
            num_heads: 2,
            branching: 100,
            levels: 1,
            summaries: 1,
            readout: Readout::Flat,
            beam: None,
            conv_width: 1,
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
            ("conv_width", self.conv_width),
        ] {
            if size == 0 {
                bail!("hierarchical attention config: {name} must be positive");
            }
        }
        if self.beam.is_some() && self.readout != Readout::Descent {
            bail!("hierarchical attention config: beam is for the readout `descent` alone");
        }
        self.layer().validate()
    }

    pub(super) fn layer(&self) -> HierarchicalAttentionConfig {
        HierarchicalAttentionConfig {
            width: self.hidden_size,
            num_heads: self.num_heads,
            branching: self.branching,
            levels: self.levels,
            summaries: self.summaries,
            readout: match self.readout {
                Readout::Flat => mnemic_layers::Readout::Flat,
                Readout::TopDown => mnemic_layers::Readout::TopDown,
                Readout::Descent => {
                    mnemic_layers::Readout::Descent { beam: self.beam.unwrap_or(self.branching) }
                }
            },
        }
    }
}
