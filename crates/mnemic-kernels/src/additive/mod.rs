//! Additive attention: the scores `e_ts = v · tanh(q_t + k_s)` of every query and key, and their masked softmax.
//!
//! Bahdanau et al. 2014 (alignment model, section A.1.2) and Vinyals et al. 2015 (Pointer Networks, eq. 3), of queries and keys that
//! are already projected. The tensor of all sums, `(b, t, s, d)`, is never kept: the backward pass computes its tanh again.
//!
//! The fused path takes `tanh(q + k) = 1 - 2 / (e^{2q} e^{2k} + 1)`, whose exponentials are one for each query and key instead of one
//! for each pair, as long as all of them lie in `[-10, 10]`; in 32 bits it then is within 2.5e-7 of the true value. Rows of the
//! batch with larger numbers take tanh itself.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
mod sweep;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor, bail};

use crate::fused;

/// What is made of the scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Scores,
    Softmax,
    LogSoftmax,
}

/// The scores `e_ts = Σ_d v_d tanh(q_td + k_sd)`, `(b, t, s)`, of `queries (b, t, d)`, `keys (b, s, d)` and `v (d)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::additive::additive_scores;
/// let queries = Tensor::new(&[[[0f32]]], &Device::Cpu)?;
/// let keys = Tensor::new(&[[[0f32], [1.], [-1.]]], &Device::Cpu)?;
/// let e = additive_scores(&queries, &keys, &Tensor::new(&[1f32], &Device::Cpu)?)?;
/// let e = e.flatten_all()?.to_vec1::<f32>()?;
/// assert!(e[0] == 0. && (e[1] - 0.761594).abs() < 1e-6 && (e[2] + 0.761594).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn additive_scores(queries: &Tensor, keys: &Tensor, v: &Tensor) -> Result<Tensor> {
    additive(queries, keys, v, None, Output::Scores)
}

/// The weights `softmax_s(e_ts)`, `(b, t, s)`, of the [scores](additive_scores).
///
/// Places where `mask` (u8 of zeros and ones, `(b, s)` for all queries or `(b, t, s)`) is 0 get the weight 0 and no gradient; what
/// keys and queries hold that are masked throughout has no effect. A query whose keys are all masked gets zeros.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::additive::additive_attention;
/// let queries = Tensor::new(&[[[0f32]]], &Device::Cpu)?;
/// let keys = Tensor::new(&[[[3f32], [3.], [-1.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// let v = Tensor::new(&[1f32], &Device::Cpu)?;
/// let p = additive_attention(&queries, &keys, &v, Some(&mask))?;
/// assert_eq!(p.to_vec3::<f32>()?, [[[0.5, 0.5, 0.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit or the mask is not u8, naming them.
pub fn additive_attention(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    additive(queries, keys, v, mask, Output::Softmax)
}

/// The logarithms of the weights of [`additive_attention`], as the loss of a pointer network needs them: `-inf` and no gradient at
/// masked places.
///
/// Pick the targets by `gather`; a product with zeros and ones would make NaN of the `-inf`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::additive::additive_log_softmax;
/// let queries = Tensor::new(&[[[0f32]]], &Device::Cpu)?;
/// let keys = Tensor::new(&[[[3f32], [3.], [-1.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// let v = Tensor::new(&[1f32], &Device::Cpu)?;
/// let log_p = additive_log_softmax(&queries, &keys, &v, Some(&mask))?.flatten_all()?;
/// let log_p = log_p.to_vec1::<f32>()?;
/// assert!((log_p[0] + 2f32.ln()).abs() < 1e-6 && log_p[2] == f32::NEG_INFINITY);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// As [`additive_attention`].
pub fn additive_log_softmax(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    additive(queries, keys, v, mask, Output::LogSoftmax)
}

fn additive(
    queries: &Tensor,
    keys: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    output: Output,
) -> Result<Tensor> {
    check(queries, keys, v, mask)?;
    let (b, t, d) = queries.dims3()?;
    let s = keys.dim(1)?;
    if b == 0 || t == 0 || s == 0 {
        return Tensor::zeros((b, t, s), queries.dtype(), queries.device());
    }
    if d > 0 && fused::takes(&[queries, keys, v]) {
        return cpu::additive(queries, keys, v, mask, output);
    }
    #[cfg(cuda_path)]
    if cuda::can(queries, keys, v, mask) {
        return cuda::additive(queries, keys, v, mask, output);
    }
    match output {
        Output::Scores => plain::additive_scores(queries, keys, v),
        Output::Softmax => plain::additive_attention(queries, keys, v, mask),
        Output::LogSoftmax => plain::additive_log_softmax(queries, keys, v, mask),
    }
}

fn check(queries: &Tensor, keys: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<()> {
    let (b, t, d) = queries.dims3()?;
    let (kb, s, kd) = keys.dims3()?;
    if (kb, kd) != (b, d) {
        bail!("additive attention: expected keys ({b}, s, {d}), got {:?}", keys.dims());
    }
    if v.dims() != [d] {
        bail!("additive attention: expected v ({d}), got {:?}", v.dims());
    }
    if let Some(m) = mask
        && ((m.dims() != [b, s] && m.dims() != [b, t, s]) || m.dtype() != DType::U8)
    {
        let (dims, dtype) = (m.dims(), m.dtype());
        bail!(
            "additive attention: expected the mask ({b}, {s}) or ({b}, {t}, {s}) of U8, got {dims:?} \
             of {dtype:?}"
        );
    }
    Ok(())
}
