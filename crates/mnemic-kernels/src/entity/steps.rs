//! One sentence of a group of rows: what is done before and after the product with the recurrent weights, forward and backward.
//!
//! A slot's vector is filled up with zeros to whole registers. The loops name their registers: the compiler would cut loops of so
//! many operands into small pieces.

use pulp::{Simd, WithSimd};

use crate::real::Real;

/// Sizes of the arrays of a step.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Slots.
    pub(super) m: usize,
    /// The width of a slot, filled up.
    pub(super) dp: usize,
    /// The width of a projected sentence: `dp`, and the slots, filled up.
    pub(super) width: usize,
    /// Sentences of a row.
    pub(super) steps: usize,
}

impl Sizes {
    /// The number of sentence `t` of the row at `place`.
    #[inline(always)]
    fn at(self, place: usize, t: usize) -> usize {
        place * self.steps + t
    }
}

/// Row `i` of rows of `width` numbers.
#[inline(always)]
fn row<T: Real, S: Simd>(xs: &[T], i: usize, width: usize) -> &[T::V<S>] {
    T::whole::<S>(&xs[i * width..(i + 1) * width])
}

#[inline(always)]
fn row_mut<T: Real, S: Simd>(xs: &mut [T], i: usize, width: usize) -> &mut [T::V<S>] {
    T::whole_mut::<S>(&mut xs[i * width..(i + 1) * width])
}

/// The sum of products of two rows.
#[inline(always)]
fn dot<T: Real, S: Simd>(simd: S, a: &[T::V<S>], b: &[T::V<S>]) -> T {
    let mut even = T::splat(simd, T::ZERO);
    let mut odd = even;
    let (a, a_last) = a.as_chunks::<2>();
    let (b, b_last) = b.as_chunks::<2>();
    for (a, b) in a.iter().zip(b) {
        even = T::mul_add(simd, a[0], b[0], even);
        odd = T::mul_add(simd, a[1], b[1], odd);
    }
    for (a, b) in a_last.iter().zip(b_last) {
        even = T::mul_add(simd, *a, *b, even);
    }
    T::total(simd, T::plus(simd, even, odd))
}

/// The gates of a sentence, and the start of the product: `V w_j + W s + b`.
pub(super) struct Gates<'a, T> {
    pub(super) sizes: Sizes,
    pub(super) t: usize,
    pub(super) sentences: &'a [T],
    pub(super) projected: &'a [T],
    pub(super) keys: &'a [T],
    pub(super) old: &'a [T],
    /// To be written, `(rows, m, dp)`.
    pub(super) z: &'a mut [T],
    /// To be written, `(rows, m)`; its length says how many rows there are.
    pub(super) gates: &'a mut [T],
}

impl<T: Real> WithSimd for Gates<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Sizes { m, dp, width, .. } = self.sizes;
        for (place, gates) in self.gates.chunks_exact_mut(m).enumerate() {
            let at = self.sizes.at(place, self.t);
            let s = row::<T, S>(self.sentences, at, dp);
            let (x, scores) = self.projected[at * width..(at + 1) * width].split_at(dp);
            let x = T::whole::<S>(x);
            for (j, (gate, score)) in gates.iter_mut().zip(scores).enumerate() {
                let slot = place * m + j;
                *gate = dot::<T, S>(simd, row::<T, S>(self.old, slot, dp), s) + *score;
                let z = row_mut::<T, S>(self.z, slot, dp);
                for ((z, k), x) in z.iter_mut().zip(row::<T, S>(self.keys, j, dp)).zip(x) {
                    *z = T::plus(simd, *k, *x);
                }
            }
        }
        self.gates.iter_mut().for_each(|g| *g = g.sigmoid_());
    }
}

/// The new states, given the candidates before their PReLU.
pub(super) struct Update<'a, T> {
    pub(super) sizes: Sizes,
    pub(super) gates: &'a [T],
    pub(super) slopes: &'a [T],
    pub(super) z: &'a [T],
    pub(super) old: &'a [T],
    pub(super) new: &'a mut [T],
    /// To be written: one over the norms.
    pub(super) inverse: &'a mut [T],
}

impl<T: Real> WithSimd for Update<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let dp = self.sizes.dp;
        let slopes = T::whole::<S>(self.slopes);
        for (slot, (gate, inverse)) in self.gates.iter().zip(self.inverse).enumerate() {
            let (z, old) = (row::<T, S>(self.z, slot, dp), row::<T, S>(self.old, slot, dp));
            let new = row_mut::<T, S>(self.new, slot, dp);
            let gate = T::splat(simd, *gate);
            let mut squares = T::splat(simd, T::ZERO);
            for (((new, old), z), a) in new.iter_mut().zip(old).zip(z).zip(slopes) {
                *new = T::mul_add(simd, gate, prelu::<T, S>(simd, *z, *a), *old);
                squares = T::mul_add(simd, *new, *new, squares);
            }
            *inverse = inverse_root(T::total(simd, squares));
            let scale = T::splat(simd, *inverse);
            new.iter_mut().for_each(|v| *v = T::times(simd, *v, scale));
        }
    }
}

