//! Cosines between a key and the slots of a memory, for all that look slots up by content.
//!
//! Slots lie one after the other without padding: the last vector of a slot holds the beginning of the next, which the zeros of a padded key
//! take out, or which is written over by what follows.

use super::COSINE_EPS;
use crate::lanes::{LANES, Lanes, add_scaled, chunks, dot, pack};
use crate::real::Real;

/// A key and its length.
pub(super) struct Key<T> {
    pub(super) values: Vec<T>,
    /// The values, padded with zeros.
    packed: Vec<Lanes<T>>,
    norm: T,
}

impl<T: Real> Key<T> {
    #[inline(always)]
    pub(super) fn new(values: Vec<T>) -> Self {
        let packed = pack(&values, values.len());
        let squares = packed.iter().fold(Lanes::splat(T::ZERO), |sum, &x| sum.add_product(x, x));
        Self { norm: root(squares.sum()), values, packed }
    }
}

#[inline(always)]
fn root<T: Real>(square: T) -> T {
    T::of(square.to_f64().sqrt())
}

/// Vector `k` of slot `i`, with what lies behind the slot.
#[inline(always)]
fn vector<T: Real>(memory: &[T], w: usize, i: usize, k: usize) -> Lanes<T> {
    Lanes::load(memory, i * w + k * LANES)
}

/// The lengths of the slots of `memory (n, w)`.
#[inline(always)]
pub(super) fn norms_of<T: Real>(memory: &[T], w: usize, norms: &mut [T]) {
    for (norm, slot) in norms.iter_mut().zip(memory.chunks_exact(w)) {
        *norm = dot(slot, slot);
    }
    norms.iter_mut().for_each(|norm| *norm = root(*norm));
}

/// `k·M_i / (‖k‖ ‖M_i‖ + ε)` for the slots of `memory (n, w)` with these lengths.
#[inline(always)]
pub(super) fn cosines_of<T: Real>(key: &Key<T>, memory: &[T], norms: &[T], cosines: &mut [T]) {
    let (eps, w) = (T::of(COSINE_EPS), key.values.len());
    for (i, cosine) in cosines.iter_mut().enumerate() {
        let mut sum = Lanes::splat(T::ZERO);
        for (k, &key) in key.packed.iter().enumerate() {
            sum = sum.add_product(vector(memory, w, i, k), key);
        }
        *cosine = sum.sum();
    }
    for (cosine, &norm) in cosines.iter_mut().zip(norms) {
        *cosine /= key.norm * norm + eps;
    }
}

/// What the gradients of the slots need of a key that they were compared with.
pub(super) struct Compared<T> {
    pub(super) key: Key<T>,
    /// What each slot's gradient takes of the key, and of the slot itself.
    of_key: Vec<T>,
    of_slot: Vec<T>,
}

impl<T: Real> Compared<T> {
    /// The gradient of the key, `d_key`, from those of its cosines.
    #[inline(always)]
    pub(super) fn new(
        key: Key<T>,
        (memory, norms): (&[T], &[T]),
        cosines: &[T],
        d_cosines: &[T],
        d_key: &mut [T],
    ) -> Self {
        let (eps, w) = (T::of(COSINE_EPS), d_key.len());
        let mut of_key = d_cosines.to_vec();
        of_key.iter_mut().zip(norms).for_each(|(d, &norm)| *d /= key.norm * norm + eps);
        // The gradients of the products of the lengths; then what they make of the slots.
        let mut of_slot = of_key.clone();
        of_slot.iter_mut().zip(cosines).for_each(|(d, &cosine)| *d *= -cosine);
        let d_norm = dot(&of_slot, norms);
        for (d, &norm) in of_slot.iter_mut().zip(norms) {
            *d = if norm > T::ZERO { *d * key.norm / norm } else { T::ZERO };
        }
        for (k, d_key) in d_key.chunks_mut(LANES).enumerate() {
            let mut sum = Lanes::splat(T::ZERO);
            for (i, &by) in of_key.iter().enumerate() {
                sum = sum.add_product(vector(memory, w, i, k), Lanes::splat(by));
            }
            d_key.copy_from_slice(&sum.0[..d_key.len()]);
        }
        if key.norm > T::ZERO {
            add_scaled(d_key, &key.values, d_norm / key.norm);
        }
        Self { key, of_key, of_slot }
    }
}

/// The gradients of the slots of `memory (n, w)` from all keys that they were compared with.
#[inline(always)]
pub(super) fn slots_backward<T: Real>(
    keys: &[Compared<T>],
    memory: &[T],
    w: usize,
    d_memory: &mut [T],
) {
    for i in 0..memory.len() / w {
        let mut of_slot = T::ZERO;
        keys.iter().for_each(|compared| of_slot += compared.of_slot[i]);
        for k in 0..chunks(w) {
            let mut sum = vector(memory, w, i, k).map(|x| x * of_slot);
            for compared in keys {
                sum = sum.add_product(compared.key.packed[k], Lanes::splat(compared.of_key[i]));
            }
            sum.store(d_memory, i * w + k * LANES);
        }
    }
}
