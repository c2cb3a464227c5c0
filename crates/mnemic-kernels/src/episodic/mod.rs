//! The scores of episodic memory (Xiong et al. 2016, eq. 8-9): how well each fact fits the memory of a pass.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// The parameters of [`episodic_scores`]; h hidden size, u units of the inner layer.
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    /// `W (u, 2h)`: the columns of the inner layer that meet the memory.
    pub inner: &'a Tensor,
    /// `w (u)` or `(1, u)` of the outer layer.
    pub outer: &'a Tensor,
    /// `b (1)` of the outer layer.
    pub bias: &'a Tensor,
}

/// `w · tanh(W [f ∘ m ; |f - m|] + c) + b` of every fact, `(b, n)`: facts `f (b, n, h)`, memory `m (b, h)`, and `c (b, n, u)`, the part of
/// the inner layer that is the same in every pass. The derivative of `|x|` at 0 is 0.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::episodic::{Scorer, episodic_scores};
/// let ones = |shape: &[usize]| Tensor::ones(shape, DType::F64, &Device::Cpu);
/// let (inner, outer, bias) = (ones(&[1, 2])?, ones(&[1])?, ones(&[1])?);
/// let scorer = Scorer { inner: &inner, outer: &outer, bias: &bias };
/// let scores = episodic_scores(&ones(&[1, 1, 1])?, &ones(&[1, 1])?, &ones(&[1, 1, 1])?, scorer)?;
/// assert!((scores.to_vec2::<f64>()?[0][0] - (2f64.tanh() + 1.)).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn episodic_scores(
    facts: &Tensor,
    memory: &Tensor,
    fixed: &Tensor,
    scorer: Scorer<'_>,
) -> Result<Tensor> {
    let (b, n, h) = facts.dims3()?;
    let u = scorer.outer.elem_count();
    if scorer.outer.dims() != [u] && scorer.outer.dims() != [1, u] {
        bail!("episodic_scores: expected outer (u) or (1, u), got {:?}", scorer.outer.dims());
    }
    let expected: [(&str, &Tensor, &[usize]); 4] = [
        ("memory", memory, &[b, h]),
        ("fixed", fixed, &[b, n, u]),
        ("inner", scorer.inner, &[u, 2 * h]),
        ("bias", scorer.bias, &[1]),
    ];
    for (name, tensor, shape) in expected {
        if tensor.dims() != shape {
            bail!("episodic_scores: expected {name} {shape:?}, got {:?}", tensor.dims());
        }
    }
    let operands = [facts, memory, fixed, scorer.inner, scorer.outer, scorer.bias];
    if fused::takes(&operands) && b * n * h * u > 0 {
        return fused::apply1(cpu::EpisodicOp, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) && cuda::fits(h, u) {
        return crate::cuda::apply1(cuda::EpisodicOp, &operands);
    }
    plain::episodic_scores(facts, memory, fixed, scorer)
}
