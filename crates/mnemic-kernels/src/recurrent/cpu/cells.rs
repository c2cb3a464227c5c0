//! The cells' arithmetic for one step of many rows: gates given both products, and their gradients.
//!
//! A step's numbers lie gate by gate, `(rows, h)` each, so that one loop covers all rows. Each loop writes one slice and reads
//! few: with more, the compiler cannot tell that they do not overlap, and the loop stays scalar.

use super::super::Nonlinearity;
use crate::real::Real;

/// One step of the forward pass; all slices are `(rows, h)`, rows that are being read only.
pub(super) struct Forward<'s, 'a, T> {
    /// Input products; what the cell leaves here is kept for the backward pass.
    pub(super) x: &'s mut [&'a mut [T]],
    /// Recurrent products of the gates.
    pub(super) a: &'a [&'a [T]],
    /// States before the step.
    pub(super) old: &'a [&'a [T]],
    /// States after it.
    pub(super) new: &'s mut [&'a mut [T]],
    /// A gate a row, where the scan is gated.
    pub(super) gate: &'a [T],
    /// Peephole weights of i, f and o, repeated for every row.
    pub(super) peepholes: Option<[&'a [T]; 3]>,
    pub(super) h: usize,
}

/// One step of the backward pass.
pub(super) struct Backward<'s, 'a, T> {
    /// What the forward pass left in the input products.
    pub(super) x: &'a [&'a [T]],
    /// The recurrent product (reset gate after it) or the reset state (before it).
    pub(super) u: &'a [T],
    pub(super) old: &'a [&'a [T]],
    pub(super) new: &'a [&'a [T]],
    pub(super) gate: &'a [T],
    pub(super) peepholes: Option<[&'a [T]; 3]>,
    pub(super) h: usize,
    /// On entry the gradients of the new states, on return those of the old ones without the recurrent products.
    pub(super) d_state: &'s mut [&'a mut [T]],
    /// To be written: gradients of the input products.
    pub(super) d_x: &'s mut [&'a mut [T]],
    /// To be written: the gradient of the last gate's recurrent product, where it differs.
    pub(super) d_u: &'s mut [T],
    /// To be written: the gates' gradients.
    pub(super) d_gate: &'s mut [T],
}

/// How the last gate's recurrent product is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Last {
    /// As those of the other gates; its gradient is that of the input product.
    Same,
    /// It is kept, since the reset gate multiplies it.
    ResetAfter,
    /// It is made of the reset state `r ∘ h`, which is kept.
    ResetBefore,
}

/// One recurrent cell. States: the hidden state first.
pub(super) trait Cell: Copy + Send + Sync + 'static {
    const GATES: usize;
    /// 1, or 2 for an LSTM.
    const STATES: usize;
    const LAST: Last;
    fn forward<T: Real>(self, step: Forward<'_, '_, T>);
    fn backward<T: Real>(self, step: Backward<'_, '_, T>);

    /// With [`Last::ResetBefore`]: leaves the reset gate in `x` and `r ∘ old` in `reset`.
    #[inline(always)]
    fn reset<T: Real>(self, _x: &mut [T], _a: &[T], _old: &[T], _reset: &mut [T]) {}

    /// With [`Last::ResetBefore`]: given the gradient of the reset state, writes that of the reset gate and adds to that of
    /// the old state.
    #[inline(always)]
    fn reset_backward<T: Real>(
        self,
        _r: &[T],
        _old: &[T],
        _d_reset: &[T],
        _d_x: &mut [T],
        _d_state: &mut [T],
    ) {
    }
}

#[derive(Clone, Copy)]
pub(super) struct RnnCell(pub(super) Nonlinearity);

impl Cell for RnnCell {
    const GATES: usize = 1;
    const STATES: usize = 1;
    const LAST: Last = Last::Same;

    #[inline(always)]
    fn forward<T: Real>(self, step: Forward<'_, '_, T>) {
        let ([x], [a], [new]) = (step.x, step.a, step.new) else { return };
        match self.0 {
            Nonlinearity::Tanh => map2(new, x, a, |x, a| (x + a).tanh_()),
            Nonlinearity::Relu => map2(new, x, a, |x, a| positive(x + a)),
        }
    }

