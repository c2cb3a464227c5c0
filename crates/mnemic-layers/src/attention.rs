//! Content attention of one query over a memory.

use candle_core::{Result, Tensor, bail};
use mnemic_kernels::softmax::{masked_softmax, softmax};

/// Dot-product attention `p = softmax(q · k_i)`, `o = Σ_i p_i v_i` (Sukhbaatar et al. 2015, eq.
/// 1-3): the weights `(b, n)` and the output `(b, d_v)` of `query (b, d)`, `keys (b, n, d)`,
/// `values (b, n, d_v)`.
///
/// Places where `mask` (u8 `(b, n)`) is 0 get the weight 0 and no gradient; a row that is masked
/// wholly gives zeros. With `linear` the softmax is left out, `p_i = q · k_i` (the paper's linear
/// start, section 4.2). Masked keys and values must still be finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_layers::dot_attention;
/// let query = Tensor::new(&[[1f32, 0.]], &Device::Cpu)?;
/// let memory = Tensor::new(&[[[1f32, 0.], [1., 2.]]], &Device::Cpu)?;
/// let (weights, output) = dot_attention(&query, &memory, &memory, None, false)?;
/// assert_eq!(weights.to_vec2::<f32>()?, [[0.5, 0.5]]);
/// assert_eq!(output.to_vec2::<f32>()?, [[1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn dot_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    linear: bool,
) -> Result<(Tensor, Tensor)> {
    let (b, n, d) = keys.dims3()?;
    if query.dims() != [b, d] {
        bail!("dot_attention: expected the query ({b}, {d}), got {:?}", query.dims());
    }
    let (vb, vn, _) = values.dims3()?;
    if (vb, vn) != (b, n) {
        bail!("dot_attention: expected values ({b}, {n}, d), got {:?}", values.dims());
    }
    if let Some(mask) = mask
        && mask.dims() != [b, n]
    {
        bail!("dot_attention: expected the mask ({b}, {n}), got {:?}", mask.dims());
    }
    let scores = keys.matmul(&query.unsqueeze(2)?)?.squeeze(2)?; // (b, n)
    let weights = match (linear, mask) {
        (false, None) => softmax(&scores)?,
        (false, Some(mask)) => masked_softmax(&scores, mask)?,
        (true, None) => scores,
        (true, Some(mask)) => mask.where_cond(&scores, &scores.zeros_like()?)?,
    };
    let output = weights.unsqueeze(1)?.matmul(values)?.squeeze(1)?; // (b, d_v)
    Ok((weights, output))
}
