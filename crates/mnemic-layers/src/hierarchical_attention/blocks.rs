//! The readouts at all steps at once, without gathering.
//!
//! Steps `t` of one block of `b^{ℓ+1}` see nodes of level ℓ of one window, and the `i`-th step of every block sees the same ones of them, the first
//! `⌊i / b^ℓ⌋`. So a reshape brings queries and keys together, and one mask serves all blocks. Of the top level, a step sees the last ones of the
//! window before as well.

use candle_core::{Module, Result, Tensor, bail};
use mnemic_kernels::arithmetic::add;
use mnemic_kernels::attention::{Attention, Bias, Mask, attention};
use mnemic_kernels::concat::concat;

use super::readout::Maps;
use super::{HierarchicalAttention, OP, padded};
use crate::split_heads;

/// What all steps read of one level.
struct LevelRead {
    /// `(b, t, d)`.
    output: Tensor,
    /// `(b, t, h)`.
    log_sum_exp: Tensor,
}

impl HierarchicalAttention {
    /// `C (b, t, d)` of all steps.
    pub(super) fn read_all(&self, leaves: &Tensor, levels: &[Tensor]) -> Result<Tensor> {
        let u = self.queries(leaves)?;
        match &self.maps {
            Maps::Flat { key, value } => {
                let read = |level: usize| {
                    let nodes = self.placed(level, &levels[level], leaves.dim(1)?)?;
                    self.level(level, &u, &[key.forward(&nodes)?, value.forward(&nodes)?])
                };
                self.merged(&(0..levels.len()).map(read).collect::<Result<Vec<_>>>()?)
            }
            Maps::TopDown(hops) => {
                let mut u = u;
                for (level, hop) in hops.iter().enumerate().rev() {
                    let nodes = self.placed(level, &levels[level], leaves.dim(1)?)?;
                    let maps = [hop.key.forward(&nodes)?, hop.value.forward(&nodes)?];
                    let query = hop.query.forward(&hop.norm.forward(&u)?)?;
                    u = add(&u, &hop.out.forward(&self.level(level, &query, &maps)?.output)?)?;
                }
                Ok(u)
            }
            Maps::Descent { .. } => bail!("{OP}: internal error: a descent reads step by step"),
        }
    }

    /// Nodes `(b, n r, d)` as whole windows with λ, one for every block of steps: `(b, windows b r, d)`.
    fn placed(&self, level: usize, nodes: &Tensor, t: usize) -> Result<Tensor> {
        let (b, _, d) = nodes.dims3()?;
        let window = self.config.window(level);
        let windows = (t + 1).div_ceil(self.config.span(level + 1));
        let nodes = padded(nodes, windows * window)?.reshape((b * windows, window, d))?;
        add(&nodes, &self.places[level])?.reshape((b, windows * window, d))
    }

    /// Attention of all `queries (b, t, d)` over what they see of a level with `[keys, values] (b, windows b r, d)`.
    fn level(&self, level: usize, queries: &Tensor, maps: &[Tensor; 2]) -> Result<LevelRead> {
        let (b, t, d) = queries.dims3()?;
        let h = self.config.num_heads;
        // Block 0 starts before the first vector, where nothing is seen.
        let start = Tensor::zeros((b, 1, d), queries.dtype(), queries.device())?;
        let queries = Tensor::cat(&[&start, queries], 1)?; // (b, t + 1, d)
        let block = self.config.span(level + 1);
        let (whole, rest) = ((t + 1) / block, (t + 1) % block);
        let (mut outputs, mut sums) = (vec![], vec![]);
        for (first, count, steps) in [(0, whole, block), (whole, 1, rest)] {
            if count * steps == 0 {
                continue;
            }
            let part = queries.narrow(1, first * block, count * steps)?;
            let part = split_heads(&part.reshape((b * count, steps, d))?, h)?;
            let [keys, values] = self.windows(level, maps, (first, count))?;
            let (keys, values) = (split_heads(&keys, h)?, split_heads(&values, h)?);
            let bias = self.seen(level, steps, &queries, keys.dim(2)?)?;
            let lengths = self.lengths(level, (b, first, count), keys.dim(2)?);
            let mask = Mask { key_lengths: Some(&lengths), ..Mask::default() };
            let options = Attention { mask, bias: Bias::Full(&bias), ..Attention::default() };
            let read = attention(&part, &keys, &values, &options)?;
            let output = read.output.transpose(1, 2)?.reshape((b, count * steps, d))?;
            outputs.push(output);
            sums.push(read.log_sum_exp.transpose(1, 2)?.reshape((b, count * steps, h))?);
        }
        let joined = |parts: &[Tensor]| Tensor::cat(parts, 1)?.narrow(1, 1, t);
        Ok(LevelRead { output: joined(&outputs)?, log_sum_exp: joined(&sums)? })
    }

