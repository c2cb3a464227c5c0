//! The cells' arithmetic for one row and step, forward and backward: the gates of all units given both products.
//!
//! Each loop reads few slices and writes one: with more, the compiler cannot tell that they do not overlap, and the loop
//! stays scalar.

use super::Nonlinearity;
use crate::real::Real;

/// One recurrent cell. `x` and `a` are the input and recurrent products with their biases, `(g h)`; `old` and `new` are
/// states, `(s h)`, the hidden state first; `saved` holds what the backward pass needs.
pub(super) trait Cell<T: Real>: Copy + Send + Sync + 'static {
    /// Gates: rows of the weights over `h`.
    const GATES: usize;
    /// States: 1, or 2 for an LSTM.
    const STATES: usize;
    /// Saved numbers a unit.
    const SAVED: usize;
    fn forward(self, x: &[T], a: &[T], old: &[T], gate: T, new: &mut [T], saved: &mut [T]);
    /// Writes the gradients of `x`, `a` and of `old` without the path through the recurrent product; returns the gate's.
    #[allow(clippy::too_many_arguments, reason = "one gradient for each operand")]
    fn backward(
        self,
        saved: &[T],
        old: &[T],
        gate: T,
        d_new: &[T],
        d_x: &mut [T],
        d_a: &mut [T],
        d_old: &mut [T],
    ) -> T;
}

#[derive(Clone, Copy)]
pub(super) struct RnnCell(pub(super) Nonlinearity);

impl<T: Real> Cell<T> for RnnCell {
    const GATES: usize = 1;
    const STATES: usize = 1;
    const SAVED: usize = 1;

    #[inline(always)]
    fn forward(self, x: &[T], a: &[T], _: &[T], _: T, new: &mut [T], saved: &mut [T]) {
        match self.0 {
            Nonlinearity::Tanh => map2(new, x, a, |x, a| (x + a).tanh_()),
            Nonlinearity::Relu => map2(new, x, a, |x, a| positive(x + a)),
        }
        saved.copy_from_slice(new);
    }

    #[inline(always)]
    fn backward(
        self,
        saved: &[T],
        _: &[T],
        _: T,
        d_new: &[T],
        d_x: &mut [T],
        d_a: &mut [T],
        d_old: &mut [T],
    ) -> T {
        match self.0 {
            Nonlinearity::Tanh => map2(d_x, d_new, saved, |d, y| d * (T::ONE - y * y)),
            Nonlinearity::Relu => {
                map2(d_x, d_new, saved, |d, y| if y > T::ZERO { d } else { T::ZERO });
            }
        }
        d_a.copy_from_slice(d_x);
        d_old.fill(T::ZERO);
        T::ZERO
    }
}

#[derive(Clone, Copy)]
pub(super) struct LstmCell;

impl<T: Real> Cell<T> for LstmCell {
    const GATES: usize = 4;
    const STATES: usize = 2;
    const SAVED: usize = 5;

    #[inline(always)]
    fn forward(self, x: &[T], a: &[T], old: &[T], _: T, new: &mut [T], saved: &mut [T]) {
        let h = new.len() / 2;
        let (hidden, cell) = new.split_at_mut(h);
        let [x0, x1, x2, x3] = parts::<4, T>(x, h);
        let [a0, a1, a2, a3] = parts::<4, T>(a, h);
        let [i, f, g, o, t] = parts_mut::<5, T>(saved, h);
        map2(i, x0, a0, |x, a| (x + a).sigmoid_());
        map2(f, x1, a1, |x, a| (x + a).sigmoid_());
        map2(g, x2, a2, |x, a| (x + a).tanh_());
        map2(o, x3, a3, |x, a| (x + a).sigmoid_());
        map4(cell, f, &old[h..], i, g, |f, c, i, g| f * c + i * g);
        map2(t, cell, o, |c, _| c.tanh_());
        map2(hidden, o, t, |o, t| o * t);
    }

