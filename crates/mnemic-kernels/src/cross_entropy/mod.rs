//! Cross-entropy of class scores, with PyTorch's options.
//!
//! For row `i` with scores `x`, target `y`, class weights `w` and label smoothing `ε`:
//! `l_i = -(1 - ε) w_y log p_y - ε/C Σ_c w_c log p_c`, `log p = log_softmax(x)`. Rows whose target is ignored give 0. The mean
//! divides by `Σ w_y` over the rows that count.

mod plain;

use candle_core::{Result, Tensor, bail};

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
    /// Weights of the classes, `(c)`.
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
/// When the number of targets differs from the number of rows or a target is no class.
pub fn cross_entropy(logits: &Tensor, targets: &[i64], options: &CrossEntropy) -> Result<Tensor> {
    let (n, c) = logits.dims2()?;
    if targets.len() != n {
        bail!("cross_entropy: {n} rows of logits but {} targets", targets.len());
    }
    if let Some(bad) = targets.iter().find(|&&y| y != IGNORE && !(0..c as i64).contains(&y)) {
        bail!("cross_entropy: target {bad} is not below the {c} classes");
    }
    if let Some(w) = &options.class_weights
        && w.dims() != [c]
    {
        bail!("cross_entropy: expected ({c}) class weights, got {:?}", w.dims());
    }
    plain::cross_entropy(logits, targets, options)
}
