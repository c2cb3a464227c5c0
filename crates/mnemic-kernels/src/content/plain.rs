//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use super::{Addressed, Content};
use crate::softmax::plain::{masked_softmax, softmax};

/// Plain twin of [`super::content_attention`].
pub fn content_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    options: Content<'_>,
) -> Result<Addressed> {
    let Content { mask, linear, absent } = options;
    let (b, n, _) = keys.dims3()?;
    // Masked rows are cut out: zero times what they hold need not be zero.
    let cut = |rows: &Tensor| match mask {
        Some(m) => {
            m.unsqueeze(2)?.broadcast_as(rows.shape())?.where_cond(rows, &rows.zeros_like()?)
        }
        None => Ok(rows.clone()),
    };
    let (keys, values) = (cut(keys)?, cut(values)?);
    let scores = keys.matmul(&query.unsqueeze(2)?)?.squeeze(2)?; // (b, n)
    // An absent place is one more column of scores, always kept.
    let (wide, mask) = match absent {
        None => (scores.clone(), mask.cloned()),
        Some(absent) => {
            let column = Tensor::from_slice(absent, (b, 1), keys.device())?;
            let one = column.ones_like()?.to_dtype(candle_core::DType::U8)?;
            let mask = mask.map(|m| Tensor::cat(&[m, &one], 1)).transpose()?;
            (Tensor::cat(&[&scores, &column.to_dtype(scores.dtype())?], 1)?, mask)
        }
    };
    let weights = match (linear, &mask) {
        (false, None) => softmax(&wide)?.narrow(1, 0, n)?,
        (false, Some(mask)) => masked_softmax(&wide, mask)?.narrow(1, 0, n)?,
        (true, _) => scores.clone(),
    };
    let output = weights.unsqueeze(1)?.matmul(&values)?.squeeze(1)?; // (b, d_v)
    Ok(Addressed { scores, weights, output })
}