    #[inline(always)]
    fn backward<T: Real>(self, step: Backward<'_, '_, T>) {
        let ([d_x], [d], [new]) = (step.d_x, step.d_state, step.new) else { return };
        match self.0 {
            Nonlinearity::Tanh => map2(d_x, d, new, |d, y| d * (T::ONE - y * y)),
            Nonlinearity::Relu => map2(d_x, d, new, |d, y| if y > T::ZERO { d } else { T::ZERO }),
        }
        d.fill(T::ZERO);
    }
}

#[derive(Clone, Copy)]
pub(super) struct LstmCell;

impl Cell for LstmCell {
    const GATES: usize = 4;
    const STATES: usize = 2;
    const LAST: Last = Last::Same;

    #[inline(always)]
    fn forward<T: Real>(self, step: Forward<'_, '_, T>) {
        let ([i, f, g, o], [a_i, a_f, a_g, a_o]) = (step.x, step.a) else { return };
        let ([_, c], [new_h, new_c]) = (step.old, step.new) else { return };
        match step.peepholes {
            None => {
                update(i, a_i, |x, a| (x + a).sigmoid_());
                update(f, a_f, |x, a| (x + a).sigmoid_());
            }
            Some([p_i, p_f, _]) => {
                update3(i, a_i, c, p_i, |x, a, c, p| (x + a + p * c).sigmoid_());
                update3(f, a_f, c, p_f, |x, a, c, p| (x + a + p * c).sigmoid_());
            }
        }
        update(g, a_g, |x, a| (x + a).tanh_());
        map4(new_c, f, c, i, g, |f, c, i, g| f * c + i * g);
        match step.peepholes {
            None => update(o, a_o, |x, a| (x + a).sigmoid_()),
            Some([_, _, p_o]) => {
                update3(o, a_o, new_c, p_o, |x, a, c, p| (x + a + p * c).sigmoid_());
            }
        }
        map2(new_h, o, new_c, |o, c| o * c.tanh_());
    }

    #[inline(always)]
    fn backward<T: Real>(self, step: Backward<'_, '_, T>) {
        let ([i, f, g, o], [d_i, d_f, d_g, d_o]) = (step.x, step.d_x) else { return };
        let ([_, c], [_, new_c], [d_h, d_c]) = (step.old, step.new, step.d_state) else { return };
        // tanh(c) is needed twice: it stands in d_f for a while.
        map1(d_f, new_c, |c| c.tanh_());
        update3(d_c, d_h, o, d_f, |d_c, d_h, o, t| d_c + d_h * o * (T::ONE - t * t));
        map3(d_o, d_h, d_f, o, |d, t, o| d * t * o * (T::ONE - o));
        if let Some([_, _, p_o]) = step.peepholes {
            update2(d_c, d_o, p_o, |d, d_o, p| d + d_o * p);
        }
        map3(d_i, d_c, g, i, |d, g, i| d * g * i * (T::ONE - i));
        map3(d_f, d_c, c, f, |d, c, f| d * c * f * (T::ONE - f));
        map3(d_g, d_c, i, g, |d, i, g| d * i * (T::ONE - g * g));
        update(d_c, f, |d, f| d * f);
        if let Some([p_i, p_f, _]) = step.peepholes {
            update2(d_c, d_i, p_i, |d, d_i, p| d + d_i * p);
            update2(d_c, d_f, p_f, |d, d_f, p| d + d_f * p);
        }
        d_h.fill(T::ZERO);
    }
}

/// GRU, blended by a scalar gate where `GATED`. `BEFORE` says where its reset gate stands.
#[derive(Clone, Copy)]
pub(super) struct GruCell<const GATED: bool, const BEFORE: bool>;

impl<const GATED: bool, const BEFORE: bool> Cell for GruCell<GATED, BEFORE> {
    const GATES: usize = 3;
    const STATES: usize = 1;
    const LAST: Last = if BEFORE { Last::ResetBefore } else { Last::ResetAfter };

    #[inline(always)]
    fn reset<T: Real>(self, x: &mut [T], a: &[T], old: &[T], reset: &mut [T]) {
        update(x, a, |x, a| (x + a).sigmoid_());
        map2(reset, x, old, |r, old| r * old);
    }

