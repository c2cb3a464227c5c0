//! A level of the tree: what makes one node of a window of children.

use candle_core::{DType, Module, Result, Tensor};
use candle_nn::VarBuilder;
use mnemic_kernels::activation::gelu;
use mnemic_kernels::arithmetic::add;
use mnemic_kernels::attention::{Attention, Mask, attention, attention_weights};
use mnemic_kernels::time_steps::unbind;

use super::{HierarchicalAttentionConfig, square};
use crate::init::{normal, uniform, xavier_uniform};
use crate::{Context, LayerNorm, LayerNormConfig, Linear, linear, split_heads};

/// The modules of one level, which share their parameters.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    heads: usize,
    /// Vectors of a node.
    count: usize,
    /// `Q`, `(r d, 1)`: its product with ones is one row a window.
    query: Linear,
    key: Linear,
    value: Linear,
    /// `P (b r', d)`.
    position: Tensor,
    out: Linear,
    norm: LayerNorm,
    linear1: Linear,
    linear2: Linear,
}

impl Summary {
    pub(super) fn new(
        config: &HierarchicalAttentionConfig,
        level: usize,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let (d, r) = (config.width, config.summaries);
        let query = vb.pp("query").get_with_hints((r * d, 1), "weight", normal(0.02))?;
        // Xavier's bound over √(2 Lv), so that deep trees start as pyramids of means.
        let bound = (6. / (2 * d) as f64).sqrt() / (2. * config.levels as f64).sqrt();
        let map = xavier_uniform(d, 2 * d);
        Ok(Self {
            heads: config.num_heads,
            count: r,
            query: Linear::new(query, None),
            key: square(d, vb.pp("key"))?,
            value: square(d, vb.pp("value"))?,
            position: vb.get_with_hints((config.window(level - 1), d), "position", normal(0.02))?,
            out: linear(d, d, false, uniform(bound), vb.pp("out"))?,
            norm: LayerNorm::new(d, LayerNormConfig::default(), vb.pp("norm"))?,
            linear1: linear(d, 2 * d, true, map, vb.pp("linear1"))?,
            linear2: linear(2 * d, d, true, map, vb.pp("linear2"))?,
        })
    }

    /// Nodes `(g, r, d)` of windows `(g, c, d)` of which the first `lengths` are there. `place` is the batch and the level, for what is watched.
    pub(super) fn forward(
        &self,
        children: &Tensor,
        lengths: Option<&[usize]>,
        place: (usize, usize),
        ctx: &Context,
    ) -> Result<Tensor> {
        let (g, c, d) = children.dims3()?;
        let (dtype, device) = (children.dtype(), children.device());
        let heads = |xs: &Tensor| split_heads(xs, self.heads);
        let queries = self.query.forward(&Tensor::ones((g, 1), dtype, device)?)?; // (g, r d)
        let q = heads(&queries.reshape((g, self.count, d))?)?;
        let k = heads(&add(&self.key.forward(children)?, &self.position)?)?;
        let v = heads(&self.value.forward(children)?)?;
        let mask = Mask { key_lengths: lengths, ..Mask::default() };
        let options = Attention { mask, ..Attention::default() };
        self.watch((&q, &k), &options, place, ctx)?;
        let attended = attention(&q, &k, &v, &options)?.output; // (g, h, r, d / h)
        let attended = attended.transpose(1, 2)?.reshape((g, self.count, d))?;
        let mean = self.mean(children, c, &options)?;
        let node = add(&mean, &self.out.forward(&attended)?)?;
        let inner = gelu(&self.linear1.forward(&self.norm.forward(&node)?)?)?;
        add(&node, &self.linear2.forward(&inner)?)
    }

    /// The mean of the children that are there, once for each vector of the node: attention of queries that are zeros.
    fn mean(&self, children: &Tensor, c: usize, options: &Attention<'_>) -> Result<Tensor> {
        let (g, dtype, device) = (children.dim(0)?, children.dtype(), children.device());
        let zeros = |n: usize| Tensor::zeros((g, 1, n, 1), dtype, device);
        let mean =
            attention(&zeros(self.count)?, &zeros(c)?, &children.unsqueeze(1)?, options)?.output;
        mean.reshape((g, self.count, children.dim(2)?))
    }

    fn watch(
        &self,
        (q, k): (&Tensor, &Tensor),
        options: &Attention<'_>,
        (b, level): (usize, usize),
        ctx: &Context,
    ) -> Result<()> {
        if !ctx.is_watching() {
            return Ok(());
        }
        let weights = attention_weights(&q.detach(), &k.detach(), options)?; // (g, h, r, c)
        let (g, h, r, c) = weights.dims4()?;
        let weights = weights.to_dtype(DType::F32)?.reshape((b, g / b, h * r, c))?;
        for (window, weights) in unbind(&weights)?.into_iter().enumerate() {
            ctx.watch(&format!("summary_weights_level_{level}"), window, || Ok(weights))?;
        }
        Ok(())
    }
}