    /// The windows of blocks `first` to `first + count`, `(b count, n, d)` each; of the top level with the window before.
    fn windows(
        &self,
        level: usize,
        maps: &[Tensor; 2],
        (first, count): (usize, usize),
    ) -> Result<[Tensor; 2]> {
        let window = self.config.window(level);
        let (b, _, d) = maps[0].dims3()?;
        let cut = |xs: &Tensor, from: usize| -> Result<Tensor> {
            xs.narrow(1, from * window, count * window)?.reshape((b * count, window * d))
        };
        let both = |xs: &Tensor| -> Result<Tensor> {
            let now = cut(xs, first)?;
            if !self.looks_back(level, first + count) {
                return now.reshape((b * count, window, d));
            }
            let before = match first {
                0 => {
                    let zeros = Tensor::zeros((b, window, d), xs.dtype(), xs.device())?;
                    let earlier = xs.narrow(1, 0, (count - 1) * window)?;
                    Tensor::cat(&[&zeros, &earlier], 1)?.reshape((b * count, window * d))?
                }
                _ => cut(xs, first - 1)?,
            };
            concat(&[now, before])?.reshape((b * count, 2 * window, d))
        };
        Ok([both(&maps[0])?, both(&maps[1])?])
    }

    /// Whether a block before `end` sees the window before its own.
    fn looks_back(&self, level: usize, end: usize) -> bool {
        level == self.config.levels && end > 1
    }

    /// How many of the keys there are: block 0 has no window before it.
    fn lengths(
        &self,
        level: usize,
        (b, first, count): (usize, usize, usize),
        keys: usize,
    ) -> Vec<usize> {
        let window = self.config.window(level);
        let length = move |block: usize| if block == 0 { window } else { keys };
        (0..b).flat_map(|_| (first..first + count).map(length)).collect()
    }

    /// 0 where step `i` of a block sees a key, -inf elsewhere: `(1, 1, steps, keys)`.
    fn seen(&self, level: usize, steps: usize, like: &Tensor, keys: usize) -> Result<Tensor> {
        let (span, window, r) =
            (self.config.span(level), self.config.window(level), self.config.vectors(level));
        let value = |i: usize, key: usize| {
            let complete = i / span * r;
            // Of the window before, what this window has not yet taken the place of.
            let seen = if key < window { key < complete } else { key - window >= complete };
            if seen { 0. } else { f32::NEG_INFINITY }
        };
        let bias: Vec<f32> =
            (0..steps).flat_map(|i| (0..keys).map(move |key| value(i, key))).collect();
        Tensor::from_vec(bias, (1, 1, steps, keys), like.device())?.to_dtype(like.dtype())
    }

    /// One softmax over all levels from one for each: `Σ_ℓ p_ℓ o_ℓ` with `p = softmax(log_sum_exp)`, which is attention whose scores are there already.
    fn merged(&self, reads: &[LevelRead]) -> Result<Tensor> {
        let h = self.config.num_heads;
        let outputs: Vec<Tensor> = reads.iter().map(|read| read.output.clone()).collect();
        let sums: Vec<Tensor> = reads.iter().map(|read| read.log_sum_exp.clone()).collect();
        let (b, t, d) = outputs[0].dims3()?;
        let n = reads.len();
        let values = concat(&outputs)?.reshape((b * t, n, h, d / h))?.transpose(1, 2)?;
        let scores = concat(&sums)?.reshape((b * t, n, h))?.transpose(1, 2)?.unsqueeze(2)?;
        let scores = scores.contiguous()?; // (b t, h, 1, n)
        let zeros = |n| Tensor::zeros((b * t, h, n, 1), outputs[0].dtype(), outputs[0].device());
        let options = Attention { bias: Bias::Full(&scores), ..Attention::default() };
        let merged = attention(&zeros(1)?, &zeros(n)?, &values, &options)?.output;
        merged.reshape((b, t, d))
    }
}