    #[inline(always)]
    fn reset_backward<T: Real>(
        self,
        r: &[T],
        old: &[T],
        d_reset: &[T],
        d_x: &mut [T],
        d_state: &mut [T],
    ) {
        map3(d_x, d_reset, old, r, |d, old, r| d * old * r * (T::ONE - r));
        update2(d_state, d_reset, r, |s, d, r| s + d * r);
    }

    #[inline(always)]
    fn forward<T: Real>(self, step: Forward<'_, '_, T>) {
        let ([r, z, n], [a_r, a_z, a_n]) = (step.x, step.a) else { return };
        let ([old], [new]) = (step.old, step.new) else { return };
        update(z, a_z, |x, a| (x + a).sigmoid_());
        if BEFORE {
            update(n, a_n, |x, a| (x + a).tanh_());
        } else {
            update(r, a_r, |x, a| (x + a).sigmoid_());
            update2(n, r, a_n, |x, r, a| (x + r * a).tanh_());
        }
        // g ((1 - z) n + z h) + (1 - g) h = h + g (1 - z) (n - h)
        if GATED {
            rows4(new, old, z, n, step.gate, step.h, |old, z, n, g| {
                old + g * (T::ONE - z) * (n - old)
            });
        } else {
            map3(new, old, z, n, |old, z, n| old + (T::ONE - z) * (n - old));
        }
    }

    #[inline(always)]
    fn backward<T: Real>(self, step: Backward<'_, '_, T>) {
        let ([r, z, n], [d_r, d_z, d_n]) = (step.x, step.d_x) else { return };
        let ([old], [d]) = (step.old, step.d_state) else { return };
        if GATED {
            let (gate, h) = (step.gate, step.h);
            for (row, d_gate) in step.d_gate.iter_mut().enumerate() {
                let at = row * h..(row + 1) * h;
                *d_gate = sum4(&d[at.clone()], &old[at.clone()], &z[at.clone()], &n[at]);
            }
            rows5(d_z, d, old, z, n, gate, h, |d, old, z, n, g| {
                -(g * d * (n - old) * z * (T::ONE - z))
            });
            rows4(d_n, d, z, n, gate, h, |d, z, n, g| g * d * (T::ONE - z) * (T::ONE - n * n));
            update_rows(d, z, gate, h, |d, z, g| d - g * d * (T::ONE - z));
        } else {
            map4(d_z, d, old, z, n, |d, old, z, n| -(d * (n - old) * z * (T::ONE - z)));
            map3(d_n, d, z, n, |d, z, n| d * (T::ONE - z) * (T::ONE - n * n));
            update(d, z, |d, z| d * z);
        }
        if !BEFORE {
            map3(d_r, d_n, step.u, r, |d, u, r| d * u * r * (T::ONE - r));
            map2(step.d_u, d_n, r, |d, r| d * r);
        }
    }
}

/// GRU whose update gate is the scalar attention.
#[derive(Clone, Copy)]
pub(super) struct AttentionGruCell;

impl Cell for AttentionGruCell {
    const GATES: usize = 2;
    const STATES: usize = 1;
    const LAST: Last = Last::ResetAfter;

    #[inline(always)]
    fn forward<T: Real>(self, step: Forward<'_, '_, T>) {
        let ([r, n], [a_r, a_n]) = (step.x, step.a) else { return };
        let ([old], [new]) = (step.old, step.new) else { return };
        update(r, a_r, |x, a| (x + a).sigmoid_());
        update2(n, r, a_n, |x, r, a| (x + r * a).tanh_());
        rows3(new, old, n, step.gate, step.h, |old, n, g| old + g * (n - old));
    }

    #[inline(always)]
    fn backward<T: Real>(self, step: Backward<'_, '_, T>) {
        let ([r, n], [d_r, d_n]) = (step.x, step.d_x) else { return };
        let ([old], [d]) = (step.old, step.d_state) else { return };
        let (gate, h) = (step.gate, step.h);
        for (row, d_gate) in step.d_gate.iter_mut().enumerate() {
            let at = row * h..(row + 1) * h;
            *d_gate = sum3(&d[at.clone()], &old[at.clone()], &n[at]);
        }
        rows3(d_n, d, n, gate, h, |d, n, g| g * d * (T::ONE - n * n));
        map3(d_r, d_n, step.u, r, |d, u, r| d * u * r * (T::ONE - r));
        map2(step.d_u, d_n, r, |d, r| d * r);
        for (d, g) in d.chunks_exact_mut(h).zip(gate) {
            d.iter_mut().for_each(|d| *d -= *g * *d);
        }
    }
}

