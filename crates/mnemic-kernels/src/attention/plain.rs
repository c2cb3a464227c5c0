//! The definition, in ordinary candle operations: the whole matrix of scores, and relative terms by gathering.

use candle_core::{D, Device, Result, Tensor};

use super::{Attended, Attention, Bias, Relative, Sizes, scale};
use crate::rng::Philox;

/// Plain twin of [`super::attention`].
///
/// # Errors
/// When shapes, types or options do not fit, naming them.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention<'_>) -> Result<Attended> {
    let sizes = Sizes::new(q, k, Some(v))?;
    sizes.check(q, options)?;
    let Sizes { b, h, n_q, n_k, d_v, .. } = sizes;
    if b == 0 || n_q == 0 || n_k == 0 {
        let empty = Tensor::full(f32::NEG_INFINITY, (b, h, n_q), q.device())?;
        return Ok(Attended {
            output: Tensor::zeros((b, h, n_q, d_v), q.dtype(), q.device())?,
            log_sum_exp: empty.to_dtype(q.dtype())?,
        });
    }
    let (mut weights, log_sum_exp) = softmax(&scores(&sizes, q, k, options)?)?;
    if let Some((p, rng)) = options.dropout {
        weights = weights.mul(&kept(&sizes, p, rng, q)?)?;
    }
    let mut output = grouped(&sizes, &weights, v)?;
    if let Relative::Shaw { values: Some(values), .. } = options.relative {
        output = (output + shaw_values(&sizes, &weights, values)?)?;
    }
    Ok(Attended { output, log_sum_exp })
}

/// Plain twin of [`super::attention_weights`].
///
/// # Errors
/// When shapes, types or options do not fit, naming them.
pub fn attention_weights(q: &Tensor, k: &Tensor, options: &Attention<'_>) -> Result<Tensor> {
    let sizes = Sizes::new(q, k, None)?;
    sizes.check(q, options)?;
    let Sizes { b, h, n_q, n_k, .. } = sizes;
    if b == 0 || n_q == 0 || n_k == 0 {
        return Tensor::zeros((b, h, n_q, n_k), q.dtype(), q.device());
    }
    Ok(softmax(&scores(&sizes, q, k, options)?)?.0)
}

/// Scores `(b, h, n_q, n_k)`, -inf where masked.
fn scores(sizes: &Sizes, q: &Tensor, k: &Tensor, options: &Attention<'_>) -> Result<Tensor> {
    let Sizes { h, n_q, n_k, .. } = *sizes;
    let mut scores = grouped(sizes, q, &k.transpose(2, 3)?)?;
    match options.relative {
        Relative::None => {}
        Relative::Music(table) => scores = (scores + music(sizes, q, table)?)?,
        Relative::Shaw { keys, .. } => scores = (scores + shaw_keys(sizes, q, keys)?)?,
    }
    scores = (scores * scale(options, sizes.d))?;
    match options.bias {
        Bias::None => {}
        Bias::Full(bias) => scores = scores.broadcast_add(bias)?,
        Bias::Alibi(slopes) => {
            let far = |m: f64| {
                table(n_q, n_k, move |i, j| -m * (i as f64 + n_k as f64 - (j + n_q) as f64).abs())
            };
            let bias: Vec<f64> = slopes.iter().flat_map(|&m| far(m)).collect();
            let bias = Tensor::from_vec(bias, (1, h, n_q, n_k), q.device())?;
            scores = scores.broadcast_add(&bias.to_dtype(q.dtype())?)?;
        }
        Bias::Distance(values) => {
            let index = table(n_q, n_k, |i, j| (j + n_q - 1 - i) as u32);
            let index = Tensor::from_vec(index, n_q * n_k, q.device())?;
            let bias = values.index_select(&index, 1)?.reshape((1, h, n_q, n_k))?;
            scores = scores.broadcast_add(&bias)?;
        }
    }
    masked(sizes, &scores, options)
}

/// `-inf` at the keys that a query does not see.
fn masked(sizes: &Sizes, scores: &Tensor, options: &Attention<'_>) -> Result<Tensor> {
    let Sizes { b, n_q, n_k, .. } = *sizes;
    let seen: Vec<u8> = (0..b)
        .flat_map(|row| (0..n_q).map(move |i| options.mask.keys(row, i, n_q, n_k)))
        .flat_map(|keys| (0..n_k).map(move |j| u8::from(keys.contains(&j))))
        .collect();
    let seen = Tensor::from_vec(seen, (b, 1, n_q, n_k), scores.device())?;
    let hidden = Tensor::full(f32::NEG_INFINITY, scores.shape(), scores.device())?;
    seen.broadcast_as(scores.shape())?
        .contiguous()?
        .where_cond(scores, &hidden.to_dtype(scores.dtype())?)
}

