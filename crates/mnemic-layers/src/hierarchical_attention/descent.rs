//! The soft descent: summaries are keys on the way down, and only leaves are values.
//!
//! The value of a node is what the query reads among its children, `o = Σ_i α_i o_i` with `α = softmax(u·k_i)`, down to the leaves. So the weight of
//! a leaf is the product of those on its way, and no product is ever made.

use std::ops::Range;

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use mnemic_kernels::arithmetic::add;
use mnemic_kernels::attention::{Attention, Bias, attention, attention_weights};

use super::gather::{Held, bias, held_row};
use super::readout::Maps;
use super::{HierarchicalAttention, OP};
use crate::{Context, split_heads};

/// Nodes of one level that groups of queries choose among: `width` for each group.
#[derive(Clone, Default, PartialEq)]
struct Choice {
    width: usize,
    /// Rows among the held nodes of all batch rows.
    rows: Vec<u32>,
    /// The places in their windows, for λ.
    slots: Vec<u32>,
    /// Whether there is a node.
    seen: Vec<bool>,
}

/// Weights of the leaves below, for what is watched: the rows `(g, n)` and the weights `(g, h, n)`.
struct Spread {
    rows: Vec<u32>,
    weights: Tensor,
}

/// A descent at some steps.
struct Descent<'a> {
    layer: &'a HierarchicalAttention,
    held: &'a Held,
    watching: bool,
}

impl HierarchicalAttention {
    /// `C (b q, 1, d)` of `queries (b q, 1, d)` at the steps after `times` vectors.
    pub(super) fn descend(
        &self,
        queries: &Tensor,
        held: &Held,
        times: &[usize],
        ctx: &Context,
    ) -> Result<Tensor> {
        let descent = Descent { layer: self, held, watching: ctx.is_watching() };
        let seen = descent.frontier(times, queries.dim(0)? / times.len())?;
        let keys = descent.all_keys(&seen)?;
        let chosen = descent.prune(queries, &seen, &keys)?;
        let keys = if chosen == seen { keys } else { descent.all_keys(&chosen)? };
        let (mut values, mut spreads) = (vec![], vec![]);
        for (level, choice) in &chosen {
            let (value, spread) = descent.values(*level, choice, queries)?;
            values.push(value);
            spreads.extend(spread);
        }
        // Each group has a mask of its own.
        let hidden = bias(&joined(&chosen), (1, queries.dim(0)?), queries)?;
        let maps = [&Tensor::cat(&keys, 1)?, &Tensor::cat(&values, 1)?];
        let (contexts, weights) = descent.attend(queries, maps, Some(&hidden))?;
        if let Some(weights) = weights {
            descent.watch(&weights, &chosen, &spreads, times, ctx)?;
        }
        Ok(contexts)
    }
}

