//! Attention over a tree of summaries, after E. Culurciello, "The fall of RNN / LSTM" (essay, 2018): modules of attention summarise small
//! windows of the past, modules above them summarise the summaries, so that a vector `N` steps back is `O(log N)` hops away.
//!
//! The essay gives no equations; all of the following is a definition of our own. A *leaf* `e_t` is a node of level 0. A node of level ℓ ≥ 1
//! summarises `b` nodes of level ℓ-1, its children, by attention of learned queries ([`HierarchicalAttention::nodes`]). A readout at time `t` sees the *frontier*
//! ([`HierarchicalAttentionConfig::frontier`]): the complete windows and the loose ends of a counter to the base `b` that stands at `t`.
//!
//! Letters: b batch, t time, q steps that are read at, d width, h heads, g groups that attend apart from each other; in formulas `b` is the branching,
//! Lv the number of summarising levels, r the summaries of a node.

mod blocks;
mod descent;
mod gather;
mod readout;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

use std::ops::Range;

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::VarBuilder;

use crate::init::{normal, xavier_uniform};
use crate::{Context, Linear, gather_steps, linear};
use gather::Held;
use readout::Maps;
use summary::Summary;

pub use stream::HierarchicalState;

const OP: &str = "hierarchical attention";

/// How what was seen is read at a step. `u⁰ = W_q e_t` is the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readout {
    /// `C_t = MHA(u⁰, {s + λ})`: one attention over all nodes of the frontier.
    Flat,
    /// `u ← u + MHA_ℓ(LN u, F_ℓ(t))` for ℓ = Lv … 0, then `C_t = u`: one attention a level, from the oldest to the newest.
    TopDown,
    /// `C_t = Σ w(leaf) W_v e_leaf`, where `w(leaf)` is the product of the weights on the way down: a softmax over the frontier, then at each node
    /// one over its children. Of every level of the frontier, and of the children of every node that is expanded, the `beam` heaviest
    /// (over all heads) are expanded and the others left out of the softmax; `beam >= b` is exact. All leaves of a node of level 1 count.
    Descent {
        /// Nodes that are expanded, of each level of the frontier and of each node.
        beam: usize,
    },
}

/// The sizes of a [`HierarchicalAttention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HierarchicalAttentionConfig {
    /// Width d of leaves, nodes and readouts.
    pub width: usize,
    /// Heads h of every attention; they divide the width.
    pub num_heads: usize,
    /// Children `b` of a node, at least 2.
    pub branching: usize,
    /// Summarising levels Lv; 0 for attention over the last `b` leaves alone.
    pub levels: usize,
    /// Vectors r that a node is made of.
    pub summaries: usize,
    /// The readout.
    pub readout: Readout,
}

impl HierarchicalAttentionConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense, naming it.
    pub fn validate(&self) -> Result<()> {
        let Self { width, num_heads, branching, levels, summaries, readout } = *self;
        if width == 0 || num_heads == 0 || !width.is_multiple_of(num_heads) {
            bail!("{OP}: expected num_heads that divide the width, got {num_heads} and {width}");
        }
        if branching < 2 || summaries == 0 {
            bail!(
                "{OP}: expected a branching of 2 or more and summaries, got {branching} and {summaries}"
            );
        }
        let span = u32::try_from(levels + 1).ok().and_then(|n| branching.checked_pow(n));
        if span.is_none_or(|span| u32::try_from(span).is_err()) {
            bail!("{OP}: {levels} levels of branching {branching} span more than 2^32 steps");
        }
        match readout {
            Readout::Descent { beam: 0 } => bail!("{OP}: the beam must be positive"),
            Readout::Descent { .. } if summaries > 1 => {
                bail!("{OP}: a soft descent takes one summary a node, got {summaries}")
            }
            _ => Ok(()),
        }
    }

    /// The nodes that are seen after `t` vectors, level by level from the leaves on: the complete windows inside the incomplete window above
    /// them, and of the top level the last `b`. At most `b + Lv (b - 1)` in all.
    ///
    /// ```
    /// use mnemic_layers::{HierarchicalAttentionConfig, Readout};
    /// let config = HierarchicalAttentionConfig {
    ///     width: 8, num_heads: 2, branching: 3, levels: 2, summaries: 1, readout: Readout::Flat,
    /// };
    /// // 17 = 1 · 9 + 2 · 3 + 2
    /// assert_eq!(config.frontier(17), [15..17, 3..5, 0..1]);
    /// ```
    pub fn frontier(&self, t: usize) -> Vec<Range<usize>> {
        let b = self.branching;
        (0..=self.levels)
            .map(|level| {
                let nodes = t / self.span(level);
                match level == self.levels {
                    true => nodes.saturating_sub(b)..nodes,
                    false => nodes / b * b..nodes,
                }
            })
            .collect()
    }

    /// The leaves below a node of this level, `b^level`.
    pub fn span(&self, level: usize) -> usize {
        (0..level).fold(1, |span: usize, _| span.saturating_mul(self.branching))
    }

    /// Vectors of a node of this level: a leaf is one.
    fn vectors(&self, level: usize) -> usize {
        if level == 0 { 1 } else { self.summaries }
    }

    /// Vectors of a whole window of this level's nodes.
    fn window(&self, level: usize) -> usize {
        self.branching * self.vectors(level)
    }
}

