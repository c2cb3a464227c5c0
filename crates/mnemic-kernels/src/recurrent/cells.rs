//! The cells' arithmetic for one row and step, forward and backward: the gates of all units given both products.

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
        let h = new.len();
        let (x, a, saved) = (&x[..h], &a[..h], &mut saved[..h]);
        for j in 0..h {
            let s = x[j] + a[j];
            new[j] = match self.0 {
                Nonlinearity::Tanh => s.tanh_(),
                Nonlinearity::Relu => {
                    if s > T::ZERO {
                        s
                    } else {
                        T::ZERO
                    }
                }
            };
            saved[j] = new[j];
        }
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
        let h = d_new.len();
        let (y, d_x, d_a, d_old) = (&saved[..h], &mut d_x[..h], &mut d_a[..h], &mut d_old[..h]);
        for j in 0..h {
            let slope = match self.0 {
                Nonlinearity::Tanh => T::ONE - y[j] * y[j],
                Nonlinearity::Relu => {
                    if y[j] > T::ZERO {
                        T::ONE
                    } else {
                        T::ZERO
                    }
                }
            };
            d_x[j] = d_new[j] * slope;
            d_a[j] = d_x[j];
            d_old[j] = T::ZERO;
        }
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
        let c = &old[h..2 * h];
        for j in 0..h {
            i[j] = (x0[j] + a0[j]).sigmoid_();
            f[j] = (x1[j] + a1[j]).sigmoid_();
            g[j] = (x2[j] + a2[j]).tanh_();
            o[j] = (x3[j] + a3[j]).sigmoid_();
            cell[j] = f[j] * c[j] + i[j] * g[j];
            t[j] = cell[j].tanh_();
            hidden[j] = o[j] * t[j];
        }
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
        let (d_h, d_c) = (&d_new[..h], &d_new[h..2 * h]);
        let c = &old[h..2 * h];
        let (d_old_h, d_old_c) = d_old.split_at_mut(h);
        {
            let [d0, d1, d2, d3] = parts_mut::<4, T>(d_x, h);
            for j in 0..h {
                let dc = d_c[j] + d_h[j] * o[j] * (T::ONE - t[j] * t[j]);
                d0[j] = dc * g[j] * i[j] * (T::ONE - i[j]);
                d1[j] = dc * c[j] * f[j] * (T::ONE - f[j]);
                d2[j] = dc * i[j] * (T::ONE - g[j] * g[j]);
                d3[j] = d_h[j] * t[j] * o[j] * (T::ONE - o[j]);
                d_old_h[j] = T::ZERO;
                d_old_c[j] = dc * f[j];
            }
        }
        d_a[..4 * h].copy_from_slice(&d_x[..4 * h]);
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
        let old = &old[..h];
        for j in 0..h {
            r[j] = (x0[j] + a0[j]).sigmoid_();
            z[j] = (x1[j] + a1[j]).sigmoid_();
            u[j] = a2[j];
            n[j] = (x2[j] + r[j] * a2[j]).tanh_();
            // g ((1 - z) n + z h) + (1 - g) h = h + g (1 - z) (n - h)
            new[j] = old[j] + gate * (T::ONE - z[j]) * (n[j] - old[j]);
        }
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
        let (old, d_old) = (&old[..h], &mut d_old[..h]);
        for j in 0..h {
            let d = d_new[j];
            let keep = T::ONE - z[j];
            let step = n[j] - old[j];
            x1[j] = T::ZERO - gate * d * step * z[j] * keep;
            a1[j] = x1[j];
            x2[j] = gate * d * keep * (T::ONE - n[j] * n[j]);
            a2[j] = x2[j] * r[j];
            x0[j] = x2[j] * u[j] * r[j] * (T::ONE - r[j]);
            a0[j] = x0[j];
            d_old[j] = d - gate * d * keep;
        }
        let mut d_gate = T::ZERO;
        for j in 0..h {
            d_gate += d_new[j] * (T::ONE - z[j]) * (n[j] - old[j]);
        }
        d_gate
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
        let old = &old[..h];
        for j in 0..h {
            r[j] = (x0[j] + a0[j]).sigmoid_();
            u[j] = a1[j];
            n[j] = (x1[j] + r[j] * a1[j]).tanh_();
            new[j] = old[j] + gate * (n[j] - old[j]);
        }
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
        let (old, d_old) = (&old[..h], &mut d_old[..h]);
        for j in 0..h {
            let d = d_new[j];
            x1[j] = gate * d * (T::ONE - n[j] * n[j]);
            a1[j] = x1[j] * r[j];
            x0[j] = x1[j] * u[j] * r[j] * (T::ONE - r[j]);
            a0[j] = x0[j];
            d_old[j] = d - gate * d;
        }
        let mut d_gate = T::ZERO;
        for j in 0..h {
            d_gate += d_new[j] * (n[j] - old[j]);
        }
        d_gate
    }
}

/// The first `N` pieces of length `h`; slicing them once lets the loops run without bounds checks.
#[inline(always)]
fn parts<const N: usize, T>(xs: &[T], h: usize) -> [&[T]; N] {
    std::array::from_fn(|k| &xs[k * h..(k + 1) * h])
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
