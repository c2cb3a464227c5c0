//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

/// Plain twin of [`super::interaction`].
pub fn interaction(facts: &Tensor, vectors: &Tensor) -> Result<Tensor> {
    let v = vectors.unsqueeze(1)?; // (b, 1, h)
    Tensor::cat(&[facts.broadcast_mul(&v)?, facts.broadcast_sub(&v)?.abs()?], 2)
}
