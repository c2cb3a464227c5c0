//! The definitions, in ordinary candle operations: each gives the new parameter, then the new states in the order of their
//! struct's fields. They are what the steps run on devices other than the CPU.

use candle_core::{DType, Result, Tensor};

use super::{
    Adagrad, Adam, AdamState, RmsProp, RmsPropGraves, RmsPropGravesState, RmsPropState, Sgd,
};

/// `a * x + b * y`
fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    (x * a)? + (y * b)?
}

/// The gradient with weight decay.
fn decayed(grad: &Tensor, weight_decay: f64, param: &Tensor) -> Result<Tensor> {
    mix(1., grad, weight_decay, param)
}

/// Plain twin of [`Sgd::step`].
///
/// # Errors
/// Tensors that do not fit each other.
pub fn sgd(
    c: &Sgd,
    t: u64,
    param: &Tensor,
    grad: &Tensor,
    momentum_buffer: Option<&Tensor>,
) -> Result<Vec<Tensor>> {
    let g = decayed(grad, c.weight_decay, param)?;
    let Some(buffer) = momentum_buffer else {
        return Ok(vec![(param - (g * c.lr)?)?]);
    };
    let buffer = if t == 1 { g.clone() } else { mix(c.momentum, buffer, 1. - c.dampening, &g)? };
    let d = if c.nesterov { mix(1., &g, c.momentum, &buffer)? } else { buffer.clone() };
    Ok(vec![mix(1., param, -c.lr, &d)?, buffer])
}

/// Plain twin of [`Adam::step`].
///
/// # Errors
/// Tensors that do not fit each other.
pub fn adam(
    c: &Adam,
    t: u64,
    param: &Tensor,
    grad: &Tensor,
    state: AdamState<'_>,
) -> Result<Vec<Tensor>> {
    let [b1, b2] = c.betas;
    let (p, g) = if c.decoupled {
        ((param * (1. - c.lr * c.weight_decay))?, grad.clone())
    } else {
        (param.clone(), decayed(grad, c.weight_decay, param)?)
    };
    let m = mix(b1, state.exp_avg, 1. - b1, &g)?;
    let v = mix(b2, state.exp_avg_sq, 1. - b2, &g.sqr()?)?;
    let top = state.max_exp_avg_sq.map(|top| top.maximum(&v)).transpose()?;
    let corrected = (&m * (1. / (1. - b1.powf(t as f64))))?;
    let root = (top.as_ref().unwrap_or(&v) * (1. / (1. - b2.powf(t as f64))))?.sqrt()?;
    let p = (p - ((corrected * c.lr)? / (root + c.eps)?)?)?;
    Ok([p, m, v].into_iter().chain(top).collect())
}

/// Plain twin of [`Adagrad::step`].
///
/// # Errors
/// Tensors that do not fit each other.
pub fn adagrad(
    c: &Adagrad,
    t: u64,
    param: &Tensor,
    grad: &Tensor,
    sum: &Tensor,
) -> Result<Vec<Tensor>> {
    let g = decayed(grad, c.weight_decay, param)?;
    let sum = (sum + g.sqr()?)?;
    let lr = c.lr / (1. + t.saturating_sub(1) as f64 * c.lr_decay);
    let d = ((g * lr)? / (sum.sqrt()? + c.eps)?)?;
    Ok(vec![(param - d)?, sum])
}

/// Plain twin of [`RmsProp::step`].
///
/// # Errors
/// Tensors that do not fit each other.
pub fn rmsprop(
    c: &RmsProp,
    param: &Tensor,
    grad: &Tensor,
    state: RmsPropState<'_>,
) -> Result<Vec<Tensor>> {
    let g = decayed(grad, c.weight_decay, param)?;
    let square = mix(c.alpha, state.square_avg, 1. - c.alpha, &g.sqr()?)?;
    let mean = state.grad_avg.map(|m| mix(c.alpha, m, 1. - c.alpha, &g)).transpose()?;
    let variance = match &mean {
        Some(m) => (&square - m.sqr()?)?,
        None => square.clone(),
    };
    let d = (g / (variance.sqrt()? + c.eps)?)?;
    let buffer = state.momentum_buffer.map(|b| mix(c.momentum, b, 1., &d)).transpose()?;
    let p = (param - (buffer.as_ref().unwrap_or(&d) * c.lr)?)?;
    Ok([p, square].into_iter().chain(mean).chain(buffer).collect())
}

/// Plain twin of [`RmsPropGraves::step`].
///
/// # Errors
/// Tensors that do not fit each other.
pub fn rmsprop_graves(
    c: &RmsPropGraves,
    param: &Tensor,
    grad: &Tensor,
    state: RmsPropGravesState<'_>,
) -> Result<Vec<Tensor>> {
    let g = decayed(grad, c.weight_decay, param)?;
    let n = mix(c.alpha, state.square_avg, 1. - c.alpha, &g.sqr()?)?;
    let m = mix(c.alpha, state.grad_avg, 1. - c.alpha, &g)?;
    let root = ((&n - m.sqr()?)? + c.eps)?.sqrt()?;
    let d = ((state.momentum_buffer * c.momentum)? - ((g * c.lr)? / root)?)?;
    Ok(vec![(param + &d)?, n, m, d])
}

/// Plain twin of [`super::lerp`]: the new average.
///
/// # Errors
/// Tensors that do not fit each other.
pub fn lerp(average: &Tensor, value: &Tensor, weight: f64) -> Result<Tensor> {
    mix(1. - weight, average, weight, value)
}

/// Plain twin of [`super::add_scaled`]: the new sum.
///
/// # Errors
/// Tensors that do not fit each other.
pub fn add_scaled(sum: &Tensor, sum_scale: f64, other: &Tensor, scale: f64) -> Result<Tensor> {
    mix(sum_scale, sum, scale, other)
}

/// Plain twin of [`super::sum_of_squares`].
///
/// # Errors
/// A tensor that is no float.
pub fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    xs.detach().to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()
}
