//! Hierarchical Attentive Memory (HAM): M. Andrychowicz, K. Kurach, "Learning Efficient Algorithms with Hierarchical Attentive Memory",
//! arXiv 1602.03218 (2016), section 3.
//!
//! Letters: b batch, n leaves (a power of two), D = log₂ n, i width of what a leaf is made of, d width of a node, l width of what the controller gives, m width of the hidden
//! layers.

#[cfg(test)]
mod tests;
mod tree;

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::activation::{relu, sigmoid, tanh};
use mnemic_kernels::arithmetic::interpolate;
use mnemic_kernels::concat::concat;
use mnemic_kernels::time_steps::{stack, unbind};

use crate::init::xavier_uniform;
use crate::{Context, Linear, linear};

pub use tree::{Access, Evaluations, Tree};

/// The sizes of a [`HierarchicalMemory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HierarchicalMemoryConfig {
    /// Width i of what a leaf is made of.
    pub input_size: usize,
    /// Width d of a node.
    pub node_size: usize,
    /// Width l of what the controller gives.
    pub controller_size: usize,
    /// Width m of the hidden layers of JOIN and SEARCH.
    pub hidden_size: usize,
}

/// Cells at the leaves of a full binary tree, whose inner nodes sum up what is below them. An access goes from the root to one leaf by hard decisions,
/// drawn in training, and costs Θ(log n).
///
/// - EMBED, of a leaf: `relu(W x + b)`; leaves that nothing is given for are 0.
/// - JOIN, of two children: a ReLU layer of width m, then one of width d, of `[h_left; h_right]`.
/// - SEARCH: a ReLU layer of width m of `[h_node; h_controller]`, then the logit of the probability of going right.
/// - WRITE, of the leaf found: `T ∘ H + (1 - T) ∘ h` with `T = σ(W_T [h; h_controller] + b_T)`, `H = tanh(W_H [h; h_controller] + b_H)`; then its ancestors
///   are joined anew.
///
/// Parameters: `embed`, `join.0`, `join.1`, `search.0`, `search.1`, `write.gate`, `write.value`, each with `weight` and `bias`.
///
/// Differences from the paper: it leaves the layers of WRITE's H open.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Context, HierarchicalMemory, HierarchicalMemoryConfig, ParamStore};
/// let config = HierarchicalMemoryConfig { input_size: 3, node_size: 8, controller_size: 5, hidden_size: 6 };
/// let store = ParamStore::new(0);
/// let memory = HierarchicalMemory::new(config, store.builder(DType::F32, &Device::Cpu))?;
/// let mut tree = memory.build(&Tensor::ones((2, 6, 3), DType::F32, &Device::Cpu)?)?;
/// let controller = Tensor::ones((2, 5), DType::F32, &Device::Cpu)?;
/// let access = memory.descend(&controller, &tree, 0, &Context::eval())?;
/// memory.write(&controller, &access, &mut tree)?;
/// assert_eq!((tree.leaves(), access.value.dims(), access.logits.dims()), (8, &[2, 8][..], &[2, 3][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HierarchicalMemory {
    config: HierarchicalMemoryConfig,
    embed: Linear,
    join: [Linear; 2],
    search: [Linear; 2],
    gate: Linear,
    value: Linear,
}

