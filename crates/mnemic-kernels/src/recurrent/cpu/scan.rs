//! The scan as a fused operation.

use super::Places;
use super::cells::{Cell, Last};
use super::plan::Plan;
use super::steps::{BackwardTask, ForwardTask};
use crate::fused::{Backward, FusedOp, Results, View};
use crate::matmul::{Mat, matmul, parallelism};
use crate::packed::{Packed, Start, Term, product};
use crate::real::{Real, buffer};
use crate::rows::column_sums;
use crate::{simd, threads};
use candle_core::{Result, bail};

pub(super) struct ScanOp<C> {
    pub(super) cell: C,
    pub(super) plan: Plan,
    pub(super) places: Places,
    pub(super) h: usize,
}

/// What the forward pass keeps; all `(t, b, h)` in reading order with sorted rows.
pub(super) struct Saved<T> {
    /// Gates, `g` of them.
    pub(super) x: Vec<T>,
    /// The last gate's recurrent product, or the reset state; empty where neither is needed.
    pub(super) u: Vec<T>,
    /// States before each step and after the last, `(t + 1, b, h)` each.
    pub(super) states: Vec<T>,
}

/// The rows that a task works on, cut out of `(n, b, h)` arrays: one slice for each of the `n`.
fn cut<'a, T>(
    array: &'a mut [T],
    width: usize,
    ranges: &[(usize, usize)],
) -> Vec<Vec<&'a mut [T]>> {
    let mut tasks: Vec<Vec<&'a mut [T]>> = ranges.iter().map(|_| Vec::new()).collect();
    let b: usize = ranges.iter().map(|r| r.1).sum();
    for step in array.chunks_exact_mut(b * width) {
        let mut rest = step;
        for (task, (_, rows)) in tasks.iter_mut().zip(ranges) {
            let (now, later) = rest.split_at_mut(rows * width);
            task.push(now);
            rest = later;
        }
    }
    tasks
}

impl<C: Cell> FusedOp for ScanOp<C> {
    const NAME: &'static str = "recurrent scan";
    type Saved<T: Real> = Saved<T>;

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<Results<T, Saved<T>>> {
        let (b, t, h) = (self.plan.b, self.plan.t, self.h);
        let mut x = self.input_products(inputs);
        let mut u = buffer(if C::LAST == Last::Same { 0 } else { t * b * h });
        let mut states = buffer((t + 1) * b * h * C::STATES);
        for (s, states) in states.chunks_exact_mut((t + 1) * b * h).enumerate() {
            match self.places.states[s] {
                Some(i) => self.plan.sort(inputs[i].data, h, &mut states[..b * h]),
                None => states[..b * h].fill(T::ZERO),
            }
        }
        self.run_forward(inputs, &mut x, &mut u, &mut states);
        let mut output = buffer(b * t * h);
        self.plan.scatter(&states[b * h..], h, T::ZERO, &mut output);
        let mut results = vec![(output, vec![b, t, h])];
        for states in states.chunks_exact((t + 1) * b * h) {
            let mut last = buffer(b * h);
            self.plan.unsort(&states[t * b * h..], h, &mut last);
            results.push((last, vec![b, h]));
        }
        Ok((results, Saved { x, u, states }))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Saved<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let d = self.run_backward(&pass);
        self.operand_gradients(&pass, d)
    }
}

/// Gradients inside the scan.
struct Inner<T> {
    /// Of the input products, `g` times `(t, b, h)`.
    x: Vec<T>,
    /// Of the last gate's recurrent product, where it differs.
    u: Vec<T>,
    /// Of the initial states, `(b, h)` each, sorted.
    states: Vec<T>,
    /// Of the gates, `(t, b)`.
    gates: Vec<T>,
}

