//! Content attention of one query over a memory.

use candle_core::{Result, Tensor};
use mnemic_kernels::content::{Content, content_attention};

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
    let read = content_attention(query, keys, values, Content { mask, linear, absent: None })?;
    Ok((read.weights, read.output))
}
