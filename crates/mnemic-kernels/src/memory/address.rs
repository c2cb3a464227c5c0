//! The weightings, fused: each head goes through the five steps while its slots are in the nearest cache.

use candle_core::Result;

use super::cosine::{Compared, Key, cosines_of, norms_of, slots_backward};
use super::{SMALLEST, num_controls};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{add_scaled, dot, parts, softmax_row, softmax_row_backward};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// `M (b, n, w)`, weightings `(b, h, n)`, controls `(b, h, w + 2S + 4)` to weightings `(b, h, n)`.
pub(super) struct AddressOp {
    pub(super) max_shift: usize,
}

/// Batch, slots, width, heads, shifts.
#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    n: usize,
    w: usize,
    h: usize,
    max_shift: usize,
}

/// What the forward pass keeps of each head: cosines, weights by content and after the shift, `(b, h, 3, n)`; and the norms of the
/// slots, `(b, n)`.
pub(super) struct Saved<T> {
    steps: Vec<T>,
    norms: Vec<T>,
}

impl Dims {
    fn new<T>(x: &[View<'_, T>], max_shift: usize) -> Self {
        let [b, n, w] = [x[0].dims[0], x[0].dims[1], x[0].dims[2]];
        Self { b, n, w, h: x[1].dims[1], max_shift }
    }

    fn controls(self) -> usize {
        num_controls(self.w, self.max_shift)
    }

    fn rows_per_task(self) -> usize {
        rows_per_task(self.b, self.n * self.h * (self.w / 4 + 20))
    }
}

/// A head's controls in their ranges.
struct Controls<T> {
    key: Key<T>,
    strength: T,
    gate: T,
    shift: Vec<T>,
    sharpening: T,
}

impl<T: Real> Controls<T> {
    #[inline(always)]
    fn new(raw: &[T], dims: Dims) -> Self {
        let Dims { w, max_shift, .. } = dims;
        let mut shift = raw[w + 2..w + 3 + 2 * max_shift].to_vec();
        softmax_row(&mut shift, None);
        Self {
            key: Key::new(raw[..w].iter().map(|k| k.tanh_()).collect()),
            strength: raw[w].softplus_(),
            gate: raw[w + 1].sigmoid_(),
            shift,
            sharpening: T::ONE + raw[w + 3 + 2 * max_shift].softplus_(),
        }
    }
}

/// A ring of `n` numbers, `f(i)` at place i, opened into a row that goes on for `past` places at both ends: a shift is then a step aside.
#[inline(always)]
fn opened<T: Real>(row: &mut Vec<T>, n: usize, past: usize, f: impl Fn(usize) -> T) {
    row.clear();
    row.resize(n + 2 * past, T::ZERO);
    row[past..past + n].iter_mut().enumerate().for_each(|(i, o)| *o = f(i));
    row.copy_within(n..n + past, 0);
    row.copy_within(past..2 * past, past + n);
}

impl FusedOp for AddressOp {
    const NAME: &'static str = "memory address";
    type Saved<T: Real> = Saved<T>;

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, Saved<T>)> {
        let dims = Dims::new(x, self.max_shift);
        let Dims { b, n, h, .. } = dims;
        let mut weights = buffer(b * h * n);
        let mut saved = Saved { steps: buffer(b * h * 3 * n), norms: buffer(b * n) };
        let (rows, level) = (dims.rows_per_task(), simd::level());
        let tasks = weights.chunks_mut(rows * h * n);
        let tasks = tasks.zip(saved.steps.chunks_mut(rows * h * 3 * n));
        let tasks = tasks.zip(saved.norms.chunks_mut(rows * n)).enumerate();
        for_each(tasks.collect(), |(i, ((weights, steps), norms))| {
            level.dispatch(Forward { x, dims, first: i * rows, weights, steps, norms });
        });
        Ok((vec![(weights, vec![b, h, n])], saved))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Saved<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs, self.max_shift));
        let Dims { b, n, w, h, .. } = dims;
        let new = |i: usize| pass.wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_memory, mut d_previous, mut d_controls) = (new(0), new(1), new(2));
        let (rows, level) = (dims.rows_per_task(), simd::level());
        let mut next_memory = parts(&mut d_memory, rows * n * w);
        let mut next_previous = parts(&mut d_previous, rows * h * n);
        let mut next_controls = parts(&mut d_controls, rows * h * dims.controls());
        let tasks = (0..b.div_ceil(rows)).map(|i| BackwardRows {
            x,
            dims,
            range: (i * rows, b.min((i + 1) * rows)),
            saved: pass.saved,
            weights: pass.outputs[0].data,
            grad: pass.grads[0].map_or(&[][..], |g| g.data),
            d_memory: next_memory(),
            d_previous: next_previous(),
            d_controls: next_controls(),
        });
        for_each(tasks.collect(), |task| level.dispatch(task));
        drop((next_memory, next_previous, next_controls));
        Ok(vec![d_memory, d_previous, d_controls])
    }
}