    #[inline(always)]
    fn backward(
        self,
        saved: &[T],
        old: &[T],
        _: T,
        d_new: &[T],
        d_x: &mut [T],
        d_a: &mut [T],
        d_old: &mut [T],
    ) -> T {
        let h = d_new.len() / 2;
        let [i, f, g, o, t] = parts::<5, T>(saved, h);
        let (d_h, d_c) = d_new.split_at(h);
        let (d_old_h, d_cell) = d_old.split_at_mut(h);
        map4(d_cell, d_c, d_h, o, t, |d_c, d_h, o, t| d_c + d_h * o * (T::ONE - t * t));
        {
            let [d0, d1, d2, d3] = parts_mut::<4, T>(d_x, h);
            map3(d0, d_cell, g, i, |d, g, i| d * g * i * (T::ONE - i));
            map3(d1, d_cell, &old[h..], f, |d, c, f| d * c * f * (T::ONE - f));
            map3(d2, d_cell, i, g, |d, i, g| d * i * (T::ONE - g * g));
            map3(d3, d_h, t, o, |d, t, o| d * t * o * (T::ONE - o));
        }
        d_a.copy_from_slice(d_x);
        d_old_h.fill(T::ZERO);
        d_cell.iter_mut().zip(f).for_each(|(d, f)| *d *= *f);
        T::ZERO
    }
}

/// GRU with the reset gate after the product, blended by a scalar gate (1 for the plain GRU).
#[derive(Clone, Copy)]
pub(super) struct GruCell;

impl<T: Real> Cell<T> for GruCell {
    const GATES: usize = 3;
    const STATES: usize = 1;
    const SAVED: usize = 4;

    #[inline(always)]
    fn forward(self, x: &[T], a: &[T], old: &[T], gate: T, new: &mut [T], saved: &mut [T]) {
        let h = new.len();
        let [x0, x1, x2] = parts::<3, T>(x, h);
        let [a0, a1, a2] = parts::<3, T>(a, h);
        let [r, z, n, u] = parts_mut::<4, T>(saved, h);
        map2(r, x0, a0, |x, a| (x + a).sigmoid_());
        map2(z, x1, a1, |x, a| (x + a).sigmoid_());
        u.copy_from_slice(a2);
        map3(n, x2, r, a2, |x, r, a| (x + r * a).tanh_());
        // g ((1 - z) n + z h) + (1 - g) h = h + g (1 - z) (n - h)
        map3(new, old, z, n, |old, z, n| old + gate * (T::ONE - z) * (n - old));
    }

    #[inline(always)]
    fn backward(
        self,
        saved: &[T],
        old: &[T],
        gate: T,
        d_new: &[T],
        d_x: &mut [T],
        d_a: &mut [T],
        d_old: &mut [T],
    ) -> T {
        let h = d_new.len();
        let [r, z, n, u] = parts::<4, T>(saved, h);
        let [x0, x1, x2] = parts_mut::<3, T>(d_x, h);
        let [a0, a1, a2] = parts_mut::<3, T>(d_a, h);
        map4(x1, d_new, old, z, n, |d, old, z, n| -(gate * d * (n - old) * z * (T::ONE - z)));
        map3(x2, d_new, z, n, |d, z, n| gate * d * (T::ONE - z) * (T::ONE - n * n));
        map3(x0, x2, u, r, |d, u, r| d * u * r * (T::ONE - r));
        map2(a2, x2, r, |d, r| d * r);
        a1.copy_from_slice(x1);
        a0.copy_from_slice(x0);
        map2(d_old, d_new, z, |d, z| d - gate * d * (T::ONE - z));
        sum4(d_new, old, z, n, |d, old, z, n| d * (T::ONE - z) * (n - old))
    }
}

/// GRU whose update gate is the scalar attention.
#[derive(Clone, Copy)]
pub(super) struct AttentionGruCell;

impl<T: Real> Cell<T> for AttentionGruCell {
    const GATES: usize = 2;
    const STATES: usize = 1;
    const SAVED: usize = 3;

