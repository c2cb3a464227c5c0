//! One vector after another, with the counter of complete windows as the state.

use std::collections::VecDeque;

use candle_core::{Result, Tensor, bail};
use mnemic_kernels::time_steps::stack;

use super::gather::Held;
use super::readout::Maps;
use super::{HierarchicalAttention, OP};
use crate::Context;

/// What is kept of the vectors seen: the nodes that a readout may still see.
#[derive(Debug, Clone)]
pub struct HierarchicalState {
    /// Vectors seen.
    pub steps: usize,
    /// Nodes that were built above the leaves.
    pub built: usize,
    /// The nodes held of each level, `(b, r, d)` each, the oldest first.
    pub levels: Vec<VecDeque<Tensor>>,
    /// The number of the first node held of each level.
    first: Vec<usize>,
}

impl HierarchicalAttention {
    /// The state before the first vector.
    pub fn start(&self) -> HierarchicalState {
        let levels = self.config.levels + 1;
        HierarchicalState {
            steps: 0,
            built: 0,
            levels: vec![VecDeque::new(); levels],
            first: vec![0; levels],
        }
    }

    /// The next leaf `(b, d)`: what is read after it, `(b, d)`, as [`HierarchicalAttention::forward`] reads it of the whole sequence.
    ///
    /// A node is built when its window is complete: `1/b + 1/b² + … < 1/(b-1)` nodes a step on average.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn step(
        &self,
        leaf: &Tensor,
        state: &mut HierarchicalState,
        ctx: &Context,
    ) -> Result<Tensor> {
        let (b, d) = leaf.dims2()?;
        let leaf = leaf.reshape((b, 1, d))?;
        self.check(&leaf)?;
        state.levels[0].push_back(leaf.clone());
        state.steps += 1;
        self.build(state)?;
        self.trim(state);
        let levels = state.levels.iter().enumerate().map(|(level, nodes)| {
            let r = self.config.vectors(level);
            if nodes.is_empty() {
                return Tensor::zeros((b, 0, d), leaf.dtype(), leaf.device());
            }
            let nodes: Vec<Tensor> = nodes.iter().cloned().collect();
            stack(&nodes)?.reshape((b, nodes.len() * r, d))
        });
        let held = Held { levels: levels.collect::<Result<_>>()?, first: state.first.clone() };
        self.read(&leaf, &held, &[state.steps], ctx)?.squeeze(1)
    }

    /// Builds the nodes whose windows the last vector has completed.
    fn build(&self, state: &mut HierarchicalState) -> Result<()> {
        let branching = self.config.branching;
        for (summary, level) in self.summaries.iter().zip(0..) {
            let children = &state.levels[level];
            if !(state.first[level] + children.len()).is_multiple_of(branching) {
                break;
            }
            let Some(start) = children.len().checked_sub(branching) else {
                bail!("{OP}: internal error: children of a node are gone")
            };
            let window: Vec<Tensor> = children.iter().skip(start).cloned().collect();
            let (b, r, d) = window[0].dims3()?;
            let window = stack(&window)?.reshape((b, branching * r, d))?;
            // Weights are watched at the readout; those of a node would all be recorded as its window 0.
            let node = summary.forward(&window, None, (b, level + 1), &Context::eval())?;
            state.levels[level + 1].push_back(node);
            state.built += 1;
        }
        Ok(())
    }

    /// Forgets what no later readout sees.
    fn trim(&self, state: &mut HierarchicalState) {
        let frontier = self.config.frontier(state.steps);
        let oldest = frontier[self.config.levels].start;
        for (level, nodes) in state.levels.iter_mut().enumerate() {
            let needed = match self.maps {
                // A descent goes down to the leaves of every node that is seen.
                Maps::Descent { .. } => oldest * self.config.span(self.config.levels - level),
                _ => frontier[level].start,
            };
            while state.first[level] < needed && nodes.pop_front().is_some() {
                state.first[level] += 1;
            }
        }
    }
}
