//! The config of the LSTM with a hierarchical attentive memory.

use candle_core::{Result, bail};
use mnemic_layers::HierarchicalMemoryConfig;
use serde::{Deserialize, Serialize};

/// The sizes of a [`LstmHam`](super::LstmHam).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of what a leaf is made of.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// Width of what is asked for; 0 where nothing is.
    pub query_size: usize,
    /// Width of a node.
    pub node_size: usize,
    /// Width of the hidden layers of JOIN and SEARCH.
    pub search_size: usize,
    /// Width of the LSTM.
    pub hidden_size: usize,
    /// The weight of the entropy of decisions in training.
    pub entropy: f64,
    /// What the likelihood of an output counts in the return of the step before; 1 for all alike.
    #[serde(default = "whole")]
    pub discount: f64,
}

fn whole() -> f64 {
    1.
}

impl Config {
    /// Nodes and LSTM of 32; the paper's own sizes are not certain.
    pub fn lstm(input_size: usize, output_size: usize, query_size: usize) -> Self {
        Self {
            input_size,
            output_size,
            query_size,
            node_size: 32,
            search_size: 32,
            hidden_size: 32,
            entropy: 0.,
            discount: 1.,
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
            ("node_size", self.node_size),
            ("search_size", self.search_size),
            ("hidden_size", self.hidden_size),
        ] {
            if size == 0 {
                bail!("ham config: {name} must be positive");
            }
        }
        if !(self.entropy >= 0. && self.entropy.is_finite()) {
            bail!("ham config: entropy must be at least 0, got {}", self.entropy);
        }
        if !(0. ..=1.).contains(&self.discount) {
            bail!("ham config: expected a discount from 0 to 1, got {}", self.discount);
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> HierarchicalMemoryConfig {
        HierarchicalMemoryConfig {
            input_size: self.input_size,
            node_size: self.node_size,
            controller_size: self.hidden_size,
            hidden_size: self.search_size,
        }
    }
}
