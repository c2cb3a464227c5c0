//! The definitions, in ordinary candle operations.

use candle_core::{D, Result, Tensor};

/// Plain twin of [`super::tanh`].
pub fn tanh(xs: &Tensor) -> Result<Tensor> {
    xs.tanh()
}

/// Plain twin of [`super::sigmoid`], as `(1 + tanh(x/2)) / 2`, whose gradient does not overflow.
pub fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    ((xs * 0.5)?.tanh()? + 1.)? * 0.5
}

/// Plain twin of [`super::gelu`].
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    let phi = (((xs * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.)? * 0.5)?;
    xs.mul(&phi)
}

/// Plain twin of [`super::gelu_tanh`].
pub fn gelu_tanh(xs: &Tensor) -> Result<Tensor> {
    let cubic = (xs + (xs.sqr()?.mul(xs)? * 0.044715)?)?;
    let root = (2. * std::f64::consts::FRAC_1_PI).sqrt();
    xs.mul(&(((cubic * root)?.tanh()? + 1.)? * 0.5)?)
}

/// Plain twin of [`super::silu`].
pub fn silu(xs: &Tensor) -> Result<Tensor> {
    xs.mul(&sigmoid(xs)?)
}

/// Plain twin of [`super::softplus`], as `max(x, 0) + ln(1 + e^{-|x|})`.
pub fn softplus(xs: &Tensor) -> Result<Tensor> {
    relu(xs)? + (xs.abs()?.neg()?.exp()? + 1.)?.log()?
}

/// Plain twin of [`super::relu`].
pub fn relu(xs: &Tensor) -> Result<Tensor> {
    xs.gt(0f64)?.where_cond(xs, &xs.zeros_like()?)
}

/// Plain twin of [`super::glu`].
pub fn glu(xs: &Tensor) -> Result<Tensor> {
    let n = xs.dim(D::Minus1)? / 2;
    xs.narrow(D::Minus1, 0, n)?.mul(&sigmoid(&xs.narrow(D::Minus1, n, n)?)?)
}
