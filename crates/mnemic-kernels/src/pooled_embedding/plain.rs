//! The definition, in ordinary candle operations.

use candle_core::{D, Result, Tensor};

/// Plain twin of [`super::embedding`].
pub fn embedding(table: &Tensor, ids: &Tensor, padding: Option<u32>) -> Result<Tensor> {
    let (_, d) = table.dims2()?;
    let rows = table.contiguous()?.index_select(&ids.flatten_all()?, 0)?;
    let mut shape = ids.dims().to_vec();
    shape.push(d);
    let rows = rows.reshape(shape)?;
    match padding {
        None => Ok(rows),
        Some(p) => {
            let kept = ids.ne(p)?.to_dtype(table.dtype())?.unsqueeze(D::Minus1)?;
            rows.broadcast_mul(&kept)
        }
    }
}

/// Plain twin of [`super::pooled_embedding`].
pub fn pooled_embedding(
    table: &Tensor,
    ids: &Tensor,
    weights: Option<&Tensor>,
    padding: Option<u32>,
) -> Result<Tensor> {
    let rows = embedding(table, ids, padding)?; // (…, j, d)
    let rows = match weights {
        Some(w) => rows.broadcast_mul(w)?,
        None => rows,
    };
    rows.sum(rows.rank() - 2)
}
