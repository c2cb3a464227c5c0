//! Content addressing of a memory by one query a row: scores, softmax and weighted sum in one operation.
//!
//! `p = softmax(q · k_i)`, `o = Σ_i p_i v_i` (Sukhbaatar et al. 2015, MemN2N, eq. 1-3).

mod cpu;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor, bail};

use crate::fused;

/// The weights `p (b, n)` and the output `o (b, d_v)` of `query (b, d)`, `keys (b, n, d)` and `values (b, n, d_v)`.
///
/// Places where `mask` (u8 of zeros and ones, `(b, n)`) is 0 get the weight 0 and no gradient, whatever their keys and values
/// hold; a row that is masked wholly gives zeros, and so does an empty memory. With `linear` the softmax is left out,
/// `p_i = q · k_i` (the linear start of section 4.2).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::content::content_attention;
/// let query = Tensor::new(&[[1f32, 0.]], &Device::Cpu)?;
/// let memory = Tensor::new(&[[[1f32, 0.], [1., 2.]]], &Device::Cpu)?;
/// let (weights, output) = content_attention(&query, &memory, &memory, None, false)?;
/// assert_eq!(weights.to_vec2::<f32>()?, [[0.5, 0.5]]);
/// assert_eq!(output.to_vec2::<f32>()?, [[1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit or the mask is not u8, naming them.
pub fn content_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    linear: bool,
) -> Result<(Tensor, Tensor)> {
    let (b, n, d) = keys.dims3()?;
    if query.dims() != [b, d] {
        bail!("content_attention: expected the query ({b}, {d}), got {:?}", query.dims());
    }
    let (vb, vn, d_v) = values.dims3()?;
    if (vb, vn) != (b, n) {
        bail!("content_attention: expected values ({b}, {n}, d_v), got {:?}", values.dims());
    }
    if let Some(mask) = mask
        && (mask.dims() != [b, n] || mask.dtype() != DType::U8)
    {
        let (dims, dtype) = (mask.dims(), mask.dtype());
        bail!("content_attention: expected the mask ({b}, {n}) of U8, got {dims:?} of {dtype:?}");
    }
    if b == 0 || n == 0 {
        let zeros = |shape| Tensor::zeros(shape, values.dtype(), values.device());
        return Ok((zeros((b, n))?, zeros((b, d_v))?));
    }
    if d > 0 && d_v > 0 && fused::takes(&[query, keys, values]) {
        return cpu::content_attention(query, keys, values, mask, linear);
    }
    plain::content_attention(query, keys, values, mask, linear)
}
