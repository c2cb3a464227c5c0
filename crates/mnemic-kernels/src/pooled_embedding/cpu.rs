//! The fused CPU path: sums rows of the table without the tensor of all words; its backward pass touches only rows used.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::real::{Real, slice, to_vec};

/// Below so many numbers, threads cost more than they give.
const PARALLEL: usize = 1 << 15;

/// Whether the fused path can take these operands.
pub(super) fn takes(table: &Tensor, weights: Option<&Tensor>) -> bool {
    // Weights that are themselves trained need a gradient, which the plain twin gives.
    let constant = weights.is_none_or(|w| !w.track_op() && w.dtype() == table.dtype());
    let float = matches!(table.dtype(), DType::F32 | DType::F64);
    table.device().is_cpu() && float && constant
}

/// `table (v, d)` to `(rows, d)`: the sum of `words` table rows each, with weights `(words, d)`.
struct PooledOp {
    ids: Vec<u32>,
    words: usize,
    weights: Option<Tensor>,
    padding: Option<u32>,
}

impl PooledOp {
    fn weights<T: Real>(&self) -> Result<Option<Vec<T>>> {
        self.weights.as_ref().map(to_vec).transpose()
    }

    fn forward<T: Real>(&self, table: &[T], d: usize) -> Result<Vec<T>> {
        let weights = self.weights::<T>()?;
        let rows = self.ids.len() / self.words;
        let mut out = vec![T::ZERO; rows * d];
        let one = |(out, ids): (&mut [T], &[u32])| {
            for (j, &id) in ids.iter().enumerate() {
                if Some(id) == self.padding {
                    continue;
                }
                let row = &table[id as usize * d..][..d];
                match &weights {
                    Some(w) => {
                        let w = &w[j * d..][..d];
                        out.iter_mut().zip(row).zip(w).for_each(|((o, v), w)| *o += *v * *w);
                    }
                    None => out.iter_mut().zip(row).for_each(|(o, v)| *o += *v),
                }
            }
        };
        if self.ids.len() * d < PARALLEL {
            out.chunks_mut(d).zip(self.ids.chunks(self.words)).for_each(one);
        } else {
            let ids = self.ids.par_chunks(self.words);
            out.par_chunks_mut(d).zip(ids).with_min_len(64).for_each(one);
        }
        Ok(out)
    }

    /// Rows in order, so that the sum is the same for any number of threads.
    fn backward<T: Real>(&self, grad: &[T], v: usize, d: usize) -> Result<Vec<T>> {
        let weights = self.weights::<T>()?;
        let mut table = vec![T::ZERO; v * d];
        for (grad, ids) in grad.chunks(d).zip(self.ids.chunks(self.words)) {
            for (j, &id) in ids.iter().enumerate() {
                if Some(id) == self.padding {
                    continue;
                }
                let row = &mut table[id as usize * d..][..d];
                match &weights {
                    Some(w) => {
                        let w = &w[j * d..][..d];
                        row.iter_mut().zip(grad).zip(w).for_each(|((t, g), w)| *t += *g * *w);
                    }
                    None => row.iter_mut().zip(grad).for_each(|(t, g)| *t += *g),
                }
            }
        }
        Ok(table)
    }
}

impl CustomOp1 for PooledOp {
    fn name(&self) -> &'static str {
        "mnemic-pooled-embedding"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, d) = layout.shape().dims2()?;
        let shape = Shape::from((self.ids.len() / self.words, d));
        let out = match storage {
            CpuStorage::F32(_) => {
                f32::storage(self.forward(slice("pooled_embedding", storage, layout)?, d)?)
            }
            CpuStorage::F64(_) => {
                f64::storage(self.forward(slice("pooled_embedding", storage, layout)?, d)?)
            }
            _ => bail!("pooled_embedding: expected f32 or f64"),
        };
        Ok((out, shape))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (v, d) = table.dims2()?;
        Ok(Some(match table.dtype() {
            DType::F64 => Tensor::from_vec(
                self.backward::<f64>(&to_vec(grad)?, v, d)?,
                (v, d),
                table.device(),
            )?,
            _ => Tensor::from_vec(
                self.backward::<f32>(&to_vec(grad)?, v, d)?,
                (v, d),
                table.device(),
            )?,
        }))
    }
}

/// `ids` in groups of `words` to vectors of shape `(outer, d)`.
pub(super) fn pooled_embedding(
    table: &Tensor,
    ids: &Tensor,
    words: usize,
    outer: &[usize],
    weights: Option<&Tensor>,
    padding: Option<u32>,
) -> Result<Tensor> {
    let (v, d) = table.dims2()?;
    let mut shape = outer.to_vec();
    let host = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(bad) = host.iter().find(|&&id| id as usize >= v) {
        bail!("pooled_embedding: id {bad} is not below the table's {v} rows");
    }
    shape.push(d);
    if host.is_empty() || d == 0 {
        return Tensor::zeros(shape, table.dtype(), table.device());
    }
    let op = PooledOp { ids: host, words, weights: weights.cloned(), padding };
    table.contiguous()?.apply_op1(op)?.reshape(shape)
}
