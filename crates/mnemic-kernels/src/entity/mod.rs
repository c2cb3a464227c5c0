//! The memory of recurrent entity networks (Henaff et al. 2017, arXiv 1612.03969, section 2): slots that all read every sentence, each
//! with a gate of its own.
//!
//! Letters: b batch, n sentences, m slots, d width.

mod backward;
mod cpu;
pub mod plain;
mod steps;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// The parameters of [`entity_scan`].
#[derive(Debug, Clone, Copy)]
pub struct EntityWeights<'a> {
    /// `U (d, d)`, of the state.
    pub state: &'a Tensor,
    /// `V (d, d)`, of the key.
    pub key: &'a Tensor,
    /// `W (d, d)`, of the sentence.
    pub input: &'a Tensor,
    /// `b (d)`.
    pub bias: &'a Tensor,
    /// `a (d)`, the slopes of the PReLU below 0, one a unit. Slopes of 1 make it the identity.
    pub slopes: &'a Tensor,
    /// `c (m)`, added to the score of each slot's gate.
    pub gate_bias: Option<&'a Tensor>,
}

/// What [`entity_scan`] gives.
#[derive(Debug, Clone)]
pub struct EntityScan {
    /// The states after each row's last sentence, `(b, m, d)`.
    pub state: Tensor,
    /// How far each sentence opened each slot, `(b, n, m)`; 0 after a row's end.
    pub gates: Tensor,
}

/// Lets slots of the `keys` `w (m, d)` and the `initial` states `h (m, d)` read `sentences` `s (b, n, d)` in their order:
///
/// - `g_j = σ(s·h_j + s·w_j + c_j)`,
/// - `h̃_j = φ(U h_j + V w_j + W s + b)`, where `φ(z) = z` above 0 and `a ∘ z` below,
/// - `h_j ← (h_j + g_j h̃_j) / |h_j + g_j h̃_j|`, with zeros, and no gradient, where the norm is 0.
///
/// Row `i` reads its first `lengths[i]` sentences, all of them where `None`. What stands behind them has no effect and gets no
/// gradient. The gradient through both results is right.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::entity::{EntityWeights, entity_scan};
/// let cpu = &Device::Cpu;
/// let (eye, ones) = (Tensor::eye(2, DType::F64, cpu)?, Tensor::ones(2, DType::F64, cpu)?);
/// let zeros = ones.zeros_like()?;
/// let (state, key, input, bias, slopes) = (&eye, &eye, &eye, &zeros, &ones);
/// let weights = EntityWeights { state, key, input, bias, slopes, gate_bias: None };
///
/// let sentences = Tensor::new(&[[[0.5, 0.5]]], cpu)?;
/// let (keys, initial) = (Tensor::new(&[[0., 1.]], cpu)?, Tensor::new(&[[1., 0.]], cpu)?);
/// let scan = entity_scan(&sentences, &keys, &initial, weights, None)?;
/// assert!((scan.gates.to_vec3::<f64>()?[0][0][0] - 0.731059).abs() < 1e-6);
/// assert!((scan.state.to_vec3::<f64>()?[0][0][0] - 0.886114).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When shapes or lengths do not fit, naming them.
pub fn entity_scan(
    sentences: &Tensor,
    keys: &Tensor,
    initial: &Tensor,
    weights: EntityWeights<'_>,
    lengths: Option<&[usize]>,
) -> Result<EntityScan> {
    let (b, n, d) = sentences.dims3()?;
    let (m, _) = keys.dims2()?;
    let EntityWeights { state, key, input, bias, slopes, gate_bias } = weights;
    let mut operands = vec![sentences, keys, initial, state, key, input, bias, slopes];
    operands.extend(gate_bias);
    let names = ["keys", "initial", "state", "key", "input", "bias", "slopes", "gate_bias"];
    let (slots, square) = (&[m, d][..], &[d, d][..]);
    let shapes = [slots, slots, square, square, square, &[d], &[d], &[m]];
    for ((name, shape), tensor) in names.iter().zip(shapes).zip(&operands[1..]) {
        if tensor.dims() != shape {
            bail!("entity_scan: expected {name} {shape:?}, got {:?}", tensor.dims());
        }
    }
    let lengths = match lengths {
        None => vec![n; b],
        Some(lengths) if lengths.len() != b => {
            bail!("entity_scan: {} lengths for a batch of {b}", lengths.len())
        }
        Some(lengths) => lengths.to_vec(),
    };
    if let Some(length) = lengths.iter().find(|&&l| l > n) {
        bail!("entity_scan: length {length} exceeds the {n} sentences");
    }
    if b == 0 || m == 0 {
        let zeros = |shape| Tensor::zeros(shape, sentences.dtype(), sentences.device());
        return Ok(EntityScan { state: zeros((b, m, d))?, gates: zeros((b, n, m))? });
    }
    if !fused::takes(&operands) || n * d == 0 {
        return plain::entity_scan(sentences, keys, initial, weights, &lengths);
    }
    match <[Tensor; 2]>::try_from(fused::apply(cpu::EntityOp { lengths }, &operands)?) {
        Ok([state, gates]) => Ok(EntityScan { state, gates }),
        Err(results) => bail!("entity_scan: internal error: {} results", results.len()),
    }
}