/// The softmax of each row, and the logarithm of its sum. A row of `-inf` gives zeros and `-inf`.
fn softmax(scores: &Tensor) -> Result<(Tensor, Tensor)> {
    // The maximum is a constant shift: cutting it from the graph leaves the gradient exact.
    let max = scores.detach().max_keepdim(D::Minus1)?;
    let empty = max.eq(f64::NEG_INFINITY)?;
    let max = empty.where_cond(&max.zeros_like()?, &max)?;
    let exp = scores.broadcast_sub(&max)?.exp()?;
    // An empty row divides by one.
    let sum = (exp.sum_keepdim(D::Minus1)? + empty.to_dtype(exp.dtype())?)?;
    let log_sum = (sum.log()? + max)?;
    let low = Tensor::full(f32::NEG_INFINITY, log_sum.shape(), scores.device())?;
    let log_sum = empty.where_cond(&low.to_dtype(scores.dtype())?, &log_sum)?;
    Ok((exp.broadcast_div(&sum)?, log_sum.squeeze(D::Minus1)?))
}

/// `lhs (b, h, m, x)` times `rhs (b, h_kv, x, y)` of the group's head: `(b, h, m, y)`.
fn grouped(sizes: &Sizes, lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    let &Sizes { b, h, h_kv, .. } = sizes;
    let (m, x) = (lhs.dim(2)?, lhs.dim(3)?);
    let product =
        lhs.reshape((b, h_kv, h / h_kv * m, x))?.contiguous()?.matmul(&rhs.contiguous()?)?;
    product.reshape((b, h, m, rhs.dim(3)?))
}

/// `f(i, j)` for all queries and keys, row-major.
fn table<T>(n_q: usize, n_k: usize, f: impl Fn(usize, usize) -> T) -> Vec<T> {
    let f = &f;
    (0..n_q).flat_map(|i| (0..n_k).map(move |j| f(i, j))).collect()
}

/// An index `(b, h, n_q, n_k)` that is the same for all heads.
fn index(sizes: &Sizes, index: Vec<u32>, device: &Device) -> Result<Tensor> {
    let &Sizes { b, h, n_q, n_k, .. } = sizes;
    let index = Tensor::from_vec(index, (1, 1, n_q, n_k), device)?;
    index.broadcast_as((b, h, n_q, n_k))?.contiguous()
}

/// `q_i·e_{L-1-t}` at distance `t = i + δ - j`, 0 outside of the table.
fn music(sizes: &Sizes, q: &Tensor, vectors: &Tensor) -> Result<Tensor> {
    let &Sizes { n_q, n_k, .. } = sizes;
    let l = vectors.dim(1)?;
    // `e_{L-1-t}` as a row of the table, if it has one.
    let row = |i: usize, j: usize| (l + j + n_q).checked_sub(1 + i + n_k).filter(|&row| row < l);
    let products = q.broadcast_matmul(&vectors.transpose(1, 2)?.unsqueeze(0)?)?;
    let rows = index(sizes, table(n_q, n_k, |i, j| row(i, j).unwrap_or(0) as u32), q.device())?;
    let has = table(n_q, n_k, |i, j| f64::from(u8::from(row(i, j).is_some())));
    let has = Tensor::from_vec(has, (n_q, n_k), q.device())?.to_dtype(q.dtype())?;
    products.contiguous()?.gather(&rows, 3)?.broadcast_mul(&has)
}

/// The row of Shaw's tables at each query and key: `clip(j - i - δ, -k, k) + k`.
fn shaw_rows(sizes: &Sizes, rows: usize) -> Vec<u32> {
    let &Sizes { n_q, n_k, .. } = sizes;
    let k = rows / 2;
    table(n_q, n_k, |i, j| (j + n_q + k).saturating_sub(i + n_k).min(2 * k) as u32)
}

/// `q_i·a_{ij}`.
fn shaw_keys(sizes: &Sizes, q: &Tensor, keys: &Tensor) -> Result<Tensor> {
    let rows = keys.dim(0)?;
    let products = q.broadcast_matmul(&keys.t()?)?.contiguous()?;
    products.gather(&index(sizes, shaw_rows(sizes, rows), q.device())?, 3)
}

/// `Σ_j p_ij a_{ij}`, a product `(b h, n_k) (n_k, d_v)` for each query.
fn shaw_values(sizes: &Sizes, weights: &Tensor, values: &Tensor) -> Result<Tensor> {
    let &Sizes { b, h, n_q, n_k, d_v, .. } = sizes;
    let rows = Tensor::from_vec(shaw_rows(sizes, values.dim(0)?), n_q * n_k, values.device())?;
    let values = values.index_select(&rows, 0)?.reshape((n_q, n_k, d_v))?;
    let weights = weights.reshape((b * h, n_q, n_k))?.transpose(0, 1)?.contiguous()?;
    weights.matmul(&values)?.transpose(0, 1)?.reshape((b, h, n_q, d_v))
}

/// `1 / (1 - p)` where a weight is kept, 0 where it is dropped.
fn kept(sizes: &Sizes, p: f64, rng: Philox, like: &Tensor) -> Result<Tensor> {
    let &Sizes { b, h, n_q, n_k, .. } = sizes;
    let factor = if p < 1. { 1. / (1. - p) } else { 0. };
    let threshold = (p * 4_294_967_296.0) as u64;
    let n = b * h * n_q * n_k;
    let kept: Vec<f64> = (0..n.div_ceil(4) as u64)
        .flat_map(|block| rng.block(block))
        .map(|word| if u64::from(word) < threshold { 0. } else { factor })
        .take(n)
        .collect();
    Tensor::from_vec(kept, (b, h, n_q, n_k), like.device())?.to_dtype(like.dtype())
}
