//! Embedding of word ids, plain and pooled over the words of a sentence.
//!
//! `y = Σ_j l_j ∘ E[x_j]` for ids `x (…, j)`, a table `E (v, d)` and position weights `l (j, d)`: a bag of words with `l = 1`, the
//! position encoding of Sukhbaatar et al. 2015 (MemN2N, section 4.1) otherwise. A padding id adds nothing and gets no gradient.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;

use candle_core::{DType, Result, Tensor, bail};

/// The rows of `table` `(v, d)` at `ids` (u32, any shape): `(…, d)`. Rows at `padding` are zero and pass no gradient on.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::pooled_embedding::embedding;
/// let table = Tensor::new(&[[9f32, 9.], [1., 0.], [0., 2.]], &Device::Cpu)?;
/// let rows = embedding(&table, &Tensor::new(&[2u32, 0], &Device::Cpu)?, Some(0))?;
/// assert_eq!(rows.to_vec2::<f32>()?, [[0., 2.], [0., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the table is not a matrix, the ids are not u32, or one is not below `v`.
pub fn embedding(table: &Tensor, ids: &Tensor, padding: Option<u32>) -> Result<Tensor> {
    check_ids(ids)?;
    if cpu::takes(table, ids, None) {
        return cpu::pooled_embedding(table, ids, 1, ids.dims(), None, padding);
    }
    #[cfg(cuda_path)]
    if cuda::can(table, ids, None) {
        return cuda::pooled_embedding(table, ids, 1, ids.dims(), None, padding);
    }
    plain::embedding(table, ids, padding)
}

/// The pooled embedding of `ids` (u32, `(…, j)`): `(…, d)`. `weights`, if given, is `(j, d)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::pooled_embedding::pooled_embedding;
/// let table = Tensor::new(&[[9f32, 9.], [1., 0.], [0., 2.]], &Device::Cpu)?;
/// let ids = Tensor::new(&[[1u32, 2, 0]], &Device::Cpu)?;
/// assert_eq!(pooled_embedding(&table, &ids, None, Some(0))?.to_vec2::<f32>()?, [[1., 2.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, the ids are not u32, or one is not below `v`.
pub fn pooled_embedding(
    table: &Tensor,
    ids: &Tensor,
    weights: Option<&Tensor>,
    padding: Option<u32>,
) -> Result<Tensor> {
    let (_, d) = table.dims2()?;
    check_ids(ids)?;
    let Some(&j) = ids.dims().last() else { bail!("pooled_embedding: ids are a scalar") };
    if let Some(w) = weights
        && w.dims() != [j, d]
    {
        bail!("pooled_embedding: expected ({j}, {d}) position weights, got {:?}", w.dims());
    }
    if j > 0 && cpu::takes(table, ids, weights) {
        let outer = &ids.dims()[..ids.rank() - 1];
        return cpu::pooled_embedding(table, ids, j, outer, weights, padding);
    }
    #[cfg(cuda_path)]
    if cuda::can(table, ids, weights) {
        let outer = &ids.dims()[..ids.rank() - 1];
        return cuda::pooled_embedding(table, ids, j, outer, weights, padding);
    }
    plain::pooled_embedding(table, ids, weights, padding)
}

fn check_ids(ids: &Tensor) -> Result<()> {
    if ids.dtype() != DType::U32 {
        bail!("pooled_embedding: expected u32 ids, got {:?}", ids.dtype());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
