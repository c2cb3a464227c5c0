//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use crate::rng::Philox;

/// Plain twin of [`super::dropout`]: the product with a mask of 0 and `1 / (1 - p)`.
pub fn dropout(xs: &Tensor, p: f64, rng: Philox) -> Result<Tensor> {
    if p <= 0. {
        return Ok(xs.clone());
    }
    let keep = if p >= 1. { 0. } else { 1. / (1. - p) };
    let threshold = (p * 4_294_967_296.0) as u64;
    let n = xs.elem_count();
    let words = (0..n.div_ceil(4) as u64).flat_map(|k| rng.block(k));
    let mask = words.take(n).map(|w| if u64::from(w) < threshold { 0. } else { keep });
    let mask = Tensor::from_vec(mask.collect::<Vec<f64>>(), xs.shape(), xs.device())?;
    xs.mul(&mask.to_dtype(xs.dtype())?)
}
