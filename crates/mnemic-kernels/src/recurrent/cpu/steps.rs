//! The time loop, for the rows of one thread.

use pulp::{Simd, WithSimd};

use super::cells::{self, Cell, Last};
use super::scan::{Saved, ScanOp};
use crate::packed::{Packed, Start, Term, product};
use crate::real::Real;
use crate::simd::Level;

/// The most gates or states of a cell.
const MOST: usize = 4;

/// One thread's rows of the forward pass.
pub(super) struct ForwardTask<'a, C, T> {
    pub(super) op: &'a ScanOp<C>,
    /// `U^T` of each gate.
    pub(super) weights: &'a [Packed<T>],
    pub(super) bias: &'a [T],
    /// `(t, b)` in reading order, or empty.
    pub(super) gates: &'a [T],
    pub(super) peepholes: Option<Vec<T>>,
    pub(super) first: usize,
    pub(super) rows: usize,
    /// `g t` slices of `(rows, h)`.
    pub(super) x: Vec<&'a mut [T]>,
    pub(super) u: Vec<&'a mut [T]>,
    /// `s (t + 1)` slices.
    pub(super) states: Vec<&'a mut [T]>,
}

impl<C: Cell, T: Real> ForwardTask<'_, C, T> {
    pub(super) fn run(mut self, level: Level) {
        let mut scratch = vec![T::ZERO; C::GATES * self.rows * self.op.h];
        for k in 0..self.op.plan.t {
            let active = self.op.plan.active_in(k, self.first, self.rows);
            self.step(level, k, active, &mut scratch);
            let ended = active * self.op.h;
            for states in self.states.chunks_mut(self.op.plan.t + 1) {
                let (old, new) = states.split_at_mut(k + 1);
                new[0][ended..].copy_from_slice(&old[k][ended..]);
            }
            if let Some(u) = self.u.get_mut(k) {
                u[ended..].fill(T::ZERO);
            }
        }
    }

    fn step(&mut self, level: Level, k: usize, active: usize, scratch: &mut [T]) {
        let (h, t, n) = (self.op.h, self.op.plan.t, active * self.op.h);
        if active == 0 {
            return;
        }
        let (old, mut new) = around(&mut self.states, k, t, n);
        let mut x = pick_mut(&mut self.x, k, t, n);
        let u: &mut [T] = match self.u.get_mut(k) {
            Some(u) => &mut u[..n],
            None => &mut [],
        };
        let each = self.rows * h;
        for (q, scratch) in scratch.chunks_exact_mut(each).enumerate() {
            let last = q + 1 == C::GATES;
            let mut lhs = old[0];
            let to = match C::LAST {
                Last::ResetAfter if last => &mut *u,
                Last::ResetBefore if last => {
                    lhs = &*u;
                    &mut scratch[..n]
                }
                _ => &mut scratch[..n],
            };
            let terms = [Term { lhs, row: h, rhs: self.weights[q].view() }];
            let bias = Start::Bias(&self.bias[q * h..][..h]);
            product(level, active, &terms, bias, to, h);
            if C::LAST == Last::ResetBefore && q == 0 {
                let (x, a, old) = (&mut *x[0], &scratch[..n], old[0]);
                level.dispatch(Gates(self.op.cell, Part::Reset { x, a, old, reset: &mut *u }));
            }
        }
        let mut a: [&[T]; MOST] = [&[]; MOST];
        for (a, scratch) in a.iter_mut().zip(scratch.chunks_exact(each)) {
            *a = &scratch[..n];
        }
        if C::LAST == Last::ResetAfter {
            a[C::GATES - 1] = &*u;
        }
        let step = cells::Forward {
            x: &mut x[..C::GATES],
            a: &a[..C::GATES],
            old: &old[..C::STATES],
            new: &mut new[..C::STATES],
            gate: gate(self.gates, k * self.op.plan.b + self.first, active),
            peepholes: peepholes(&self.peepholes, n),
            h,
        };
        level.dispatch(Gates(self.op.cell, Part::Forward(step)));
    }
}

