//! Cosines between a key and the slots of a memory, for all that look slots up by content.

use super::COSINE_EPS;
use crate::lanes::{add_scaled, dot};
use crate::real::Real;

/// A key and its length.
pub(super) struct Key<T> {
    pub(super) values: Vec<T>,
    norm: T,
}

impl<T: Real> Key<T> {
    #[inline(always)]
    pub(super) fn new(values: Vec<T>) -> Self {
        Self { norm: norm(&values), values }
    }
}

#[inline(always)]
pub(super) fn norm<T: Real>(xs: &[T]) -> T {
    T::of(dot(xs, xs).to_f64().sqrt())
}

/// `k·M_i / (‖k‖ ‖M_i‖ + ε)` for the slots of `memory (n, w)` with these lengths.
#[inline(always)]
pub(super) fn cosines_of<T: Real>(key: &Key<T>, memory: &[T], norms: &[T], cosines: &mut [T]) {
    let eps = T::of(COSINE_EPS);
    let slots = memory.chunks_exact(key.values.len());
    for ((cosine, slot), &norm) in cosines.iter_mut().zip(slots).zip(norms) {
        *cosine = dot(&key.values, slot) / (key.norm * norm + eps);
    }
}

/// The gradients of the slots, added to `d_memory`, and of the key from those of the cosines.
#[inline(always)]
pub(super) fn cosine_backward<T: Real>(
    key: &Key<T>,
    memory: &[T],
    norms: &[T],
    cosines: &[T],
    d_cosines: &[T],
    mut d_memory: Option<&mut [T]>,
    d_key: &mut [T],
) {
    let w = d_key.len();
    d_key.fill(T::ZERO);
    let eps = T::of(COSINE_EPS);
    let mut d_key_norm = T::ZERO;
    for (i, slot) in memory.chunks_exact(w).enumerate() {
        let d_dot = d_cosines[i] / (key.norm * norms[i] + eps);
        let d_product = -d_dot * cosines[i];
        d_key_norm += d_product * norms[i];
        add_scaled(d_key, slot, d_dot);
        if let Some(d_memory) = &mut d_memory {
            let d_slot = &mut d_memory[i * w..][..w];
            add_scaled(d_slot, &key.values, d_dot);
            if norms[i] > T::ZERO {
                add_scaled(d_slot, slot, d_product * key.norm / norms[i]);
            }
        }
    }
    if key.norm > T::ZERO {
        add_scaled(d_key, &key.values, d_key_norm / key.norm);
    }
}