/// A tree of summaries with its readout.
///
/// Parameters: for each level ℓ from 1, `summary.ℓ` with `key`, `value` and `out` `(d, d)`, `query.weight (r d, 1)`, `position (b r', d)` where r' are the
/// vectors of a child, `norm`, `linear1 (2d, d)` and `linear2 (d, 2d)`; `query (d, d)`; for each level from 0, `frontier.ℓ (b r', d)`, the embedding λ of the level and of a
/// node's place in its window; then of [`Readout::Flat`] `key` and `value (d, d)`, of [`Readout::TopDown`] for each level `hop.ℓ` with `norm`, `query`, `key`, `value` and
/// `out`, and of [`Readout::Descent`] `key.ℓ` for each level and `value`. Maps have no bias, but for those of the feed-forward part.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{
///     Context, HierarchicalAttention, HierarchicalAttentionConfig, ParamStore, Readout,
/// };
/// let config = HierarchicalAttentionConfig {
///     width: 8, num_heads: 2, branching: 3, levels: 2, summaries: 1, readout: Readout::Flat,
/// };
/// let store = ParamStore::new(0);
/// let layer = HierarchicalAttention::new(config, store.builder(DType::F32, &Device::Cpu))?;
/// let leaves = Tensor::ones((2, 17, 8), DType::F32, &Device::Cpu)?;
/// // The last step alone.
/// let contexts = layer.forward(&leaves, &[vec![false; 16], vec![true]].concat(), &Context::eval())?;
/// assert_eq!(contexts.dims(), [2, 1, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HierarchicalAttention {
    config: HierarchicalAttentionConfig,
    summaries: Vec<Summary>,
    /// λ of each level, `(b r', d)`.
    places: Vec<Tensor>,
    query: Linear,
    maps: Maps,
}

