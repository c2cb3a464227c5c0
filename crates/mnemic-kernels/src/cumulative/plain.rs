//! The definitions, in ordinary candle operations.

use candle_core::{D, Result, Tensor};

/// Plain twin of [`super::cumsum`].
pub fn cumsum(xs: &Tensor, exclusive: bool) -> Result<Tensor> {
    scan(xs, exclusive, 0., |sum, x| sum + x)
}

/// Plain twin of [`super::cumprod`].
pub fn cumprod(xs: &Tensor, exclusive: bool) -> Result<Tensor> {
    scan(xs, exclusive, 1., |product, x| product * x)
}

fn scan(
    xs: &Tensor,
    exclusive: bool,
    start: f64,
    combine: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let n = xs.dim(D::Minus1)?;
    if xs.elem_count() == 0 {
        return Ok(xs.clone());
    }
    let mut state = xs.narrow(D::Minus1, 0, 1)?.zeros_like()?.affine(0., start)?;
    let mut ys = Vec::with_capacity(n);
    for j in 0..n {
        let next = combine(&state, &xs.narrow(D::Minus1, j, 1)?)?;
        ys.push(if exclusive { state } else { next.clone() });
        state = next;
    }
    Tensor::cat(&ys, D::Minus1)
}
