//! The nodes that a few steps see, brought together.
//!
//! A node stands in the *slot* of its window that its number modulo `b` gives. So every step has the same `b` slots of each level, of which some
//! are empty, and λ belongs to a slot.

use candle_core::{Result, Tensor, bail};
use mnemic_kernels::arithmetic::add;

use super::{HierarchicalAttention, OP};

/// The nodes of all levels that are held, from the node numbered `first` of each level on.
pub(super) struct Held {
    /// `(b, n r, d)` each.
    pub(super) levels: Vec<Tensor>,
    pub(super) first: Vec<usize>,
}

impl Held {
    /// All nodes from the start.
    pub(super) fn all(levels: Vec<Tensor>) -> Self {
        let first = vec![0; levels.len()];
        Self { levels, first }
    }
}

/// The slots of one level at some steps.
pub(super) struct Slots {
    /// λ added, `(b q, b r, d)`.
    pub(super) nodes: Tensor,
    /// Which vectors are seen, `(q, b r)`.
    pub(super) seen: Vec<bool>,
}

impl HierarchicalAttention {
    /// The node in each slot of a level after `t` vectors.
    pub(super) fn slots_at(&self, level: usize, t: usize) -> Vec<Option<usize>> {
        let mut slots = vec![None; self.config.branching];
        for node in self.config.frontier(t)[level].clone() {
            slots[node % self.config.branching] = Some(node);
        }
        slots
    }

    /// The slots of a level at the steps after `times` vectors.
    pub(super) fn slots(&self, held: &Held, level: usize, times: &[usize]) -> Result<Slots> {
        let (nodes, first) = (&held.levels[level], held.first[level]);
        let (b, count, d) = nodes.dims3()?;
        let (r, slots) = (self.config.vectors(level), self.config.window(level));
        let at: Vec<Option<usize>> = times.iter().flat_map(|&t| self.slots_at(level, t)).collect();
        let there = at.iter().flat_map(|node| std::iter::repeat_n(node.is_some(), r)).collect();
        let rows = b * times.len();
        let gathered = if count == 0 {
            Tensor::zeros((rows, slots, d), nodes.dtype(), nodes.device())?
        } else {
            let index = |node: &Option<usize>| match node {
                None => Ok(0),
                Some(node) => held_row(*node, first, count / r),
            };
            let index: Vec<u32> = at.iter().map(index).collect::<Result<_>>()?;
            let index = Tensor::from_vec(index, at.len(), nodes.device())?;
            let nodes = nodes.reshape((b, count / r, r * d))?.contiguous()?;
            nodes.index_select(&index, 1)?.reshape((rows, slots, d))?
        };
        Ok(Slots { nodes: add(&gathered, &self.places[level])?, seen: there })
    }
}

/// The place of a node among those held.
pub(super) fn held_row(node: usize, first: usize, count: usize) -> Result<u32> {
    match node.checked_sub(first).filter(|&row| row < count) {
        Some(row) => Ok(row as u32),
        None => bail!("{OP}: internal error: node {node} is not among the {count} from {first} on"),
    }
}

/// 0 where a vector is seen and -inf elsewhere, the same for each of `b` batch rows: `(b q, 1, 1, n)` from `(q, n)`.
pub(super) fn bias(seen: &[bool], (b, q): (usize, usize), like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = seen.iter().map(|&s| if s { 0. } else { f32::NEG_INFINITY }).collect();
    let n = seen.len() / q.max(1);
    let values = Tensor::from_vec(values, (1, q, n), like.device())?.to_dtype(like.dtype())?;
    values.broadcast_as((b, q, n))?.contiguous()?.reshape((b * q, 1, 1, n))
}
