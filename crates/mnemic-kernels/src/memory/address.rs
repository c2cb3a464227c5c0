//! The weightings, fused: each head goes through the five steps while its slots are in the nearest cache.

use candle_core::Result;

use super::cosine::{Key, cosine_backward, cosines_of, norm};
use super::{SMALLEST, num_controls};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{dot, parts, softmax_row, softmax_row_backward};
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

/// The slot that slot `i` takes from at shift number `j`.
#[inline(always)]
fn source(i: usize, j: usize, dims: Dims) -> usize {
    let at = i + dims.n + dims.max_shift - j;
    if at >= 2 * dims.n {
        at - 2 * dims.n
    } else if at >= dims.n {
        at - dims.n
    } else {
        at
    }
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
            norms.iter_mut().zip(memory.chunks_exact(w)).for_each(|(o, slot)| *o = norm(slot));
        }
        for (i, (weights, steps)) in heads.enumerate() {
            let (row, head) = (self.first + i / h, self.first * h + i);
            let memory = &self.x[0].data[row * n * w..][..n * w];
            let previous = &self.x[1].data[head * n..][..n];
            let size = self.dims.controls();
            let controls = Controls::new(&self.x[2].data[head * size..][..size], self.dims);
            let norms = &self.norms[i / h * n..][..n];
            head_forward(memory, norms, previous, &controls, self.dims, weights, steps);
        }
    }
}

#[inline(always)]
fn head_forward<T: Real>(
    memory: &[T],
    norms: &[T],
    previous: &[T],
    controls: &Controls<T>,
    dims: Dims,
    weights: &mut [T],
    steps: &mut [T],
) {
    let n = dims.n;
    let (cosines, rest) = steps.split_at_mut(n);
    let (content, moved) = rest.split_at_mut(n);
    cosines_of(&controls.key, memory, norms, cosines);
    content.iter_mut().zip(&*cosines).for_each(|(o, &c)| *o = controls.strength * c);
    softmax_row(content, None);
    let (gate, kept) = (controls.gate, T::ONE - controls.gate);
    // `weights` holds the interpolated weighting until it is shifted.
    for ((o, &c), &p) in weights.iter_mut().zip(&*content).zip(previous) {
        *o = gate * c + kept * p;
    }
    for (i, moved) in moved.iter_mut().enumerate() {
        let mut sum = T::ZERO;
        for (j, &s) in controls.shift.iter().enumerate() {
            sum += s * weights[source(i, j, dims)];
        }
        *moved = sum;
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
        let h = self.dims.h;
        if let Some(d_memory) = &mut self.d_memory {
            d_memory.fill(T::ZERO);
        }
        let (mut d_mixed, mut d_scores) = (vec![T::ZERO; self.dims.n], vec![T::ZERO; self.dims.n]);
        for i in 0..(self.range.1 - self.range.0) * h {
            self.head(i, &mut d_mixed, &mut d_scores);
        }
    }
}

impl<T: Real> BackwardRows<'_, T> {
    /// Head number `i` of this task.
    #[inline(always)]
    fn head(&mut self, i: usize, d_mixed: &mut [T], d_scores: &mut [T]) {
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
        let mut d_sharpening = T::ZERO;
        for (d, &m) in d_scores.iter_mut().zip(moved) {
            let low = m <= smallest;
            d_sharpening += *d * if low { smallest } else { m }.ln_();
            *d = if low { T::ZERO } else { *d * controls.sharpening / m };
        }
        // Shift.
        d_mixed.fill(T::ZERO);
        let mut d_shift = vec![T::ZERO; controls.shift.len()];
        let mixed = |i: usize| controls.gate * content[i] + (T::ONE - controls.gate) * previous[i];
        for (i, &d) in d_scores.iter().enumerate() {
            for (j, &s) in controls.shift.iter().enumerate() {
                let from = source(i, j, dims);
                d_mixed[from] += s * d;
                d_shift[j] += d * mixed(from);
            }
        }
        softmax_row_backward(&controls.shift, &mut d_shift, None);
        // Interpolation.
        let mut d_gate = T::ZERO;
        for ((&d, &c), &p) in d_mixed.iter().zip(content).zip(previous) {
            d_gate += d * (c - p);
        }
        if let Some(all) = &mut self.d_previous {
            let kept = T::ONE - controls.gate;
            all[i * n..][..n].iter_mut().zip(&*d_mixed).for_each(|(o, &d)| *o = kept * d);
        }
        // Content: the softmax of `β cosine`.
        d_scores.iter_mut().zip(&*d_mixed).for_each(|(o, &d)| *o = controls.gate * d);
        softmax_row_backward(content, d_scores, None);
        let d_strength = dot(d_scores, cosines);
        d_scores.iter_mut().for_each(|d| *d *= controls.strength);
        let row = i / dims.h;
        let memory = &self.x[0].data[(self.range.0 + row) * n * w..][..n * w];
        let norms = &self.saved.norms[(self.range.0 + row) * n..][..n];
        let d_memory = self.d_memory.as_mut().map(|all| &mut all[row * n * w..][..n * w]);
        let d_key = &mut d_raw[..w];
        cosine_backward(&controls.key, memory, norms, cosines, d_scores, d_memory, d_key);
        for (d, &k) in d_key.iter_mut().zip(&controls.key.values) {
            *d *= T::ONE - k * k;
        }
        d_raw[w] = d_strength * raw[w].sigmoid_();
        d_raw[w + 1] = d_gate * controls.gate * (T::ONE - controls.gate);
        d_raw[w + 2..][..d_shift.len()].copy_from_slice(&d_shift);
        d_raw[size - 1] = d_sharpening * raw[size - 1].sigmoid_();
    }
}