impl HierarchicalMemory {
    /// A memory with parameters from `vb`.
    ///
    /// # Errors
    /// When a size is 0, or a parameter exists with another shape or type.
    pub fn new(config: HierarchicalMemoryConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let HierarchicalMemoryConfig {
            input_size: i,
            node_size: d,
            controller_size: l,
            hidden_size: m,
        } = config;
        if [i, d, l, m].contains(&0) {
            bail!("hierarchical memory: expected positive sizes, got {config:?}");
        }
        let map =
            |from, to, name: &str| linear(from, to, true, xavier_uniform(from, to), vb.pp(name));
        Ok(Self {
            config,
            embed: map(i, d, "embed")?,
            join: [map(2 * d, m, "join.0")?, map(m, d, "join.1")?],
            search: [map(d + l, m, "search.0")?, map(m, 1, "search.1")?],
            gate: map(d + l, d, "write.gate")?,
            value: map(d + l, d, "write.value")?,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &HierarchicalMemoryConfig {
        &self.config
    }

    /// The tree over `leaves (b, k, i)`, filled up with empty ones to a power of two: n - 1 JOINs, one product a level.
    ///
    /// # Errors
    /// When there is no leaf, or the width does not fit.
    pub fn build(&self, leaves: &Tensor) -> Result<Tree> {
        let (b, k, _) = leaves.dims3()?;
        if b * k == 0 {
            bail!("hierarchical memory: expected leaves, got {:?}", leaves.dims());
        }
        let d = self.config.node_size;
        let mut level = unbind(&relu(&self.embed.forward(leaves)?)?)?;
        let (dtype, device): (DType, &Device) = (leaves.dtype(), leaves.device());
        let empty = Tensor::zeros((b, d), dtype, device)?;
        level.resize(k.next_power_of_two(), empty);
        let mut tree = Tree::new(b, level.clone());
        while level.len() > 1 {
            let pairs = level.len() / 2;
            let children = stack(&level)?.reshape((b, pairs, 2 * d))?;
            level = unbind(&self.joined(&children)?)?;
            tree.add_level(&level);
        }
        Ok(tree)
    }

    fn joined(&self, children: &Tensor) -> Result<Tensor> {
        relu(&self.join[1].forward(&relu(&self.join[0].forward(children)?)?)?)
    }

    /// The logit of going right from `node (b, d)`, `(b, 1)`.
    fn searched(&self, node: &Tensor, controller: &Tensor) -> Result<Tensor> {
        let both = concat(&[node.clone(), controller.clone()])?;
        self.search[1].forward(&relu(&self.search[0].forward(&both)?)?)
    }

    /// Goes from the root to a leaf, as `controller (b, l)` has it: drawn in training, else always where it is likelier, left where neither is. `step` numbers what is watched,
    /// `read_weights (b, 1, n)`, the leaf that is read.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn descend(
        &self,
        controller: &Tensor,
        tree: &Tree,
        step: usize,
        ctx: &Context,
    ) -> Result<Access> {
        let (b, rng) = (controller.dim(0)?, ctx.rng());
        let mut decide = |level: usize, row: usize, z: f64| match rng {
            Some(rng) => rng.uniform((level * b + row) as u64) < 1. / (1. + (-z).exp()),
            None => z > 0.,
        };
        let access = self.descend_by(controller, tree, &mut decide)?;
        let (dtype, device): (DType, &Device) = (controller.dtype(), controller.device());
        ctx.watch("read_weights", step, || one_hot(&access.leaves, tree.leaves(), dtype, device))?;
        Ok(access)
    }

    /// Goes from the root to a leaf; `decide` says of each level, row of the batch and logit whether to go right.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn descend_by(
        &self,
        controller: &Tensor,
        tree: &Tree,
        decide: &mut dyn FnMut(usize, usize, f64) -> bool,
    ) -> Result<Access> {
        let b = controller.dim(0)?;
        let mut at = vec![1; b];
        let (mut logits, mut right) = (vec![], vec![vec![]; b]);
        for level in 0..tree.depth() {
            let logit = self.searched(&tree.pick(&at)?, controller)?;
            let values = logit.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            for (row, (at, z)) in at.iter_mut().zip(values).enumerate() {
                let go = decide(level, row, z);
                *at = 2 * *at + usize::from(go);
                right[row].push(go);
            }
            logits.push(logit);
        }
        let logits = match logits.is_empty() {
            true => Tensor::zeros((b, 0), controller.dtype(), controller.device())?,
            false => concat(&logits)?,
        };
        let (value, n) = (tree.pick(&at)?, tree.leaves());
        tree.count(0, tree.depth());
        Ok(Access { leaves: at.iter().map(|at| at - n).collect(), value, logits, right })
    }

    /// Writes the leaf that was found and joins its ancestors anew: D JOINs.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn write(&self, controller: &Tensor, access: &Access, tree: &mut Tree) -> Result<()> {
        let both = concat(&[access.value.clone(), controller.clone()])?;
        let gate = sigmoid(&self.gate.forward(&both)?)?;
        let value = tanh(&self.value.forward(&both)?)?;
        let n = tree.leaves();
        let mut at: Vec<usize> = access.leaves.iter().map(|leaf| leaf + n).collect();
        tree.replace(&at, interpolate(&gate, &value, &access.value)?);
        for _ in 0..tree.depth() {
            at.iter_mut().for_each(|at| *at /= 2);
            let left: Vec<usize> = at.iter().map(|at| 2 * at).collect();
            let right: Vec<usize> = at.iter().map(|at| 2 * at + 1).collect();
            let children = concat(&[tree.pick(&left)?, tree.pick(&right)?])?;
            tree.replace(&at, self.joined(&children)?);
        }
        tree.count(tree.depth(), 0);
        Ok(())
    }

    /// How likely each leaf is to be reached, `(b, n)`: the product along its path, Θ(n).
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn leaf_probabilities(&self, controller: &Tensor, tree: &Tree) -> Result<Tensor> {
        let b = controller.dim(0)?;
        let (dtype, device): (DType, &Device) = (controller.dtype(), controller.device());
        let mut level = vec![Tensor::ones((b, 1), dtype, device)?];
        for depth in 0..tree.depth() {
            let mut next = Vec::with_capacity(2 * level.len());
            for (i, reached) in level.iter().enumerate() {
                let node = tree.pick(&vec![(1 << depth) + i; b])?;
                let right = (reached * sigmoid(&self.searched(&node, controller)?)?)?;
                next.push((reached - &right)?);
                next.push(right);
            }
            level = next;
        }
        Tensor::cat(&level, 1)
    }
}

/// Rows that are 1 at a leaf, `(b, 1, n)`.
fn one_hot(leaves: &[usize], n: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let mut rows = vec![0f32; leaves.len() * n];
    for (row, &leaf) in rows.chunks_exact_mut(n).zip(leaves) {
        row[leaf] = 1.;
    }
    Tensor::from_vec(rows, (leaves.len(), 1, n), device)?.to_dtype(dtype)
}