impl Descent<'_> {
    fn beam(&self) -> Result<usize> {
        match self.layer.maps {
            Maps::Descent { beam, .. } => Ok(beam),
            _ => bail!("{OP}: internal error: expected a descent"),
        }
    }

    fn count(&self, level: usize) -> Result<usize> {
        self.held.levels[level].dim(1)
    }

    /// What is seen of each level at some steps of `b` batch rows; levels of which nothing is seen are left out.
    fn frontier(&self, times: &[usize], b: usize) -> Result<Vec<(usize, Choice)>> {
        let mut levels = vec![];
        for level in 0..=self.layer.config.levels {
            let (count, first) = (self.count(level)?, self.held.first[level]);
            let nodes: Vec<Range<usize>> =
                times.iter().map(|&t| self.layer.config.frontier(t)[level].clone()).collect();
            let width = nodes.iter().map(Range::len).max().unwrap_or(0);
            let mut choice = Choice { width, ..Choice::default() };
            for (batch, nodes) in (0..b).flat_map(|batch| nodes.iter().map(move |n| (batch, n))) {
                for node in nodes.clone() {
                    let row = (batch * count) as u32 + held_row(node, first, count)?;
                    choice.push(row, node % self.layer.config.branching, true);
                }
                // Steps that see fewer have empty places.
                (nodes.len()..width).for_each(|_| choice.push(0, 0, false));
            }
            if width > 0 {
                levels.push((level, choice));
            }
        }
        Ok(levels)
    }

    /// The children of all nodes of a choice, a group for each.
    fn children(&self, level: usize, choice: &Choice) -> Result<Choice> {
        let width = self.layer.config.branching;
        let (count, below) = (self.count(level)?, self.count(level - 1)?);
        let (first, first_below) = (self.held.first[level], self.held.first[level - 1]);
        let mut children = Choice { width, ..Choice::default() };
        for (&row, &seen) in choice.rows.iter().zip(&choice.seen) {
            let (batch, node) = (row as usize / count, row as usize % count + first);
            for slot in 0..width {
                // What is below an empty place is never used, and need only exist.
                let row = match seen {
                    true => {
                        (batch * below) as u32 + held_row(node * width + slot, first_below, below)?
                    }
                    false => 0,
                };
                children.push(row, slot, seen);
            }
        }
        Ok(children)
    }

    /// The nodes of a choice with λ, `(g, width, d)`.
    fn nodes(&self, level: usize, choice: &Choice) -> Result<Tensor> {
        let nodes = &self.held.levels[level];
        let (b, count, d) = nodes.dims3()?;
        let shape = (choice.rows.len() / choice.width, choice.width, d);
        let index = |at: &[u32]| Tensor::from_slice(at, at.len(), nodes.device());
        let places = self.layer.places[level].index_select(&index(&choice.slots)?, 0)?;
        let nodes = nodes.reshape((b * count, d))?.contiguous()?;
        add(&nodes.index_select(&index(&choice.rows)?, 0)?, &places)?.reshape(shape)
    }

    fn all_keys(&self, levels: &[(usize, Choice)]) -> Result<Vec<Tensor>> {
        levels.iter().map(|(level, choice)| self.keys(*level, choice)).collect()
    }

    fn keys(&self, level: usize, choice: &Choice) -> Result<Tensor> {
        match &self.layer.maps {
            Maps::Descent { keys, .. } => keys[level].forward(&self.nodes(level, choice)?),
            _ => bail!("{OP}: internal error: expected a descent"),
        }
    }

    /// What `queries (g, 1, d)` read below each node of a choice, `(g, width, d)`.
    fn values(
        &self,
        level: usize,
        choice: &Choice,
        queries: &Tensor,
    ) -> Result<(Tensor, Option<Spread>)> {
        let (g, _, d) = queries.dims3()?;
        if level == 0 {
            let Maps::Descent { value, .. } = &self.layer.maps else {
                bail!("{OP}: internal error: expected a descent")
            };
            let ones = || {
                Tensor::ones(
                    (g * choice.width, self.layer.config.num_heads, 1),
                    DType::F32,
                    queries.device(),
                )
            };
            let spread = match self.watching {
                true => Some(Spread { rows: choice.rows.clone(), weights: ones()? }),
                false => None,
            };
            let leaves = self.held.levels[0].reshape(((), d))?.contiguous()?;
            let index = Tensor::from_slice(&choice.rows, choice.rows.len(), queries.device())?;
            let leaves = leaves.index_select(&index, 0)?.reshape((g, choice.width, d))?;
            return Ok((value.forward(&leaves)?, spread));
        }
        let children = self.children(level, choice)?;
        let again: Vec<u32> =
            (0..g as u32).flat_map(|i| std::iter::repeat_n(i, choice.width)).collect();
        let again = Tensor::from_vec(again, g * choice.width, queries.device())?;
        let queries = queries.contiguous()?.index_select(&again, 0)?; // (g width, 1, d)
        let keys = self.keys(level - 1, &children)?;
        let chosen = match level {
            1 => children.clone(),
            _ => self.prune_one(&queries, &children, &keys)?,
        };
        let keys = match chosen.width == children.width {
            true => keys,
            false => self.keys(level - 1, &chosen)?,
        };
        let (values, below) = self.values(level - 1, &chosen, &queries)?;
        let (read, weights) = self.attend(&queries, [&keys, &values], None)?;
        let spread = match (weights, below) {
            (Some(weights), Some(below)) => Some(spread(&weights, below)?),
            _ => None,
        };
        Ok((read.reshape((g, choice.width, d))?, spread))
    }

    /// The heaviest nodes of each level of the frontier; the leaves all stay.
    fn prune(
        &self,
        queries: &Tensor,
        levels: &[(usize, Choice)],
        keys: &[Tensor],
    ) -> Result<Vec<(usize, Choice)>> {
        let beam = self.beam()?;
        if levels.iter().all(|(level, choice)| *level == 0 || choice.width <= beam) {
            return Ok(levels.to_vec());
        }
        let hidden = bias(&joined(levels), (1, queries.dim(0)?), queries)?;
        let weights = self.weights(queries, &Tensor::cat(keys, 1)?, Some(&hidden))?;
        let mut start = 0;
        let mut chosen = vec![];
        for (level, choice) in levels {
            let end = start + choice.width;
            let part: Vec<&[f32]> = weights.iter().map(|row| &row[start..end]).collect();
            let kept = match *level == 0 || choice.width <= beam {
                true => choice.clone(),
                false => choice.heaviest(&part, beam),
            };
            chosen.push((*level, kept));
            start = end;
        }
        Ok(chosen)
    }

    /// The heaviest children.
    fn prune_one(&self, queries: &Tensor, children: &Choice, keys: &Tensor) -> Result<Choice> {
        let beam = self.beam()?;
        if beam >= children.width {
            return Ok(children.clone());
        }
        let weights = self.weights(queries, keys, None)?;
        let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
        Ok(children.heaviest(&weights, beam))
    }

    /// Weights of each group, summed over the heads.
    fn weights(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Vec<Vec<f32>>> {
        let heads = |xs: &Tensor| split_heads(&xs.detach(), self.layer.config.num_heads);
        let options =
            Attention { bias: bias.map_or(Bias::None, Bias::Full), ..Attention::default() };
        let weights = attention_weights(&heads(queries)?, &heads(keys)?, &options)?;
        weights.sum(1)?.squeeze(1)?.to_dtype(DType::F32)?.to_vec2()
    }

    /// Attention of `queries (g, 1, d)`: `(g, 1, d)`, and the weights `(g, h, 1, n)` where they are watched.
    fn attend(
        &self,
        queries: &Tensor,
        [keys, values]: [&Tensor; 2],
        bias: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let heads = |xs: &Tensor| split_heads(xs, self.layer.config.num_heads);
        let (q, k, v) = (heads(queries)?, heads(keys)?, heads(values)?);
        let options =
            Attention { bias: bias.map_or(Bias::None, Bias::Full), ..Attention::default() };
        let read = attention(&q, &k, &v, &options)?.output.reshape(queries.dims())?;
        let weights = match self.watching {
            true => {
                let weights = attention_weights(&q.detach(), &k.detach(), &options)?;
                Some(weights.to_dtype(DType::F32)?)
            }
            false => None,
        };
        Ok((read, weights))
    }

    /// Records the weights `(b q, h, 1, n)` of the frontier, what is left out as 0, and those of all leaves.
    fn watch(
        &self,
        weights: &Tensor,
        chosen: &[(usize, Choice)],
        spreads: &[Spread],
        times: &[usize],
        ctx: &Context,
    ) -> Result<()> {
        let (g, h, _, _) = weights.dims4()?;
        let count = self.count(0)?;
        let mut leaves = Table::new(g, h, count);
        let mut start = 0;
        for ((level, choice), below) in chosen.iter().zip(spreads) {
            let part = weights.narrow(3, start, choice.width)?.squeeze(2)?; // (g, h, width)
            start += choice.width;
            let mut shown = Table::new(g, h, self.layer.config.branching);
            shown.add(&part, |at| choice.slots[at] as usize)?;
            shown.watch(&format!("readout_weights_level_{level}"), times, ctx)?;
            let per = below.rows.len() / g;
            let of_leaves = below.weights.reshape((g, choice.width, h, per / choice.width))?;
            let product = of_leaves.transpose(1, 2)?.broadcast_mul(&part.unsqueeze(3)?)?;
            let product = product.reshape((g, h, per))?;
            leaves.add(&product, |at| below.rows[at] as usize % count)?;
        }
        leaves.watch("leaf_weights", times, ctx)
    }
}

