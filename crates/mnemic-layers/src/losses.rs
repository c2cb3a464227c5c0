//! Losses. Cross-entropy, over classes and binary, is the kernels', named here so that a model needs
//! one path only.

use candle_core::{Result, Tensor, Var, bail};

pub use mnemic_kernels::binary_cross_entropy::bce_with_logits;
pub use mnemic_kernels::cross_entropy::{CrossEntropy, IGNORE, Reduction, cross_entropy};

fn reduce(losses: Tensor, reduction: Reduction) -> Result<Tensor> {
    match reduction {
        Reduction::Mean => losses.mean_all(),
        Reduction::Sum => losses.sum_all(),
        Reduction::None => Ok(losses),
    }
}

fn same_shape(op: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() != b.dims() {
        bail!("{op}: expected targets {:?}, got {:?}", a.dims(), b.dims());
    }
    Ok(())
}

/// The margin ranking loss `max(0, margin - gold + negative)` (Weston et al. 2014, eq. 6),
/// `gold` and `negative` broadcast against each other: scores `(b, 1)` of the right answers against
/// `(b, n)` of wrong ones.
///
/// # Errors
/// When the shapes cannot be broadcast.
pub fn margin_ranking(
    gold: &Tensor,
    negative: &Tensor,
    margin: f64,
    reduction: Reduction,
) -> Result<Tensor> {
    reduce((negative.broadcast_sub(gold)? + margin)?.relu()?, reduction)
}

/// The mean squared difference of two tensors of one shape.
///
/// # Errors
/// When the shapes differ.
pub fn mse(predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    same_shape("mse", predictions, targets)?;
    (predictions - targets)?.sqr()?.mean_all()
}

/// `Σ θ²` over the parameters whose name `applies` accepts (biases and embeddings are commonly left
/// out).
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{ParamStore, init, linear, losses::l2_penalty};
/// let store = ParamStore::new(0);
/// linear(2, 3, true, init::constant(2.), store.builder(DType::F32, &Device::Cpu))?;
/// let penalty = l2_penalty(&store.vars(), |name| !name.ends_with("bias"))?;
/// assert_eq!(penalty.to_scalar::<f32>()?, 24.);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When no parameter is accepted.
pub fn l2_penalty(vars: &[(String, Var)], applies: impl Fn(&str) -> bool) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (_, var) in vars.iter().filter(|(name, _)| applies(name)) {
        let square = var.as_tensor().sqr()?.sum_all()?;
        sum = Some(match sum {
            Some(sum) => (sum + square)?,
            None => square,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("l2_penalty: none of the {} parameters is accepted", vars.len()),
    }
}
