//! The nodes of a batch of trees as all that they have ever been: a replaced node is one more tensor, and the rows of the batch point to theirs.

use std::cell::Cell;

use candle_core::{Result, Tensor};
use mnemic_kernels::memory::select;

/// The nodes of b trees of n leaves. In each, the root is node 1, the children of node e are 2 e and 2 e + 1, and the leaves are n … 2 n - 1.
#[derive(Debug, Clone)]
pub struct Tree {
    leaves: usize,
    /// `(b, d)` each.
    versions: Vec<Tensor>,
    /// For each row of the batch and each node its version.
    places: Vec<Vec<usize>>,
    evaluations: Cell<Evaluations>,
}

/// How often JOIN and SEARCH were computed, for one tree of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evaluations {
    /// JOIN.
    pub join: usize,
    /// SEARCH.
    pub search: usize,
}

/// A walk from the root to a leaf.
#[derive(Debug, Clone)]
pub struct Access {
    /// The leaves reached, from 0.
    pub leaves: Vec<usize>,
    /// What they hold, `(b, d)`.
    pub value: Tensor,
    /// The logits of going right, `(b, D)`.
    pub logits: Tensor,
    /// Whether it went right, for each row at each of the D nodes.
    pub right: Vec<Vec<bool>>,
}

impl Tree {
    /// Trees of which only the leaves are there.
    pub(super) fn new(b: usize, leaves: Vec<Tensor>) -> Self {
        let n = leaves.len();
        let mut places = vec![0; 2 * n];
        (0..n).for_each(|leaf| places[n + leaf] = leaf);
        Self { leaves: n, versions: leaves, places: vec![places; b], evaluations: Cell::default() }
    }

    /// Adds the level above those that are there.
    pub(super) fn add_level(&mut self, nodes: &[Tensor]) {
        for (i, node) in nodes.iter().enumerate() {
            self.replace(&vec![nodes.len() + i; self.places.len()], node.clone());
        }
        self.count(nodes.len(), 0);
    }

    /// The number of leaves n, a power of two.
    pub fn leaves(&self) -> usize {
        self.leaves
    }

    /// The number of decisions of an access, `log₂ n`.
    pub fn depth(&self) -> usize {
        self.leaves.trailing_zeros() as usize
    }

    /// How often JOIN and SEARCH were computed so far.
    pub fn evaluations(&self) -> Evaluations {
        self.evaluations.get()
    }

    pub(super) fn count(&self, join: usize, search: usize) {
        let before = self.evaluations.get();
        self.evaluations
            .set(Evaluations { join: before.join + join, search: before.search + search });
    }

    /// A node of each row, `(b, d)`.
    ///
    /// # Errors
    /// When there is another number of rows.
    pub fn pick(&self, nodes: &[usize]) -> Result<Tensor> {
        let places: Vec<usize> =
            self.places.iter().zip(nodes).map(|(places, &node)| places[node]).collect();
        select(&self.versions, &places)
    }

    /// Puts `(b, d)` in the place of a node of each row.
    pub(super) fn replace(&mut self, nodes: &[usize], by: Tensor) {
        for (places, &node) in self.places.iter_mut().zip(nodes) {
            places[node] = self.versions.len();
        }
        self.versions.push(by);
    }
}
