//! What decoders without an encoder share: what they have read, and how a pass over new ids sees it.
//!
//! Letters: b batch, t new ids, n ids seen with them.

use candle_core::{DType, Device, Result, Tensor, bail};
use mnemic_layers::{AttentionOptions, Bias, Context, Heads, KvCache, Mask};

use crate::text::TextBatch;

/// What a model has read, as [`Autoregressive`](crate::Autoregressive) keeps it: keys and values of all layers, and where there was
/// padding.
#[derive(Debug, Clone)]
pub struct CausalState {
    caches: Vec<KvCache>,
    /// 1 at tokens, 0 at padding; of what was read, and of the rest of the prompt.
    mask: Vec<Vec<u8>>,
    read: usize,
}

impl CausalState {
    pub(super) fn new(batch: &TextBatch, layers: usize) -> Self {
        let caches = vec![KvCache::new(); layers];
        Self { caches, mask: batch.attention_mask().to_vec(), read: 0 }
    }

    /// Takes note of new `ids (b, t)`; `most` is the largest number of tokens in a row.
    pub(super) fn pass(
        &mut self,
        ids: &Tensor,
        most: Option<usize>,
        dtype: DType,
    ) -> Result<Pass<'_>> {
        let (b, t) = ids.dims2()?;
        if b != self.mask.len() || t == 0 {
            bail!("decoder: expected ids of {} rows, got {:?}", self.mask.len(), ids.dims());
        }
        let (start, end) = (self.read, self.read + t);
        for row in &mut self.mask {
            row.resize(row.len().max(end), 1);
        }
        let mask: Vec<Vec<u8>> = self.mask.iter().map(|row| row[..end].to_vec()).collect();
        let positions = positions(&mask, start);
        check_positions(&positions, most)?;
        let bias = match mask.iter().all(|row| row.iter().all(|&m| m != 0)) {
            true => None,
            false => Some(hidden(&mask, t, dtype, ids.device())?),
        };
        self.read = end;
        Ok(Pass {
            positions,
            bias,
            options: AttentionOptions::causal(),
            caches: Some(&mut self.caches),
        })
    }

    pub(super) fn select(&mut self, rows: &[u32]) -> Result<()> {
        let row = |&i: &u32| match self.mask.get(i as usize) {
            Some(row) => Ok(row.clone()),
            None => bail!("decoder: there is no row {i} of {}", self.mask.len()),
        };
        let mask = rows.iter().map(row).collect::<Result<_>>()?;
        self.caches.iter_mut().try_for_each(|cache| cache.select(rows))?;
        self.mask = mask;
        Ok(())
    }
}

/// One pass over ids.
pub(super) struct Pass<'a> {
    /// The position of each new id among the tokens of its row, 0 at padding.
    pub(super) positions: Vec<Vec<u32>>,
    /// What hides padding, `(b, 1, t, n)`.
    bias: Option<Tensor>,
    options: AttentionOptions<'a>,
    caches: Option<&'a mut Vec<KvCache>>,
}

impl<'a> Pass<'a> {
    /// A pass over a whole batch, without a cache: gradients flow.
    pub(super) fn whole(batch: &'a TextBatch, most: Option<usize>) -> Result<Self> {
        let positions = positions(batch.attention_mask(), 0);
        check_positions(&positions, most)?;
        let mut options = batch.options();
        options.mask.causal = true;
        Ok(Self { positions, bias: None, options, caches: None })
    }

    /// The positions as a tensor, `(b, t)`.
    pub(super) fn position_ids(&self, device: &Device) -> Result<Tensor> {
        let (b, t) = (self.positions.len(), self.positions.first().map_or(0, Vec::len));
        Tensor::from_vec(self.positions.concat(), (b, t), device)
    }

    /// Attention of the new queries of a layer, over its own keys and what was seen before.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        heads: &Heads,
        [q, k, v]: [&Tensor; 3],
        window: Option<usize>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let mut options = self.options;
        if let Some(bias) = &self.bias {
            options.bias = Bias::Full(bias);
        }
        if let Some(size) = window
            && size <= self.positions.first().map_or(0, Vec::len) + self.seen(layer)
        {
            // A query sees itself and `size - 1` keys before it.
            options.mask = Mask { window: Some((Some(size - 1), None)), ..options.mask };
        }
        match self.caches.as_mut().and_then(|caches| caches.get_mut(layer)) {
            Some(cache) => cache.attend(heads, [q, k, v], &options, ctx),
            None => heads.forward(q, k, v, &options, ctx),
        }
    }

    fn seen(&self, layer: usize) -> usize {
        self.caches.as_ref().and_then(|caches| caches.get(layer)).map_or(0, KvCache::len)
    }
}

/// Positions of the ids from place `start` on, among the tokens of their rows.
fn positions(mask: &[Vec<u8>], start: usize) -> Vec<Vec<u32>> {
    let row = |row: &Vec<u8>| {
        let mut next = 0;
        let all = row.iter().map(|&m| {
            next += u32::from(m != 0);
            if m == 0 { 0 } else { next - 1 }
        });
        all.skip(start).collect()
    };
    mask.iter().map(row).collect()
}

fn check_positions(positions: &[Vec<u32>], most: Option<usize>) -> Result<()> {
    let Some(most) = most else { return Ok(()) };
    match positions.iter().flatten().find(|&&p| p as usize >= most) {
        Some(p) => bail!("decoder: {} tokens in a row, but there are {most} positions", p + 1),
        None => Ok(()),
    }
}

/// -inf at keys that are padding, for `t` queries: `(b, 1, t, n)`.
fn hidden(mask: &[Vec<u8>], t: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let n = mask.first().map_or(0, Vec::len);
    let bias = |&m: &u8| if m == 0 { f32::NEG_INFINITY } else { 0. };
    let rows = mask.iter().flat_map(|row| std::iter::repeat_n(row, t)).flatten();
    let rows: Vec<f32> = rows.map(bias).collect();
    Tensor::from_vec(rows, (mask.len(), 1, t, n), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

/// The last place of `xs (b, t, d)`, `(b, d)`.
pub(super) fn last(xs: &Tensor) -> Result<Tensor> {
    let (_, t, _) = xs.dims3()?;
    xs.narrow(1, t.saturating_sub(1), 1)?.squeeze(1)?.contiguous()
}