/// Weights that are to be shown, `(g, h, n)`.
struct Table {
    sizes: (usize, usize, usize),
    values: Vec<f32>,
}

impl Table {
    fn new(g: usize, h: usize, n: usize) -> Self {
        Self { sizes: (g, h, n), values: vec![0.; g * h * n] }
    }

    /// Adds `weights (g, h, m)`, of which the `i`-th of group `g` goes to the place that `place` gives for `g m + i`.
    fn add(&mut self, weights: &Tensor, place: impl Fn(usize) -> usize) -> Result<()> {
        let (_, h, n) = self.sizes;
        for (group, heads) in weights.contiguous()?.to_vec3::<f32>()?.iter().enumerate() {
            for (head, row) in heads.iter().enumerate() {
                for (i, weight) in row.iter().enumerate() {
                    self.values[(group * h + head) * n + place(group * row.len() + i)] += weight;
                }
            }
        }
        Ok(())
    }

    /// Records `(b, h, n)` for each step.
    fn watch(self, name: &str, times: &[usize], ctx: &Context) -> Result<()> {
        let (g, h, n) = self.sizes;
        let shape = (g / times.len(), times.len(), h, n);
        let values = Tensor::from_vec(self.values, shape, &Device::Cpu)?;
        for (i, &t) in times.iter().enumerate() {
            ctx.watch(name, t - 1, || values.narrow(1, i, 1)?.squeeze(1))?;
        }
        Ok(())
    }
}

