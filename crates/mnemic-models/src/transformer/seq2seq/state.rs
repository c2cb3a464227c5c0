//! What a decoder has read.

use candle_core::{Result, Tensor, bail};
use mnemic_layers::KvCache;

use crate::text::TextBatch;

/// Keys and values that attention reads, `(b, h, n, d)` each.
pub(in crate::transformer) type KeysValues = (Tensor, Tensor);

/// What an encoder-decoder has read while it writes: the encoder's keys and values for every layer of the decoder, computed once, and
/// those of the tokens so far.
#[derive(Debug, Clone)]
pub struct DecoderState {
    pub(in crate::transformer) source: TextBatch,
    pub(in crate::transformer) cross: Vec<KeysValues>,
    pub(in crate::transformer) caches: Vec<KvCache>,
    /// The number of tokens that were read.
    pub(in crate::transformer) read: usize,
    /// The row of the source batch that each row writes to.
    origins: Vec<u32>,
}

impl DecoderState {
    /// Nothing read but the source: `cross` are the keys and values of its encoding, one pair a layer.
    pub(in crate::transformer) fn new(source: &TextBatch, cross: Vec<KeysValues>) -> Result<Self> {
        let caches = cross.iter().map(|_| KvCache::new()).collect();
        // Laid out once for all steps.
        let cross = cross
            .iter()
            .map(|(k, v)| Ok((k.contiguous()?, v.contiguous()?)))
            .collect::<Result<_>>()?;
        let origins = (0..source.dims()?.0 as u32).collect();
        Ok(Self { source: source.clone(), cross, caches, read: 0, origins })
    }

    /// Refuses ids that are not one row for each of the state's.
    pub(in crate::transformer) fn check(&self, ids: &Tensor) -> Result<()> {
        let (rows, (b, t)) = (self.origins.len(), ids.dims2()?);
        match b == rows && t > 0 {
            true => Ok(()),
            false => bail!("expected ids ({rows}, t), got ({b}, {t})"),
        }
    }

    /// Makes row `i` what row `rows[i]` was.
    pub(in crate::transformer) fn select(&mut self, rows: &[u32]) -> Result<()> {
        let origin = |&row: &u32| self.origins.get(row as usize).copied();
        let Some(origins) = rows.iter().map(origin).collect::<Option<Vec<u32>>>() else {
            bail!("expected rows below {}, got {rows:?}", self.origins.len())
        };
        for cache in &mut self.caches {
            cache.select(rows)?;
        }
        // Beams of one source exchange their past, but what they attend to stays the same.
        if origins != self.origins {
            let index = Tensor::new(rows, self.source.input_ids().device())?;
            for (k, v) in &mut self.cross {
                (*k, *v) = (k.index_select(&index, 0)?, v.index_select(&index, 0)?);
            }
            self.source = self.source.select(rows)?;
            self.origins = origins;
        }
        Ok(())
    }
}
