//! Content addressing of a memory by one query a row: scores, softmax and weighted sum in one operation.
//!
//! `p = softmax(q · k_i)`, `o = Σ_i p_i v_i` (Sukhbaatar et al. 2015, MemN2N, eq. 1-3).

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor, bail};

use crate::fused;

/// Options of [`content_attention`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Content<'a> {
    /// u8 of zeros and ones, `(b, n)`: places where it is 0 get the weight 0 and no gradient, whatever their keys and values
    /// hold. A row that is masked wholly gives zeros.
    pub mask: Option<&'a Tensor>,
    /// Leave the softmax out, `p_i = q · k_i` (the linear start of section 4.2).
    pub linear: bool,
    /// For each row, a score that takes part in the softmax but has neither key nor value, such as the logarithm of the number
    /// of empty memories.
    pub absent: Option<&'a [f64]>,
}

/// What [`content_attention`] gives.
#[derive(Debug, Clone)]
pub struct Addressed {
    /// `q · k_i`, `(b, n)`; 0 at masked places.
    pub scores: Tensor,
    /// `p`, `(b, n)`.
    pub weights: Tensor,
    /// `o`, `(b, d_v)`.
    pub output: Tensor,
}

/// Addresses a memory: `query (b, d)`, `keys (b, n, d)`, `values (b, n, d_v)`. An empty memory gives zeros.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::content::{Content, content_attention};
/// let query = Tensor::new(&[[1f32, 0.]], &Device::Cpu)?;
/// let memory = Tensor::new(&[[[1f32, 0.], [1., 2.]]], &Device::Cpu)?;
/// let read = content_attention(&query, &memory, &memory, Content::default())?;
/// assert_eq!(read.weights.to_vec2::<f32>()?, [[0.5, 0.5]]);
/// assert_eq!(read.output.to_vec2::<f32>()?, [[1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit or the mask is not u8, naming them.
pub fn content_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    options: Content<'_>,
) -> Result<Addressed> {
    let (b, n, d) = keys.dims3()?;
    if query.dims() != [b, d] {
        bail!("content_attention: expected the query ({b}, {d}), got {:?}", query.dims());
    }
    let (vb, vn, d_v) = values.dims3()?;
    if (vb, vn) != (b, n) {
        bail!("content_attention: expected values ({b}, {n}, d_v), got {:?}", values.dims());
    }
    if let Some(mask) = options.mask
        && (mask.dims() != [b, n] || mask.dtype() != DType::U8)
    {
        let (dims, dtype) = (mask.dims(), mask.dtype());
        bail!("content_attention: expected the mask ({b}, {n}) of U8, got {dims:?} of {dtype:?}");
    }
    if let Some(absent) = options.absent
        && absent.len() != b
    {
        bail!("content_attention: {} absent scores for a batch of {b}", absent.len());
    }
    if b == 0 || n == 0 {
        let zeros = |shape| Tensor::zeros(shape, values.dtype(), values.device());
        let weights = zeros((b, n))?;
        return Ok(Addressed { scores: weights.clone(), weights, output: zeros((b, d_v))? });
    }
    if d > 0 && d_v > 0 && fused::takes(&[query, keys, values]) {
        return cpu::content_attention(query, keys, values, options);
    }
    #[cfg(cuda_path)]
    if d > 0 && d_v > 0 && cuda::can(query, keys, values, options) {
        return cuda::content_attention(query, keys, values, options);
    }
    plain::content_attention(query, keys, values, options)
}
