//! The memory of the Differentiable Neural Computer: A. Graves, G. Wayne, M. Reynolds et al., Nature 538, 471-476 (2016), Methods.
//!
//! Slots are written where they are free or by content, and read by content or in the order they were written in. [`super::write`] and
//! [`super::read`] do the writing and reading with the weightings found here.
//!
//! Letters: b batch, n slots, w width of a slot, r read heads, h heads.

mod content;
mod link;
/// The definitions, in ordinary candle operations.
pub mod plain;
#[cfg(test)]
mod tests;
mod usage;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// Weightings by content, `(b, h, n)`: `softmax_i(β cos(k, M_i))` for `memory (b, n, w)`, `keys (b, h, w)` and `strengths (b, h)`, of which
/// `β = 1 + softplus`. An empty slot has the cosine 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::memory::dnc::content_weights;
/// let memory = Tensor::new(&[[[1f32, 0.], [0., 1.]]], &Device::Cpu)?;
/// let weights = content_weights(&memory, &Tensor::new(&[[[0f32, 2.]]], &Device::Cpu)?, &Tensor::new(&[[200f32]], &Device::Cpu)?)?;
/// assert_eq!(weights.to_vec3::<f32>()?, [[[0., 1.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn content_weights(memory: &Tensor, keys: &Tensor, strengths: &Tensor) -> Result<Tensor> {
    let (b, n, w) = memory.dims3()?;
    let (_, h, _) = keys.dims3()?;
    if keys.dims() != [b, h, w] || strengths.dims() != [b, h] {
        let (keys, strengths) = (keys.dims(), strengths.dims());
        bail!(
            "content weights: expected keys ({b}, h, {w}) and strengths ({b}, h), got {keys:?} and {strengths:?}"
        );
    }
    let inputs = [memory, keys, strengths];
    match b * n * w * h > 0 && fused::takes(&inputs) {
        true => fused::apply1(content::ContentOp, &inputs),
        false => plain::content_weights(memory, keys, strengths),
    }
}

/// What [`write_weights`] gives, `(b, n)` each.
#[derive(Debug, Clone)]
pub struct Writing {
    /// How much each slot is in use.
    pub usage: Tensor,
    /// Where there is room.
    pub allocation: Tensor,
    /// Where is written.
    pub weights: Tensor,
}

/// Where to write: `usage` and `weights` (of writing) `(b, n)` and `read_weights (b, r, n)` of the step before, the weighting by `content (b, n)`,
/// and `gates (b, r + 2)`: before σ, `f^1 … f^r` that free what was read, `g^a` for allocation, `g^w` for writing at all.
///
/// - usage `u_t = (u + w - u ∘ w) ∘ Π_i (1 - f^i w^{r,i})`, all on the right from the step before;
/// - allocation, with the slots in ascending order of usage φ: `a[φ_j] = (1 - u[φ_j]) Π_{i<j} u[φ_i]`; of equal ones the lower slot comes first, and
///   gradients take the order as given;
/// - `w_t = g^w (g^a a + (1 - g^a) c)`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::memory::dnc::write_weights;
/// let usage = Tensor::new(&[[0.5f32, 0.2, 0.9, 0.4]], &Device::Cpu)?;
/// let none = usage.zeros_like()?;
/// let gates = Tensor::new(&[[-90f32, 90., 90.]], &Device::Cpu)?; // nothing is freed, all is allocated
/// let writing = write_weights(&usage, &none, &none.unsqueeze(1)?, &none, &gates)?;
/// let expected = [0.04f32, 0.8, 0.004, 0.12];
/// for (a, b) in writing.weights.to_vec2::<f32>()?[0].iter().zip(expected) {
///     assert!((a - b).abs() < 1e-6);
/// }
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn write_weights(
    usage: &Tensor,
    weights: &Tensor,
    read_weights: &Tensor,
    content: &Tensor,
    gates: &Tensor,
) -> Result<Writing> {
    let (b, n) = usage.dims2()?;
    let (_, r, _) = read_weights.dims3()?;
    let inputs = [usage, weights, read_weights, content, gates];
    let expected: [&[usize]; 5] = [&[b, n], &[b, n], &[b, r, n], &[b, n], &[b, r + 2]];
    fit("write weights", &inputs, &expected)?;
    let results = match b * n > 0 && fused::takes(&inputs) {
        true => fused::apply(usage::UsageOp, &inputs)?,
        false => return plain::write_weights(usage, weights, read_weights, content, gates),
    };
    match <[Tensor; 3]>::try_from(results) {
        Ok([usage, allocation, weights]) => Ok(Writing { usage, allocation, weights }),
        Err(_) => bail!("write weights: internal error: expected three results"),
    }
}

/// What [`read_weights`] gives.
#[derive(Debug, Clone)]
pub struct Reading {
    /// `L[i, j]`: how much slot i was written right after slot j, `(b, n, n)`.
    pub link: Tensor,
    /// How much each slot was the last one written, `(b, n)`.
    pub precedence: Tensor,
    /// Where is read, `(b, r, n)`.
    pub weights: Tensor,
}

/// Where to read: `link (b, n, n)`, `precedence (b, n)` and `weights (b, r, n)` (of reading) of the step before, what has just been written,
/// `write_weights (b, n)`, the weightings by `content (b, r, n)`, and `modes (b, r, 3)`, before their softmax: backward, content, forward.
///
/// - link `L_t[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j]`, 0 where i = j, with the precedence before; then
///   `p_t = (1 - Σ w) p + w`;
/// - `w^r_t = π_1 L_tᵀ w^r + π_2 c + π_3 L_t w^r`.
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn read_weights(
    link: &Tensor,
    precedence: &Tensor,
    write_weights: &Tensor,
    weights: &Tensor,
    content: &Tensor,
    modes: &Tensor,
) -> Result<Reading> {
    let (b, r, n) = weights.dims3()?;
    let inputs = [link, precedence, write_weights, weights, content, modes];
    let expected: [&[usize]; 6] =
        [&[b, n, n], &[b, n], &[b, n], &[b, r, n], &[b, r, n], &[b, r, 3]];
    fit("read weights", &inputs, &expected)?;
    let results = match b * n * r > 0 && fused::takes(&inputs) {
        true => fused::apply(link::LinkOp, &inputs)?,
        false => {
            return plain::read_weights(link, precedence, write_weights, weights, content, modes);
        }
    };
    match <[Tensor; 3]>::try_from(results) {
        Ok([link, precedence, weights]) => Ok(Reading { link, precedence, weights }),
        Err(_) => bail!("read weights: internal error: expected three results"),
    }
}

fn fit(op: &str, inputs: &[&Tensor], expected: &[&[usize]]) -> Result<()> {
    let got: Vec<&[usize]> = inputs.iter().map(|t| t.dims()).collect();
    if got != expected {
        bail!("{op}: expected {expected:?}, got {got:?}");
    }
    Ok(())
}