struct Forward<'a, T> {
    x: &'a [View<'a, T>],
    dims: Dims,
    first: usize,
    weights: &'a mut [T],
    steps: &'a mut [T],
    norms: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Dims { n, w, h, .. } = self.dims;
        let heads = self.weights.chunks_exact_mut(n).zip(self.steps.chunks_exact_mut(3 * n));
        for (norms, row) in self.norms.chunks_exact_mut(n).zip(self.first..) {
            let memory = &self.x[0].data[row * n * w..][..n * w];
            norms_of(memory, w, norms);
        }
        let mut ring = vec![];
        for (i, (weights, steps)) in heads.enumerate() {
            let (row, head) = (self.first + i / h, self.first * h + i);
            let memory = &self.x[0].data[row * n * w..][..n * w];
            let previous = &self.x[1].data[head * n..][..n];
            let size = self.dims.controls();
            let controls = Controls::new(&self.x[2].data[head * size..][..size], self.dims);
            let norms = &self.norms[i / h * n..][..n];
            head_forward((memory, norms), previous, &controls, &mut ring, weights, steps);
        }
    }
}

#[inline(always)]
fn head_forward<T: Real>(
    (memory, norms): (&[T], &[T]),
    previous: &[T],
    controls: &Controls<T>,
    ring: &mut Vec<T>,
    weights: &mut [T],
    steps: &mut [T],
) {
    let (n, past) = (norms.len(), controls.shift.len() / 2);
    let (cosines, rest) = steps.split_at_mut(n);
    let (content, moved) = rest.split_at_mut(n);
    cosines_of(&controls.key, memory, norms, cosines);
    content.iter_mut().zip(&*cosines).for_each(|(o, &c)| *o = controls.strength * c);
    softmax_row(content, None);
    let (gate, kept) = (controls.gate, T::ONE - controls.gate);
    opened(ring, n, past, |i| gate * content[i] + kept * previous[i]);
    moved.fill(T::ZERO);
    for (j, &s) in controls.shift.iter().enumerate() {
        add_scaled(moved, &ring[2 * past - j..][..n], s);
    }
    let smallest = T::of(SMALLEST);
    for (o, &m) in weights.iter_mut().zip(&*moved) {
        let m = if m > smallest { m } else { smallest };
        *o = controls.sharpening * m.ln_();
    }
    softmax_row(weights, None);
}

struct BackwardRows<'a, T> {
    x: &'a [View<'a, T>],
    dims: Dims,
    /// The first row, and the one after the last.
    range: (usize, usize),
    saved: &'a Saved<T>,
    weights: &'a [T],
    grad: &'a [T],
    d_memory: Option<&'a mut [T]>,
    d_previous: Option<&'a mut [T]>,
    d_controls: Option<&'a mut [T]>,
}

impl<T: Real> pulp::WithSimd for BackwardRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let Dims { n, w, h, .. } = self.dims;
        let (mut d_memory, mut scratch) = (self.d_memory.take(), Scratch::new(n));
        for row in 0..self.range.1 - self.range.0 {
            let memory = &self.x[0].data[(self.range.0 + row) * n * w..][..n * w];
            // No closure: it would be compiled for the narrowest vectors.
            let mut compared = Vec::with_capacity(h);
            for i in row * h..(row + 1) * h {
                compared.push(self.head(i, memory, &mut scratch));
            }
            if let Some(d_memory) = &mut d_memory {
                slots_backward(&compared, memory, w, &mut d_memory[row * n * w..][..n * w]);
            }
        }
    }
}