    #[inline(always)]
    fn forward(self, x: &[T], a: &[T], old: &[T], gate: T, new: &mut [T], saved: &mut [T]) {
        let h = new.len();
        let [x0, x1] = parts::<2, T>(x, h);
        let [a0, a1] = parts::<2, T>(a, h);
        let [r, n, u] = parts_mut::<3, T>(saved, h);
        map2(r, x0, a0, |x, a| (x + a).sigmoid_());
        u.copy_from_slice(a1);
        map3(n, x1, r, a1, |x, r, a| (x + r * a).tanh_());
        map2(new, old, n, |old, n| old + gate * (n - old));
    }

    #[inline(always)]
    fn backward(
        self,
        saved: &[T],
        old: &[T],
        gate: T,
        d_new: &[T],
        d_x: &mut [T],
        d_a: &mut [T],
        d_old: &mut [T],
    ) -> T {
        let h = d_new.len();
        let [r, n, u] = parts::<3, T>(saved, h);
        let [x0, x1] = parts_mut::<2, T>(d_x, h);
        let [a0, a1] = parts_mut::<2, T>(d_a, h);
        map2(x1, d_new, n, |d, n| gate * d * (T::ONE - n * n));
        map3(x0, x1, u, r, |d, u, r| d * u * r * (T::ONE - r));
        map2(a1, x1, r, |d, r| d * r);
        a0.copy_from_slice(x0);
        d_old.iter_mut().zip(d_new).for_each(|(o, d)| *o = *d - gate * *d);
        sum4(d_new, old, n, n, |d, old, n, _| d * (n - old))
    }
}

/// `max(0, x)`.
#[inline(always)]
fn positive<T: Real>(x: T) -> T {
    if x > T::ZERO { x } else { T::ZERO }
}

#[inline(always)]
fn map2<T: Real>(out: &mut [T], a: &[T], b: &[T], f: impl Fn(T, T) -> T) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = f(*a, *b);
    }
}

#[inline(always)]
fn map3<T: Real>(out: &mut [T], a: &[T], b: &[T], c: &[T], f: impl Fn(T, T, T) -> T) {
    for (((o, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *o = f(*a, *b, *c);
    }
}

#[inline(always)]
fn map4<T: Real>(out: &mut [T], a: &[T], b: &[T], c: &[T], d: &[T], f: impl Fn(T, T, T, T) -> T) {
    for ((((o, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *o = f(*a, *b, *c, *d);
    }
}

/// The sum of `f` over all places, in 16 lanes: the order is fixed, and the loop can be vectorised.
#[inline(always)]
fn sum4<T: Real>(a: &[T], b: &[T], c: &[T], d: &[T], f: impl Fn(T, T, T, T) -> T) -> T {
    const LANES: usize = 16;
    let mut lanes = [T::ZERO; LANES];
    let whole = a.len() / LANES * LANES;
    let chunks = a[..whole]
        .chunks_exact(LANES)
        .zip(b[..whole].chunks_exact(LANES))
        .zip(c[..whole].chunks_exact(LANES))
        .zip(d[..whole].chunks_exact(LANES));
    for (((a, b), c), d) in chunks {
        for j in 0..LANES {
            lanes[j] += f(a[j], b[j], c[j], d[j]);
        }
    }
    for j in whole..a.len() {
        lanes[j - whole] += f(a[j], b[j], c[j], d[j]);
    }
    lanes.into_iter().sum()
}

/// The first `N` pieces of length `h`.
#[inline(always)]
fn parts<const N: usize, T>(xs: &[T], h: usize) -> [&[T]; N] {
    let mut rest = xs;
    std::array::from_fn(|_| {
        let (head, tail) = rest.split_at(h);
        rest = tail;
        head
    })
}

#[inline(always)]
fn parts_mut<const N: usize, T>(xs: &mut [T], h: usize) -> [&mut [T]; N] {
    let mut rest = xs;
    std::array::from_fn(|_| {
        let (head, tail) = std::mem::take(&mut rest).split_at_mut(h);
        rest = tail;
        head
    })
}
