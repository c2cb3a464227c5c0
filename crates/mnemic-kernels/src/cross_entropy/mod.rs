//! Cross-entropy of class scores, with PyTorch's options.
//!
//! For row `i` with scores `x`, target `y`, class weights `w` and label smoothing `ε`:
//! `l_i = -(1 - ε) w_y log p_y - ε/C Σ_c w_c log p_c`, `log p = log_softmax(x)`. Rows whose target is ignored give 0 and get no
//! gradient. The mean divides by `Σ w_y` over the rows that count; the mean over no row is NaN, without a gradient.
//!
//! Scores of `-inf` rule a class out. A row of nothing else is no distribution: its loss is infinite, and it gets no gradient.
//!
//! [`cross_entropy`] keeps two numbers a row for the backward pass (the largest score, and the sum of exponentials below it), no copy
//! of the scores. [`linear_cross_entropy`] also makes the scores from hidden states, a block of rows at a time.

mod cpu;
#[cfg(cuda_path)]
pub(crate) mod cuda;
#[cfg(cuda_path)]
mod cuda_linear;
mod linear;
pub mod plain;
mod rows;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor, bail};

use crate::fused;

/// How the losses of the rows are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The weighted mean over rows that are not ignored.
    #[default]
    Mean,
    /// The sum.
    Sum,
    /// One loss a row, `(n)`.
    None,
}

/// Options of [`cross_entropy`]; the default is the plain mean.
#[derive(Debug, Clone, Default)]
pub struct CrossEntropy {
    /// How the losses of the rows are joined.
    pub reduction: Reduction,
    /// Label smoothing `ε` in `[0, 1]`.
    pub label_smoothing: f64,
    /// Weights of the classes, `(c)`: constants, they get no gradient.
    pub class_weights: Option<Tensor>,
}

/// The target that marks a row as ignored (PyTorch's -100).
pub const IGNORE: i64 = -100;

/// Cross-entropy of `logits` `(n, c)` with `targets` (`n` class ids, [`IGNORE`] for rows that do not count).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::cross_entropy::{CrossEntropy, cross_entropy};
/// let logits = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let loss = cross_entropy(&logits, &[1], &CrossEntropy::default())?.to_scalar::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the number of targets differs from the number of rows, a target is no class, there is no class, the label smoothing is
/// outside `[0, 1]`, or the class weights are not `(c)`.
pub fn cross_entropy(logits: &Tensor, targets: &[i64], options: &CrossEntropy) -> Result<Tensor> {
    let (n, c) = logits.dims2()?;
    check("cross_entropy", n, c, targets, options)?;
    if fused::takes(&[logits]) {
        let op = cpu::CrossEntropyOp(rows::Targets::new(targets, options)?);
        return fused::apply1(op, &[logits]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[logits]) {
        let targets = cuda::Targets::new(targets, options, logits.device())?;
        return crate::cuda::apply1(cuda::CrossEntropyOp(targets), &[logits]);
    }
    plain::cross_entropy(logits, targets, options)
}

/// [`cross_entropy`] of the scores `hidden weightᵀ + bias`, without keeping them: hidden states `(n, d)`, weight `(v, d)`, bias `(v)`,
/// `n` targets.
///
/// The scores exist for a block of rows at a time, and rows that are ignored cost nothing. For the mean and the sum, the forward pass
/// computes the gradients, too, where an operand is tracked (three matrix products in all, against four if it made the scores
/// again): detach the operands to evaluate only. Without reduction the gradients of the losses are not known before the backward
/// pass, which makes the scores again.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::cross_entropy::{CrossEntropy, linear_cross_entropy};
/// let hidden = Tensor::ones((3, 2), DType::F64, &Device::Cpu)?;
/// let weight = Tensor::zeros((4, 2), DType::F64, &Device::Cpu)?;
/// let options = CrossEntropy::default();
/// let loss = linear_cross_entropy(&hidden, &weight, None, &[0, 3, 1], &options)?;
/// assert!((loss.to_scalar::<f64>()? - 4f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// As [`cross_entropy`], and when the shapes do not fit.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    targets: &[i64],
    options: &CrossEntropy,
) -> Result<Tensor> {
    let op = "linear_cross_entropy";
    let ((n, d), (v, columns)) = (hidden.dims2()?, weight.dims2()?);
    if columns != d {
        bail!("{op}: hidden states are ({n}, {d}), the weight is ({v}, {columns})");
    }
    if let Some(bias) = bias
        && bias.dims() != [v]
    {
        bail!("{op}: expected a bias ({v}), got {:?}", bias.dims());
    }
    check(op, n, v, targets, options)?;
    let mut operands = vec![hidden, weight];
    operands.extend(bias);
    if fused::takes(&operands) {
        let wanted = operands.iter().map(|t| t.track_op()).collect();
        let op = linear::LinearOp { targets: rows::Targets::new(targets, options)?, wanted };
        return fused::apply1(op, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) {
        let op = cuda_linear::LinearOp::new(targets, options, &operands)?;
        return crate::cuda::apply1(op, &operands);
    }
    plain::linear_cross_entropy(hidden, weight, bias, targets, options)
}

fn check(op: &str, n: usize, c: usize, targets: &[i64], options: &CrossEntropy) -> Result<()> {
    if targets.len() != n {
        bail!("{op}: {n} rows of logits but {} targets", targets.len());
    }
    if c == 0 {
        bail!("{op}: expected at least one class, got ({n}, 0)");
    }
    if let Some(bad) = targets.iter().find(|&&y| y != IGNORE && !(0..c as i64).contains(&y)) {
        bail!("{op}: target {bad} is not below the {c} classes");
    }
    if !(0. ..=1.).contains(&options.label_smoothing) {
        bail!("{op}: label smoothing {} is outside [0, 1]", options.label_smoothing);
    }
    if let Some(w) = &options.class_weights
        && w.dims() != [c]
    {
        bail!("{op}: expected ({c}) class weights, got {:?}", w.dims());
    }
    Ok(())
}

/// The class weights as numbers.
fn weights(options: &CrossEntropy) -> Result<Option<Vec<f64>>> {
    let read = |w: &Tensor| w.to_dtype(DType::F64)?.to_vec1();
    options.class_weights.as_ref().map(read).transpose()
}