/// One thread's rows of the backward pass.
pub(super) struct BackwardTask<'a, C, T> {
    pub(super) op: &'a ScanOp<C>,
    pub(super) saved: &'a Saved<T>,
    /// `U` of each gate.
    pub(super) weights: &'a [Packed<T>],
    pub(super) gates: &'a [T],
    pub(super) peepholes: Option<Vec<T>>,
    /// `(b, t, h)`, as the caller sees it.
    pub(super) d_output: Option<&'a [T]>,
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) d_x: Vec<&'a mut [T]>,
    pub(super) d_u: Vec<&'a mut [T]>,
    pub(super) d_states: Vec<&'a mut [T]>,
    pub(super) d_gates: Vec<&'a mut [T]>,
}

impl<C: Cell, T: Real> BackwardTask<'_, C, T> {
    pub(super) fn run(mut self, level: Level) {
        let reset = if C::LAST == Last::ResetBefore { self.rows * self.op.h } else { 0 };
        let mut scratch = vec![T::ZERO; reset];
        for k in (0..self.op.plan.t).rev() {
            let active = self.op.plan.active_in(k, self.first, self.rows);
            self.step(level, k, active, &mut scratch);
            let ended = active * self.op.h;
            self.d_x
                .iter_mut()
                .skip(k)
                .step_by(self.op.plan.t)
                .for_each(|d| d[ended..].fill(T::ZERO));
            if let Some(u) = self.d_u.get_mut(k) {
                u[ended..].fill(T::ZERO);
            }
        }
    }

    fn step(&mut self, level: Level, k: usize, active: usize, scratch: &mut [T]) {
        let (h, t, n) = (self.op.h, self.op.plan.t, active * self.op.h);
        if active == 0 {
            return;
        }
        self.add_output_gradient(k, active);
        let (b, cell) = (self.op.plan.b, self.op.cell);
        let at = self.first * h..self.first * h + n;
        let steps = (t + 1) * b * h;
        let (mut x, mut old, mut new) = ([&[][..]; MOST], [&[][..]; MOST], [&[][..]; MOST]);
        for (x, saved) in x.iter_mut().zip(self.saved.x.chunks_exact(t * b * h)) {
            *x = &saved[k * b * h..][at.clone()];
        }
        for (s, saved) in self.saved.states.chunks_exact(steps).enumerate() {
            old[s] = &saved[k * b * h..][at.clone()];
            new[s] = &saved[(k + 1) * b * h..][at.clone()];
        }
        let u = if self.saved.u.is_empty() { &[] } else { &self.saved.u[k * b * h..][at] };
        let mut d_state = pick_mut(&mut self.d_states, 0, 1, n);
        let mut d_x = pick_mut(&mut self.d_x, k, t, n);
        let d_u: &mut [T] = match self.d_u.get_mut(k) {
            Some(d) => &mut d[..n],
            None => &mut [],
        };
        let d_gate: &mut [T] = match self.d_gates.get_mut(k) {
            Some(d) => &mut d[..active],
            None => &mut [],
        };
        let step = cells::Backward {
            x: &x[..C::GATES],
            u,
            old: &old[..C::STATES],
            new: &new[..C::STATES],
            gate: gate(self.gates, k * b + self.first, active),
            peepholes: peepholes(&self.peepholes, n),
            h,
            d_state: &mut d_state[..C::STATES],
            d_x: &mut d_x[..C::GATES],
            d_u: &mut *d_u,
            d_gate,
        };
        level.dispatch(Gates(cell, Part::Backward(step)));
        let last = C::GATES - 1;
        let mut lhs: [&[T]; MOST] = [&[]; MOST];
        let mut through = C::GATES;
        if C::LAST == Last::ResetBefore {
            let term = [Term { lhs: &*d_x[last], row: h, rhs: self.weights[last].view() }];
            scratch[..n].fill(T::ZERO);
            product(level, active, &term, Start::Destination, &mut scratch[..n], h);
            let (d_x, d_state) = (&mut *d_x[0], &mut *d_state[0]);
            let (r, old, d_reset) = (x[0], old[0], &scratch[..n]);
            level.dispatch(Gates(cell, Part::ResetBackward { r, old, d_reset, d_x, d_state }));
            through = last;
        }
        for (lhs, d) in lhs.iter_mut().zip(&d_x) {
            *lhs = &**d;
        }
        if C::LAST == Last::ResetAfter {
            lhs[last] = &*d_u;
        }
        let mut terms = [Term { lhs: lhs[0], row: h, rhs: self.weights[0].view() }; MOST];
        for (q, term) in terms.iter_mut().enumerate().take(C::GATES) {
            *term = Term { lhs: lhs[q], row: h, rhs: self.weights[q].view() };
        }
        product(level, active, &terms[..through], Start::Destination, d_state[0], h);
    }

    /// Adds the gradient of the outputs at step `k` to that of the hidden states.
    fn add_output_gradient(&mut self, k: usize, active: usize) {
        let (h, plan) = (self.op.h, &self.op.plan);
        let (Some(grad), Some(d)) = (self.d_output, self.d_states.first_mut()) else { return };
        let rows = plan.order[self.first..self.first + active].iter();
        for (d, row) in d.chunks_exact_mut(h).zip(rows) {
            let grad = &grad[(row * plan.t + plan.time(k)) * h..][..h];
            d.iter_mut().zip(grad).for_each(|(d, g)| *d += *g);
        }
    }
}