/// `max(0, x)`.
#[inline(always)]
fn positive<T: Real>(x: T) -> T {
    if x > T::ZERO { x } else { T::ZERO }
}

#[inline(always)]
fn map1<T: Real>(out: &mut [T], a: &[T], f: impl Fn(T) -> T) {
    for (o, a) in out.iter_mut().zip(a) {
        *o = f(*a);
    }
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

#[inline(always)]
fn update<T: Real>(out: &mut [T], a: &[T], f: impl Fn(T, T) -> T) {
    for (o, a) in out.iter_mut().zip(a) {
        *o = f(*o, *a);
    }
}

#[inline(always)]
fn update2<T: Real>(out: &mut [T], a: &[T], b: &[T], f: impl Fn(T, T, T) -> T) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = f(*o, *a, *b);
    }
}

#[inline(always)]
fn update3<T: Real>(out: &mut [T], a: &[T], b: &[T], c: &[T], f: impl Fn(T, T, T, T) -> T) {
    for (((o, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *o = f(*o, *a, *b, *c);
    }
}

/// `f` with the gate of each row as its last argument; likewise below.
#[inline(always)]
fn update_rows<T: Real>(out: &mut [T], a: &[T], gate: &[T], h: usize, f: impl Fn(T, T, T) -> T) {
    for ((o, a), g) in out.chunks_exact_mut(h).zip(a.chunks_exact(h)).zip(gate) {
        update(o, a, |o, a| f(o, a, *g));
    }
}

#[inline(always)]
fn rows3<T: Real>(out: &mut [T], a: &[T], b: &[T], gate: &[T], h: usize, f: impl Fn(T, T, T) -> T) {
    let rows = out.chunks_exact_mut(h).zip(a.chunks_exact(h)).zip(b.chunks_exact(h));
    for (((o, a), b), g) in rows.zip(gate) {
        map2(o, a, b, |a, b| f(a, b, *g));
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one slice for each operand")]
fn rows4<T: Real>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    c: &[T],
    gate: &[T],
    h: usize,
    f: impl Fn(T, T, T, T) -> T,
) {
    let rows = out.chunks_exact_mut(h).zip(a.chunks_exact(h)).zip(b.chunks_exact(h));
    for ((((o, a), b), c), g) in rows.zip(c.chunks_exact(h)).zip(gate) {
        map3(o, a, b, c, |a, b, c| f(a, b, c, *g));
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one slice for each operand")]
fn rows5<T: Real>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    c: &[T],
    d: &[T],
    gate: &[T],
    h: usize,
    f: impl Fn(T, T, T, T, T) -> T,
) {
    let rows = out.chunks_exact_mut(h).zip(a.chunks_exact(h)).zip(b.chunks_exact(h));
    let rows = rows.zip(c.chunks_exact(h)).zip(d.chunks_exact(h));
    for (((((o, a), b), c), d), g) in rows.zip(gate) {
        map4(o, a, b, c, d, |a, b, c, d| f(a, b, c, d, *g));
    }
}

/// `Σ d (n - old)` of a row.
#[inline(always)]
fn sum3<T: Real>(d: &[T], old: &[T], n: &[T]) -> T {
    lanes_sum(d.len(), |j| d[j] * (n[j] - old[j]))
}

/// `Σ d (1 - z) (n - old)` of a row.
#[inline(always)]
fn sum4<T: Real>(d: &[T], old: &[T], z: &[T], n: &[T]) -> T {
    lanes_sum(d.len(), |j| d[j] * (T::ONE - z[j]) * (n[j] - old[j]))
}

/// The sum of `f` over all places, in 16 lanes: the order is fixed, and the loop can be vectorised.
#[inline(always)]
fn lanes_sum<T: Real>(n: usize, f: impl Fn(usize) -> T) -> T {
    const LANES: usize = 16;
    let mut lanes = [T::ZERO; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += f(start + j);
        }
    }
    for j in whole..n {
        lanes[j - whole] += f(j);
    }
    lanes.into_iter().sum()
}