#[inline(always)]
fn prelu<T: Real, S: Simd>(simd: S, z: T::V<S>, slopes: T::V<S>) -> T::V<S> {
    T::where_positive(simd, z, z, T::times(simd, slopes, z))
}

/// `1 / √x`, 0 at 0.
#[inline(always)]
fn inverse_root<T: Real>(x: T) -> T {
    if x > T::ZERO { T::from_f64(1. / x.to_f64().sqrt()) } else { T::ZERO }
}

/// The gradients of a sentence, without the product.
pub(super) struct Gradients<'a, T> {
    pub(super) sizes: Sizes,
    pub(super) t: usize,
    pub(super) sentences: &'a [T],
    pub(super) slopes: &'a [T],
    /// `(rows, m)`, as are the inverse norms.
    pub(super) gates: &'a [T],
    pub(super) inverse: &'a [T],
    /// The gradients that the gates get from outside; empty where they get none.
    pub(super) outer: &'a [T],
    pub(super) z: &'a [T],
    pub(super) old: &'a [T],
    pub(super) new: &'a [T],
    /// On entry the gradients of the new states, on return those of the old ones without the product.
    pub(super) d_state: &'a mut [T],
    /// To be written: the gradients before the PReLU.
    pub(super) d_z: &'a mut [T],
    /// Added to, as the next three: gradients of the projected sentences.
    pub(super) d_projected: &'a mut [T],
    /// Of the sentences, through the states in the gates.
    pub(super) d_sentences: &'a mut [T],
    /// Of the projected keys.
    pub(super) d_keys: &'a mut [T],
    pub(super) d_slopes: &'a mut [T],
}

impl<T: Real> WithSimd for Gradients<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let m = self.sizes.m;
        for place in 0..self.gates.len() / m {
            let at = self.sizes.at(place, self.t);
            for j in 0..m {
                let slot = place * m + j;
                let gate = self.gates[slot];
                let outer = if self.outer.is_empty() { T::ZERO } else { self.outer[slot] };
                let d_gate = self.candidate(simd, at, slot, j) + outer;
                let d_score = d_gate * gate * (T::ONE - gate);
                self.d_projected[at * self.sizes.width + self.sizes.dp + j] = d_score;
                self.score(simd, at, slot, d_score);
            }
        }
    }
}

impl<T: Real> Gradients<'_, T> {
    /// Back through norm, gate and PReLU of slot `j`; returns the gradient of its gate.
    #[inline(always)]
    fn candidate<S: Simd>(&mut self, simd: S, at: usize, slot: usize, j: usize) -> T {
        let Sizes { dp, width, .. } = self.sizes;
        let n = T::whole::<S>(self.slopes).len();
        let (z, new) = (&row::<T, S>(self.z, slot, dp)[..n], &row::<T, S>(self.new, slot, dp)[..n]);
        let slopes = &T::whole::<S>(self.slopes)[..n];
        let d_state = &mut row_mut::<T, S>(self.d_state, slot, dp)[..n];
        let d_z = &mut row_mut::<T, S>(self.d_z, slot, dp)[..n];
        let d_x = &mut T::whole_mut::<S>(&mut self.d_projected[at * width..][..dp])[..n];
        let d_keys = &mut row_mut::<T, S>(self.d_keys, j, dp)[..n];
        let d_slopes = &mut T::whole_mut::<S>(&mut *self.d_slopes)[..n];
        let (zero, one) = (T::splat(simd, T::ZERO), T::splat(simd, T::ONE));
        let gate = T::splat(simd, self.gates[slot]);
        let inverse = T::splat(simd, self.inverse[slot]);
        let along = T::splat(simd, -dot::<T, S>(simd, new, d_state));
        let mut d_gate = zero;
        for c in 0..n {
            let (z, a) = (z[c], slopes[c]);
            // d = (d - (d·h) h) / norm
            let d = T::times(simd, T::mul_add(simd, new[c], along, d_state[c]), inverse);
            d_gate = T::mul_add(simd, d, prelu::<T, S>(simd, z, a), d_gate);
            let out = T::times(simd, d, gate);
            let inner = T::times(simd, out, T::where_positive(simd, z, one, a));
            let below = T::where_positive(simd, z, zero, z);
            d_state[c] = d;
            d_z[c] = inner;
            d_x[c] = T::plus(simd, d_x[c], inner);
            d_keys[c] = T::plus(simd, d_keys[c], inner);
            d_slopes[c] = T::mul_add(simd, out, below, d_slopes[c]);
        }
        T::total(simd, d_gate)
    }

    /// Back through the product `s·h_j`.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, at: usize, slot: usize, d_score: T) {
        let dp = self.sizes.dp;
        let scale = T::splat(simd, d_score);
        let d_state = row_mut::<T, S>(self.d_state, slot, dp);
        for (d, s) in d_state.iter_mut().zip(row::<T, S>(self.sentences, at, dp)) {
            *d = T::mul_add(simd, *s, scale, *d);
        }
        let d_s = row_mut::<T, S>(self.d_sentences, at, dp);
        for (d, h) in d_s.iter_mut().zip(row::<T, S>(self.old, slot, dp)) {
            *d = T::mul_add(simd, *h, scale, *d);
        }
    }
}