/// A part of a cell's step, compiled for each level.
struct Gates<'s, 'a, C, T>(C, Part<'s, 'a, T>);

enum Part<'s, 'a, T> {
    Forward(cells::Forward<'s, 'a, T>),
    Backward(cells::Backward<'s, 'a, T>),
    Reset {
        x: &'s mut [T],
        a: &'s [T],
        old: &'s [T],
        reset: &'s mut [T],
    },
    ResetBackward {
        r: &'s [T],
        old: &'s [T],
        d_reset: &'s [T],
        d_x: &'s mut [T],
        d_state: &'s mut [T],
    },
}

impl<C: Cell, T: Real> WithSimd for Gates<'_, '_, C, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.1 {
            Part::Forward(step) => self.0.forward(step),
            Part::Backward(step) => self.0.backward(step),
            Part::Reset { x, a, old, reset } => self.0.reset(x, a, old, reset),
            Part::ResetBackward { r, old, d_reset, d_x, d_state } => {
                self.0.reset_backward(r, old, d_reset, d_x, d_state);
            }
        }
    }
}

/// The slice of each list of `t` at `k`, cut to `n` numbers.
fn pick_mut<'s, T>(lists: &'s mut [&mut [T]], k: usize, t: usize, n: usize) -> [&'s mut [T]; MOST] {
    let mut picked: [&mut [T]; MOST] = Default::default();
    for (p, list) in picked.iter_mut().zip(lists.chunks_mut(t)) {
        *p = &mut list[k][..n];
    }
    picked
}

/// The states before and after step `k`, cut to `n` numbers.
fn around<'s, T>(
    states: &'s mut [&mut [T]],
    k: usize,
    t: usize,
    n: usize,
) -> ([&'s [T]; MOST], [&'s mut [T]; MOST]) {
    let (mut old, mut new): ([&[T]; MOST], [&mut [T]; MOST]) = Default::default();
    for ((o, w), list) in old.iter_mut().zip(&mut new).zip(states.chunks_mut(t + 1)) {
        let (before, after) = list.split_at_mut(k + 1);
        *o = &before[k][..n];
        *w = &mut after[0][..n];
    }
    (old, new)
}

/// The scalar gates of the rows; empty where the scan has none.
fn gate<T>(gates: &[T], from: usize, active: usize) -> &[T] {
    if gates.is_empty() { gates } else { &gates[from..from + active] }
}

/// The three peepholes, cut to `n` numbers.
fn peepholes<T>(p: &Option<Vec<T>>, n: usize) -> Option<[&[T]; 3]> {
    let p = p.as_ref()?;
    let each = p.len() / 3;
    Some([&p[..n], &p[each..each + n], &p[2 * each..2 * each + n]])
}
