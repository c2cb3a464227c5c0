//! The readouts at a few steps, and their parameters.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_kernels::arithmetic::add;
use mnemic_kernels::attention::{Attention, Bias, attention, attention_weights};
use mnemic_kernels::concat::concat;

use super::gather::{Held, Slots, bias};
use super::{HierarchicalAttention, HierarchicalAttentionConfig, Readout, square};
use crate::{Context, LayerNorm, LayerNormConfig, Linear, split_heads};

/// The parameters of a readout.
#[derive(Debug, Clone)]
pub(super) enum Maps {
    Flat { key: Linear, value: Linear },
    TopDown(Vec<Hop>),
    Descent { keys: Vec<Linear>, value: Linear, beam: usize },
}

/// The attention of one level in a readout from the top down.
#[derive(Debug, Clone)]
pub(super) struct Hop {
    pub(super) norm: LayerNorm,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) out: Linear,
}

impl Maps {
    pub(super) fn new(config: &HierarchicalAttentionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let d = config.width;
        let map = |vb: VarBuilder<'_>, name: &str| square(d, vb.pp(name));
        let each = 0..=config.levels;
        Ok(match config.readout {
            Readout::Flat => {
                Self::Flat { key: map(vb.clone(), "key")?, value: map(vb.clone(), "value")? }
            }
            Readout::TopDown => {
                let hop = |level| {
                    let vb = vb.pp("hop").pp(level);
                    Ok(Hop {
                        norm: LayerNorm::new(d, LayerNormConfig::default(), vb.pp("norm"))?,
                        query: map(vb.clone(), "query")?,
                        key: map(vb.clone(), "key")?,
                        value: map(vb.clone(), "value")?,
                        out: map(vb, "out")?,
                    })
                };
                Self::TopDown(each.map(hop).collect::<Result<_>>()?)
            }
            Readout::Descent { beam } => {
                let key = |level| square(d, vb.pp("key").pp(level));
                let keys = each.map(key).collect::<Result<_>>()?;
                Self::Descent { keys, value: map(vb.clone(), "value")?, beam }
            }
        })
    }
}

impl HierarchicalAttention {
    /// `C (b, q, d)` of the leaves `(b, q, d)` at the steps after `times` vectors, from the nodes that are held.
    pub(super) fn read(
        &self,
        leaves: &Tensor,
        held: &Held,
        times: &[usize],
        ctx: &Context,
    ) -> Result<Tensor> {
        let (b, q, d) = leaves.dims3()?;
        let queries = self.queries(leaves)?.reshape((b * q, 1, d))?;
        let contexts = match &self.maps {
            Maps::Flat { key, value } => {
                let levels = self.levels(held, times)?;
                let nodes: Vec<Tensor> = levels
                    .iter()
                    .map(|slots| slots.nodes.flatten_from(1))
                    .collect::<Result<_>>()?;
                let nodes = concat(&nodes)?;
                let nodes = nodes.reshape((b * q, nodes.dim(1)? / d, d))?;
                let seen = side_by_side(&levels, q);
                let maps = [&key.forward(&nodes)?, &value.forward(&nodes)?];
                let (contexts, weights) = self.attend(&queries, maps, (&seen, b, q), ctx)?;
                self.watch(weights, b, times, ctx)?;
                contexts
            }
            Maps::TopDown(hops) => {
                let mut u = queries;
                for (level, hop) in hops.iter().enumerate().rev() {
                    let Slots { nodes, seen } = self.slots(held, level, times)?;
                    let maps = [&hop.key.forward(&nodes)?, &hop.value.forward(&nodes)?];
                    let query = hop.query.forward(&hop.norm.forward(&u)?)?;
                    let (read, weights) = self.attend(&query, maps, (&seen, b, q), ctx)?;
                    self.watch_level(level, weights, b, times, ctx)?;
                    u = add(&u, &hop.out.forward(&read)?)?;
                }
                u
            }
            Maps::Descent { .. } => self.descend(&queries, held, times, ctx)?,
        };
        contexts.reshape((b, q, d))
    }

    /// The slots of all levels.
    fn levels(&self, held: &Held, times: &[usize]) -> Result<Vec<Slots>> {
        (0..=self.config.levels).map(|level| self.slots(held, level, times)).collect()
    }

    /// Attention of `queries (b q, 1, d)` over keys and values `(b q, n, d)` where they are `seen (q, n)`: `(b q, 1, d)`, and the weights
    /// `(b q, h, 1, n)` where they are watched.
    pub(super) fn attend(
        &self,
        queries: &Tensor,
        [keys, values]: [&Tensor; 2],
        (seen, b, q): (&[bool], usize, usize),
        ctx: &Context,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let heads = |xs: &Tensor| split_heads(xs, self.config.num_heads);
        let (queries_h, keys, values) = (heads(queries)?, heads(keys)?, heads(values)?);
        let bias = bias(seen, (b, q), queries)?;
        let options = Attention { bias: Bias::Full(&bias), ..Attention::default() };
        let read = attention(&queries_h, &keys, &values, &options)?.output; // (b q, h, 1, d / h)
        let weights = match ctx.is_watching() {
            true => Some(attention_weights(&queries_h.detach(), &keys.detach(), &options)?),
            false => None,
        };
        Ok((read.reshape(queries.dims())?, weights))
    }

    /// Records weights `(b q, h, 1, n)` over the slots of all levels.
    pub(super) fn watch(
        &self,
        weights: Option<Tensor>,
        b: usize,
        times: &[usize],
        ctx: &Context,
    ) -> Result<()> {
        let Some(weights) = weights else { return Ok(()) };
        let mut start = 0;
        for level in 0..=self.config.levels {
            let width = self.config.window(level);
            let part = weights.narrow(3, start, width)?.contiguous()?;
            self.watch_level(level, Some(part), b, times, ctx)?;
            start += width;
        }
        Ok(())
    }

    fn watch_level(
        &self,
        level: usize,
        weights: Option<Tensor>,
        b: usize,
        times: &[usize],
        ctx: &Context,
    ) -> Result<()> {
        let Some(weights) = weights else { return Ok(()) };
        let (_, h, _, n) = weights.dims4()?;
        let weights = weights.reshape((b, times.len(), h, n))?;
        for (i, &t) in times.iter().enumerate() {
            let at = || weights.narrow(1, i, 1)?.squeeze(1);
            ctx.watch(&format!("readout_weights_level_{level}"), t - 1, at)?;
        }
        Ok(())
    }
}

/// What is seen of all levels, `(q, Σ n)`.
fn side_by_side(levels: &[Slots], q: usize) -> Vec<bool> {
    let row = |i: usize| {
        levels.iter().flat_map(move |slots| {
            let n = slots.seen.len() / q;
            slots.seen[i * n..(i + 1) * n].iter().copied()
        })
    };
    (0..q).flat_map(row).collect()
}