/// Rows of n numbers for the backward pass of a head.
struct Scratch<T> {
    d_mixed: Vec<T>,
    d_scores: Vec<T>,
    other: Vec<T>,
    ring: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(n: usize) -> Self {
        let row = || vec![T::ZERO; n];
        Self { d_mixed: row(), d_scores: row(), other: row(), ring: vec![] }
    }
}

impl<T: Real> BackwardRows<'_, T> {
    /// Head number `i` of this task, over the memory of its row.
    #[inline(always)]
    fn head(&mut self, i: usize, memory: &[T], scratch: &mut Scratch<T>) -> Compared<T> {
        let Scratch { d_mixed, d_scores, other, ring } = scratch;
        let dims = self.dims;
        let (n, w, size) = (dims.n, dims.w, dims.controls());
        let head = self.range.0 * dims.h + i;
        let raw = &self.x[2].data[head * size..][..size];
        let controls = Controls::new(raw, dims);
        let previous = &self.x[1].data[head * n..][..n];
        let steps = &self.saved.steps[head * 3 * n..][..3 * n];
        let (cosines, content, moved) = (&steps[..n], &steps[n..2 * n], &steps[2 * n..]);
        let mut unused = vec![];
        let d_raw = match &mut self.d_controls {
            Some(all) => &mut all[i * size..][..size],
            None => {
                unused.resize(size, T::ZERO);
                &mut unused[..]
            }
        };
        let weights = &self.weights[head * n..][..n];
        let grad = &self.grad[head * n..][..n];

        // Sharpening: `weights` is the softmax of `γ ln moved`.
        d_scores.copy_from_slice(grad);
        softmax_row_backward(weights, d_scores, None);
        let smallest = T::of(SMALLEST);
        for (o, &m) in other.iter_mut().zip(moved) {
            *o = if m <= smallest { smallest } else { m }.ln_();
        }
        let d_sharpening = dot(d_scores, other);
        for (d, &m) in d_scores.iter_mut().zip(moved) {
            *d = if m <= smallest { T::ZERO } else { *d * controls.sharpening / m };
        }
        // Shift.
        let (past, kept) = (dims.max_shift, T::ONE - controls.gate);
        opened(ring, n, past, |i| controls.gate * content[i] + kept * previous[i]);
        let mut d_shift = vec![T::ZERO; controls.shift.len()];
        for (j, d) in d_shift.iter_mut().enumerate() {
            *d = dot(d_scores, &ring[2 * past - j..][..n]);
        }
        opened(ring, n, past, |i| d_scores[i]);
        d_mixed.fill(T::ZERO);
        for (j, &s) in controls.shift.iter().enumerate() {
            add_scaled(d_mixed, &ring[j..][..n], s);
        }
        softmax_row_backward(&controls.shift, &mut d_shift, None);
        // Interpolation.
        for (o, (&c, &p)) in other.iter_mut().zip(content.iter().zip(previous)) {
            *o = c - p;
        }
        let d_gate = dot(d_mixed, other);
        if let Some(all) = &mut self.d_previous {
            all[i * n..][..n].iter_mut().zip(&*d_mixed).for_each(|(o, &d)| *o = kept * d);
        }
        // Content: the softmax of `β cosine`.
        d_scores.iter_mut().zip(&*d_mixed).for_each(|(o, &d)| *o = controls.gate * d);
        softmax_row_backward(content, d_scores, None);
        let d_strength = dot(d_scores, cosines);
        d_scores.iter_mut().for_each(|d| *d *= controls.strength);
        let norms = &self.saved.norms[head / dims.h * n..][..n];
        let d_key = &mut d_raw[..w];
        let compared = Compared::new(controls.key, (memory, norms), cosines, d_scores, d_key);
        for (d, &k) in d_key.iter_mut().zip(&compared.key.values) {
            *d *= T::ONE - k * k;
        }
        d_raw[w] = d_strength * raw[w].sigmoid_();
        d_raw[w + 1] = d_gate * controls.gate * (T::ONE - controls.gate);
        d_raw[w + 2..][..d_shift.len()].copy_from_slice(&d_shift);
        d_raw[size - 1] = d_sharpening * raw[size - 1].sigmoid_();
        compared
    }
}
