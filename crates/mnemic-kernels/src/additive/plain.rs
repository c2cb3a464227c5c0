//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use crate::softmax::{log_softmax, masked_softmax, softmax};

/// Plain twin of [`super::additive_scores`].
pub fn additive_scores(queries: &Tensor, keys: &Tensor, v: &Tensor) -> Result<Tensor> {
    let sums = queries.unsqueeze(2)?.broadcast_add(&keys.unsqueeze(1)?)?; // (b, t, s, d)
    sums.tanh()?.broadcast_mul(v)?.sum(3)
}

/// Plain twin of [`super::additive_attention`].
pub fn additive_attention(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let scores = additive_scores(queries, keys, v)?;
    match full(mask, &scores)? {
        Some(mask) => masked_softmax(&mask.where_cond(&scores, &scores.zeros_like()?)?, &mask),
        None => softmax(&scores),
    }
}

/// Plain twin of [`super::additive_log_softmax`].
pub fn additive_log_softmax(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let scores = additive_scores(queries, keys, v)?;
    let Some(mask) = full(mask, &scores)? else { return log_softmax(&scores) };
    // Far below every score, yet finite, so that a row without any key makes no NaN.
    let low = scores.zeros_like()?.affine(0., -1e30)?;
    let log_p = log_softmax(&mask.where_cond(&scores, &low)?)?;
    mask.where_cond(&log_p, &low.affine(0., f64::NEG_INFINITY)?)
}

/// The mask, `(b, s)` or `(b, t, s)`, in the shape of the scores.
fn full(mask: Option<&Tensor>, scores: &Tensor) -> Result<Option<Tensor>> {
    let wide = |m: &Tensor| {
        let m = if m.rank() == 2 { m.unsqueeze(1)? } else { m.clone() };
        m.broadcast_as(scores.shape())?.contiguous()
    };
    mask.map(wide).transpose()
}
