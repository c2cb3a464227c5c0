//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use crate::softmax::{masked_softmax, softmax};

/// Plain twin of [`super::content_attention`].
pub fn content_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    linear: bool,
) -> Result<(Tensor, Tensor)> {
    // Masked rows are cut out: zero times what they hold need not be zero.
    let cut = |rows: &Tensor| match mask {
        Some(m) => {
            m.unsqueeze(2)?.broadcast_as(rows.shape())?.where_cond(rows, &rows.zeros_like()?)
        }
        None => Ok(rows.clone()),
    };
    let (keys, values) = (cut(keys)?, cut(values)?);
    let scores = keys.matmul(&query.unsqueeze(2)?)?.squeeze(2)?; // (b, n)
    let weights = match (linear, mask) {
        (false, None) => softmax(&scores)?,
        (false, Some(mask)) => masked_softmax(&scores, mask)?,
        (true, _) => scores,
    };
    let output = weights.unsqueeze(1)?.matmul(&values)?.squeeze(1)?; // (b, d_v)
    Ok((weights, output))
}