impl Choice {
    fn push(&mut self, row: u32, slot: usize, seen: bool) {
        self.rows.push(row);
        self.slots.push(slot as u32);
        self.seen.push(seen);
    }

    /// The `most` heaviest nodes of each group that are seen, in their order; where there are fewer, empty ones fill up.
    fn heaviest(&self, weights: &[&[f32]], most: usize) -> Self {
        let mut kept = Self { width: most, ..Self::default() };
        for (group, weights) in weights.iter().enumerate() {
            let start = group * self.width;
            let mut order: Vec<usize> = (0..self.width).collect();
            // An empty place weighs nothing, and a node may weigh nothing, too.
            let heavier = |&i: &usize| (self.seen[start + i], weights[i]);
            order.sort_by(|a, b| {
                let ((seen_a, a), (seen_b, b)) = (heavier(a), heavier(b));
                seen_b.cmp(&seen_a).then(b.total_cmp(&a))
            });
            order.truncate(most);
            order.sort_unstable();
            for i in order {
                let slot = self.slots[start + i] as usize;
                kept.push(self.rows[start + i], slot, self.seen[start + i]);
            }
        }
        kept
    }
}

/// What groups see of all levels, side by side.
fn joined(levels: &[(usize, Choice)]) -> Vec<bool> {
    let groups = levels.first().map_or(0, |(_, choice)| choice.seen.len() / choice.width);
    let row = |g: usize| {
        levels.iter().flat_map(move |(_, c)| c.seen[g * c.width..(g + 1) * c.width].iter().copied())
    };
    (0..groups).flat_map(row).collect()
}

/// Weights `(g, h, 1, c)` of nodes times those of the leaves `(g c, h, n)` below them.
fn spread(weights: &Tensor, below: Spread) -> Result<Spread> {
    let (g, h, _, c) = weights.dims4()?;
    let n = below.weights.dim(2)?;
    let of_leaves = below.weights.reshape((g, c, h, n))?.transpose(1, 2)?; // (g, h, c, n)
    let product = of_leaves.broadcast_mul(&weights.reshape((g, h, c, 1))?)?;
    Ok(Spread { rows: below.rows, weights: product.reshape((g, h, c * n))? })
}