impl<C: Cell> ScanOp<C> {
    /// The numbers of the operand at a place.
    fn operand<'a, T>(inputs: &[View<'a, T>], place: Option<usize>) -> Option<&'a [T]> {
        place.map(|i| inputs[i].data)
    }

    /// Input products with their bias, `g` times `(t, b, h)`.
    fn input_products<T: Real>(&self, inputs: &[View<'_, T>]) -> Vec<T> {
        let (b, t, h) = (self.plan.b, self.plan.t, self.h);
        let xs = inputs[self.places.x];
        let width = xs.data.len() / (b * t);
        let mut gathered = buffer(t * b * width);
        self.plan.gather(xs.data, width, &mut gathered);
        let mut x = buffer(C::GATES * t * b * h);
        let w_ih = Self::operand(inputs, self.places.w_ih);
        let b_ih = Self::operand(inputs, self.places.b_ih);
        for (q, x) in x.chunks_exact_mut(t * b * h).enumerate() {
            let Some(w) = w_ih else {
                for (x, row) in x.chunks_exact_mut(h).zip(gathered.chunks_exact(width)) {
                    x.copy_from_slice(&row[q * h..][..h]);
                }
                continue;
            };
            let rhs = Mat { data: &w[q * h * width..], row: 1, col: width };
            rows_product(&gathered, (t * b, width, h), rhs, b_ih.map(|b| &b[q * h..][..h]), x);
        }
        x
    }

    /// Row ranges to be worked on one after the other or on threads: few rows, so that a step's numbers stay in the first cache,
    /// where the weights fit the second and so can be read again for every range.
    fn ranges(&self) -> Vec<(usize, usize)> {
        const ROWS: usize = 24;
        let Plan { b, t, .. } = self.plan;
        let weights = C::GATES * self.h * self.h;
        let threads = if b * t * weights < 1 << 17 { 1 } else { rayon::current_num_threads() };
        let n =
            if weights <= 1 << 16 { b.div_ceil(ROWS).next_multiple_of(threads) } else { threads };
        self.plan.ranges(n.clamp(1, b))
    }

    /// Recurrent weights of every gate, packed for `h U^T` or for `d U`.
    fn pack<T: Real>(&self, inputs: &[View<'_, T>], transposed: bool) -> Vec<Packed<T>> {
        let (h, w) = (self.h, inputs[self.places.w_hh].data);
        let (row, col) = if transposed { (1, h) } else { (h, 1) };
        (0..C::GATES)
            .map(|q| Packed::new(Mat { data: &w[q * h * h..][..h * h], row, col }, h, h))
            .collect()
    }

    /// Peephole weights, repeated for `rows` rows.
    fn peepholes<T: Real>(&self, inputs: &[View<'_, T>], rows: usize) -> Option<Vec<T>> {
        let p = Self::operand(inputs, self.places.peepholes)?;
        Some(p.chunks_exact(self.h).flat_map(|p| p.repeat(rows)).collect())
    }

    /// The gates in reading order, `(t, b)`; empty where the scan has none.
    fn gates<T: Real>(&self, inputs: &[View<'_, T>]) -> Vec<T> {
        let Some(gates) = Self::operand(inputs, self.places.gates) else { return vec![] };
        let mut sorted = buffer(gates.len());
        self.plan.gather(gates, 1, &mut sorted);
        sorted
    }

    fn run_forward<T: Real>(
        &self,
        inputs: &[View<'_, T>],
        x: &mut [T],
        u: &mut [T],
        states: &mut [T],
    ) {
        let h = self.h;
        let ranges = self.ranges();
        let weights = self.pack(inputs, true);
        let zeros = vec![T::ZERO; C::GATES * h];
        let bias = Self::operand(inputs, self.places.b_hh).unwrap_or(&zeros);
        let gates = self.gates(inputs);
        let (x, u) = (cut(x, h, &ranges), cut(u, h, &ranges));
        let states = cut(states, h, &ranges);
        let tasks = ranges.iter().zip(x).zip(u).zip(states);
        let tasks: Vec<_> = tasks
            .map(|(((&(first, rows), x), u), states)| ForwardTask {
                op: self,
                weights: &weights,
                bias,
                gates: &gates,
                peepholes: self.peepholes(inputs, rows),
                first,
                rows,
                x,
                u,
                states,
            })
            .collect();
        let level = simd::level();
        threads::for_each(tasks, |task| task.run(level));
    }

    fn run_backward<T: Real>(&self, pass: &Backward<'_, T, Saved<T>>) -> Inner<T> {
        let (b, t, h) = (self.plan.b, self.plan.t, self.h);
        let ranges = self.ranges();
        let weights = self.pack(pass.inputs, false);
        let gates = self.gates(pass.inputs);
        let mut d = Inner {
            x: buffer(C::GATES * t * b * h),
            u: buffer(pass.saved.u.len()),
            states: vec![T::ZERO; C::STATES * b * h],
            gates: vec![T::ZERO; gates.len()],
        };
        for (s, states) in d.states.chunks_exact_mut(b * h).enumerate() {
            if let Some(grad) = pass.grads[1 + s] {
                self.plan.sort(grad.data, h, states);
            }
        }
        let tasks = ranges.iter().zip(cut(&mut d.x, h, &ranges)).zip(cut(&mut d.u, h, &ranges));
        let tasks = tasks.zip(cut(&mut d.states, h, &ranges)).zip(cut(&mut d.gates, 1, &ranges));
        let tasks: Vec<_> = tasks
            .map(|((((&(first, rows), x), u), states), d_gates)| BackwardTask {
                op: self,
                saved: pass.saved,
                weights: &weights,
                gates: &gates,
                peepholes: self.peepholes(pass.inputs, rows),
                d_output: pass.grads[0].map(|g| g.data),
                first,
                rows,
                d_x: x,
                d_u: u,
                d_states: states,
                d_gates,
            })
            .collect();
        let level = simd::level();
        threads::for_each(tasks, |task| task.run(level));
        d
    }

    /// Gradients of the operands from those inside the scan.
    fn operand_gradients<T: Real>(
        &self,
        pass: &Backward<'_, T, Saved<T>>,
        d: Inner<T>,
    ) -> Result<Vec<Option<Vec<T>>>> {
        let (b, t, h, p) = (self.plan.b, self.plan.t, self.h, &self.places);
        let wanted = |place: Option<usize>| place.filter(|&i| pass.wanted[i]);
        let mut out: Vec<Option<Vec<T>>> = vec![None; pass.inputs.len()];
        if wanted(Some(p.x)).is_some() {
            out[p.x] = Some(self.input_gradient(pass.inputs, &d.x));
        }
        let xs = pass.inputs[p.x].data;
        if let Some(i) = wanted(p.w_ih) {
            let width = xs.len() / (b * t);
            let mut gathered = buffer(t * b * width);
            self.plan.gather(xs, width, &mut gathered);
            out[i] = Some(weight_gradient(&d.x, &gathered, (C::GATES, t * b, h, width)));
        }
        if let Some(i) = wanted(p.b_ih) {
            out[i] = Some(d.x.chunks_exact(t * b * h).flat_map(|d| column_sums(d, h)).collect());
        }
        // Recurrent products: their gradients are the input products', but for a last gate with a reset gate after it.
        let split = if C::LAST == Last::ResetAfter { C::GATES - 1 } else { C::GATES };
        let recurrent: Vec<&[T]> = d.x[..split * t * b * h]
            .chunks_exact(t * b * h)
            .chain((split < C::GATES).then_some(d.u.as_slice()))
            .collect();
        if wanted(Some(p.w_hh)).is_some() {
            let old = &pass.saved.states[..t * b * h];
            let mut w = Vec::with_capacity(C::GATES * h * h);
            for (q, d) in recurrent.iter().enumerate() {
                let reset = C::LAST == Last::ResetBefore && q + 1 == C::GATES;
                let with = if reset { pass.saved.u.as_slice() } else { old };
                w.extend(weight_gradient(d, with, (1, t * b, h, h)));
            }
            out[p.w_hh] = Some(w);
        }
        if let Some(i) = wanted(p.b_hh) {
            out[i] = Some(recurrent.iter().flat_map(|d| column_sums(d, h)).collect());
        }
        for (place, sorted) in p.states.iter().zip(d.states.chunks_exact(b * h)) {
            if let Some(i) = wanted(*place) {
                let mut state = buffer(b * h);
                self.plan.unsort(sorted, h, &mut state);
                out[i] = Some(state);
            }
        }
        if let Some(i) = wanted(p.gates) {
            let mut gates = buffer(b * t);
            self.plan.scatter(&d.gates, 1, T::ZERO, &mut gates);
            out[i] = Some(gates);
        }
        if let Some(i) = wanted(p.peepholes) {
            out[i] = Some(self.peephole_gradient(pass.saved, &d.x)?);
        }
        Ok(out)
    }

    /// `(b, t, d)`, or `(b, t, g h)` where the products were given.
    fn input_gradient<T: Real>(&self, inputs: &[View<'_, T>], d_x: &[T]) -> Vec<T> {
        let (b, t, h) = (self.plan.b, self.plan.t, self.h);
        let width = inputs[self.places.x].data.len() / (b * t);
        let mut sorted = buffer(t * b * width);
        match Self::operand(inputs, self.places.w_ih) {
            Some(w) => {
                let gates = d_x.chunks_exact(t * b * h).enumerate();
                let gates = gates.map(|(q, d)| {
                    let rhs = Mat { data: &w[q * h * width..], row: width, col: 1 };
                    (d, Packed::new(rhs, h, width))
                });
                let gates: Vec<_> = gates.collect();
                let zeros = vec![T::ZERO; width];
                let rows = threads::rows_per_task(t * b, C::GATES * h * width / 32);
                let tasks: Vec<_> = sorted.chunks_mut(rows * width).enumerate().collect();
                let level = simd::level();
                threads::for_each(tasks, |(i, sorted)| {
                    let count = sorted.len() / width;
                    let mut terms = [Term { lhs: gates[0].0, row: h, rhs: gates[0].1.view() }; 4];
                    for (term, (d, w)) in terms.iter_mut().zip(&gates) {
                        *term =
                            Term { lhs: &d[i * rows * h..][..count * h], row: h, rhs: w.view() };
                    }
                    let terms = &terms[..gates.len()];
                    product(level, count, terms, Start::Bias(&zeros), sorted, width);
                });
            }
            None => {
                for (q, d) in d_x.chunks_exact(t * b * h).enumerate() {
                    for (row, d) in sorted.chunks_exact_mut(width).zip(d.chunks_exact(h)) {
                        row[q * h..][..h].copy_from_slice(d);
                    }
                }
            }
        }
        let mut out = buffer(t * b * width);
        self.plan.scatter(&sorted, width, T::ZERO, &mut out);
        out
    }

    /// `Σ d_i ∘ c_old`, `Σ d_f ∘ c_old`, `Σ d_o ∘ c_new`, `(3, h)`.
    fn peephole_gradient<T: Real>(&self, saved: &Saved<T>, d_x: &[T]) -> Result<Vec<T>> {
        let (b, t, h) = (self.plan.b, self.plan.t, self.h);
        let n = t * b * h;
        let Some(cells) = saved.states.get((t + 1) * b * h..) else {
            bail!("recurrent scan: internal error: peepholes without cell states")
        };
        let mut out = vec![T::ZERO; 3 * h];
        for (out, (q, shift)) in out.chunks_exact_mut(h).zip([(0, 0), (1, 0), (3, b * h)]) {
            let rows = d_x[q * n..][..n].chunks_exact(h).zip(cells[shift..].chunks_exact(h));
            for (d, c) in rows {
                out.iter_mut().zip(d).zip(c).for_each(|((o, d), c)| *o += *d * *c);
            }
        }
        Ok(out)
    }
}

/// `d^T x` for `g` gates: `d` is `g` times `(n, h)`, `x (n, width)`, the result `(g h, width)`.
fn weight_gradient<T: Real>(
    d: &[T],
    x: &[T],
    (g, n, h, width): (usize, usize, usize, usize),
) -> Vec<T> {
    let mut w = buffer(g * h * width);
    for (w, d) in w.chunks_exact_mut(h * width).zip(d.chunks_exact(n * h)) {
        let lhs = Mat { data: d, row: 1, col: h };
        let rhs = Mat { data: x, row: width, col: 1 };
        matmul((h, width, n), w, width, false, lhs, rhs, parallelism());
    }
    w
}

/// `lhs (n, k) rhs (k, m)` plus a bias, in rows shared out to the threads. A small right side is packed once.
fn rows_product<T: Real>(
    lhs: &[T],
    (n, k, m): (usize, usize, usize),
    rhs: Mat<'_, T>,
    bias: Option<&[T]>,
    out: &mut [T],
) {
    if k * m > 1 << 17 {
        if let Some(bias) = bias {
            out.chunks_exact_mut(m).for_each(|x| x.copy_from_slice(bias));
        }
        let lhs = Mat { data: lhs, row: k, col: 1 };
        return matmul((n, m, k), out, m, bias.is_some(), lhs, rhs, parallelism());
    }
    let packed = Packed::new(rhs, k, m);
    let zeros = vec![T::ZERO; m];
    let rows = threads::rows_per_task(n, k * m / 32);
    let level = simd::level();
    threads::for_each(out.chunks_mut(rows * m).enumerate().collect(), |(i, out)| {
        let count = out.len() / m;
        let terms = [Term { lhs: &lhs[i * rows * k..][..count * k], row: k, rhs: packed.view() }];
        product(level, count, &terms, Start::Bias(bias.unwrap_or(&zeros)), out, m);
    });
}