impl HierarchicalAttention {
    /// A tree with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: HierarchicalAttentionConfig, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let d = config.width;
        let summary = |level| Summary::new(&config, level, vb.pp("summary").pp(level));
        let place = |level: usize| {
            let shape = (config.window(level), d);
            vb.pp("frontier").get_with_hints(shape, &level.to_string(), normal(0.02))
        };
        Ok(Self {
            config,
            summaries: (1..=config.levels).map(summary).collect::<Result<_>>()?,
            places: (0..=config.levels).map(place).collect::<Result<_>>()?,
            query: square(d, vb.pp("query"))?,
            maps: Maps::new(&config, &vb)?,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &HierarchicalAttentionConfig {
        &self.config
    }

    /// The nodes of all levels from the leaves `(b, t, d)` on, those of incomplete windows as well: level ℓ is `(b, n_ℓ r, d)` with
    /// `n_ℓ = ⌈n_{ℓ-1} / b⌉`. Children beyond the `lengths` of a row are masked. With `n_Lv = 1` the last level is the root, an encoding of the whole.
    ///
    /// A node with children `c`: `k_i = W_k c_i + P_i`, `v_i = W_v c_i`, `α = softmax(q·k_i/√(d/h))` for each head with a learned query `q`; `s = c̄ + W_o Σ α v`
    /// with the mean `c̄` of the children, then `s + FFN(LN(s))`.
    ///
    /// Nodes beyond those of a row are finite but mean nothing.
    ///
    /// # Errors
    /// When the shapes do not fit, or a length is 0 or exceeds `t`.
    pub fn nodes(
        &self,
        leaves: &Tensor,
        lengths: Option<&[usize]>,
        ctx: &Context,
    ) -> Result<Vec<Tensor>> {
        let (b, t) = self.check(leaves)?;
        let mut lengths = lengths.map_or_else(|| vec![t; b], <[usize]>::to_vec);
        if lengths.len() != b || lengths.iter().any(|&n| n == 0 || n > t) {
            bail!("{OP}: expected {b} lengths from 1 to {t}, got {lengths:?}");
        }
        let mut levels = vec![leaves.clone()];
        for (summary, level) in self.summaries.iter().zip(0..) {
            let (children, r) = (&levels[level], self.config.vectors(level));
            let windows = (children.dim(1)? / r).div_ceil(self.config.branching);
            let whole = self.config.window(level);
            let children = padded(children, windows * whole)?;
            let of_window = |&n: &usize| {
                (0..windows).map(move |w| (n * r).saturating_sub(w * whole).min(whole))
            };
            let seen: Vec<usize> = lengths.iter().flat_map(of_window).collect();
            let children = children.reshape((b * windows, whole, self.config.width))?;
            let nodes = summary.forward(&children, Some(&seen), (b, level + 1), ctx)?;
            levels.push(nodes.reshape((b, windows * self.config.summaries, self.config.width))?);
            lengths.iter_mut().for_each(|n| *n = n.div_ceil(self.config.branching));
        }
        Ok(levels)
    }

    /// What is read at the `wanted` steps of the leaves `(b, t, d)`: `(b, q, d)`. A step sees no later leaf, and nodes of complete windows only.
    ///
    /// When the context is watching, it records for each node of level ℓ its `summary_weights_level_ℓ (b, h r, b r')`, and for each wanted step
    /// `readout_weights_level_ℓ (b, h, b r')` over the places of the frontier and, of a soft descent, `leaf_weights (b, h, t)`.
    ///
    /// # Errors
    /// When the shapes do not fit, or no step is wanted.
    pub fn forward(&self, leaves: &Tensor, wanted: &[bool], ctx: &Context) -> Result<Tensor> {
        let (b, t) = self.check(leaves)?;
        let steps: Vec<usize> = (0..wanted.len()).filter(|&i| wanted[i]).collect();
        if wanted.len() != t || steps.is_empty() {
            bail!("{OP}: expected {t} steps of which some are wanted, got {wanted:?}");
        }
        let levels = self.complete(leaves, ctx)?;
        let few = self.few(steps.len(), t);
        let picked = vec![steps.clone(); b];
        if few || ctx.is_watching() || matches!(self.maps, Maps::Descent { .. }) {
            let times: Vec<usize> = steps.iter().map(|step| step + 1).collect();
            let queries =
                if times.len() == t { leaves.clone() } else { gather_steps(leaves, &picked)? };
            return self.read(&queries, &Held::all(levels), &times, ctx);
        }
        let contexts = self.read_all(leaves, &levels)?;
        if steps.len() == t { Ok(contexts) } else { gather_steps(&contexts, &picked) }
    }

    /// Whether `q` of `t` steps are read faster one by one. That maps what they see, of all levels; reading all maps each node once, and attends at
    /// every step, which is as much as mapping one of `2 d` nodes seen.
    fn few(&self, q: usize, t: usize) -> bool {
        let slots: usize = (0..=self.config.levels).map(|level| self.config.window(level)).sum();
        q * slots <= 2 * t + slots * t / (2 * self.config.width)
    }

    /// The nodes of complete windows.
    fn complete(&self, leaves: &Tensor, ctx: &Context) -> Result<Vec<Tensor>> {
        let (b, _, d) = leaves.dims3()?;
        let mut levels = vec![leaves.clone()];
        for (summary, level) in self.summaries.iter().zip(0..) {
            let (children, whole) = (&levels[level], self.config.window(level));
            let (vectors, windows) = (children.dim(1)?, children.dim(1)? / whole);
            let r = self.config.summaries;
            if windows == 0 {
                levels.push(Tensor::zeros((b, 0, d), leaves.dtype(), leaves.device())?);
                continue;
            }
            let children = match windows * whole == vectors {
                true => children.clone(),
                false => children.narrow(1, 0, windows * whole)?,
            };
            let children = children.reshape((b * windows, whole, d))?;
            let nodes = summary.forward(&children, None, (b, level + 1), ctx)?; // (b windows, r, d)
            levels.push(nodes.reshape((b, windows * r, d))?);
        }
        Ok(levels)
    }

    /// `u⁰` of leaves.
    fn queries(&self, leaves: &Tensor) -> Result<Tensor> {
        self.query.forward(leaves)
    }

    fn check(&self, leaves: &Tensor) -> Result<(usize, usize)> {
        match leaves.dims() {
            &[b, t, d] if d == self.config.width && t > 0 => Ok((b, t)),
            got => bail!("{OP}: expected leaves (b, t, {}), got {got:?}", self.config.width),
        }
    }
}

/// A map `(d, d)` without a bias.
fn square(d: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    linear(d, d, false, xavier_uniform(d, d), vb)
}

/// `xs (b, n, d)` with zeros after it, `(b, to, d)`.
fn padded(xs: &Tensor, to: usize) -> Result<Tensor> {
    let (b, n, d) = xs.dims3()?;
    if n == to {
        return Ok(xs.clone());
    }
    let zeros = Tensor::zeros((b, to - n, d), xs.dtype(), xs.device())?;
    if n == 0 { Ok(zeros) } else { Tensor::cat(&[xs, &zeros], 1) }
}
