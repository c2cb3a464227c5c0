//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use super::Scorer;
use crate::interaction;

/// Plain twin of [`super::episodic_scores`].
pub fn episodic_scores(
    facts: &Tensor,
    memory: &Tensor,
    fixed: &Tensor,
    scorer: Scorer<'_>,
) -> Result<Tensor> {
    let features = interaction::plain::interaction(facts, memory)?; // (b, n, 2h)
    let inner = (features.broadcast_matmul(&scorer.inner.t()?)? + fixed)?.tanh()?; // (b, n, u)
    inner.broadcast_mul(&scorer.outer.flatten_all()?)?.sum(2)?.broadcast_add(scorer.bias)
}
