//! Reading and writing, fused: every slot is visited once.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{add_scaled, dot};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// `M (b, n, w)` and weightings `(b, h, n)` to `r (b, h, w)`.
pub(super) struct ReadOp;

/// `M (b, n, w)`, weightings `(b, h, n)`, what is erased and added `(b, h, w)` to `M' (b, n, w)`.
pub(super) struct WriteOp;

/// Batch, slots, width, heads.
#[derive(Clone, Copy)]
struct Dims {
    b: usize,
    n: usize,
    w: usize,
    h: usize,
}

impl Dims {
    fn new<T>(x: &[View<'_, T>]) -> Self {
        let [b, n, w] = [x[0].dims[0], x[0].dims[1], x[0].dims[2]];
        Self { b, n, w, h: x[1].dims[1] }
    }

    /// The rows of the batch in tasks, each done with the machine's vector instructions.
    fn rows<I: Send>(self, items: Vec<I>, f: impl Fn(I) + Sync + Send) {
        let Self { n, w, h, .. } = self;
        let each = rows_per_task(self.b, n * w * (h + 1) / 4);
        let mut tasks: Vec<Vec<I>> = vec![];
        for (i, item) in items.into_iter().enumerate() {
            if i % each == 0 {
                tasks.push(Vec::with_capacity(each));
            }
            if let Some(task) = tasks.last_mut() {
                task.push(item);
            }
        }
        let level = simd::level();
        for_each(tasks, |task| level.dispatch(Task { task, f: &f }));
    }
}

/// Does its items with the instructions of the level it is dispatched at.
struct Task<'a, I, F> {
    task: Vec<I>,
    f: &'a F,
}

impl<I, F: Fn(I)> pulp::WithSimd for Task<'_, I, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.task.into_iter().for_each(self.f);
    }
}

/// The parts of `size` numbers of a gradient, or of nothing where it is not wanted.
fn split<T>(of: Option<&mut Vec<T>>, size: usize, count: usize) -> Vec<Option<&mut [T]>> {
    match of {
        Some(all) => all.chunks_mut(size).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

impl FusedOp for ReadOp {
    const NAME: &'static str = "memory read";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = Dims::new(x);
        let Dims { b, n, w, h } = dims;
        let mut out = buffer(b * h * w);
        dims.rows(out.chunks_mut(h * w).enumerate().collect(), |(i, out): (usize, &mut [T])| {
            let (memory, weights) = (&x[0].data[i * n * w..][..n * w], &x[1].data[i * h * n..]);
            for (out, weights) in out.chunks_exact_mut(w).zip(weights.chunks_exact(n)) {
                out.fill(T::ZERO);
                for (slot, &weight) in memory.chunks_exact(w).zip(weights) {
                    add_scaled(out, slot, weight);
                }
            }
        });
        Ok((vec![(out, vec![b, h, w])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs));
        let Dims { b, n, w, h } = dims;
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        let new = |i: usize| pass.wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_memory, mut d_weights) = (new(0), new(1));
        let rows = split(d_memory.as_mut(), n * w, b).into_iter();
        let rows = rows.zip(split(d_weights.as_mut(), h * n, b)).enumerate();
        dims.rows(rows.collect(), |(i, (d_memory, d_weights))| {
            let memory = &x[0].data[i * n * w..][..n * w];
            let weights = &x[1].data[i * h * n..][..h * n];
            let grad = &grad[i * h * w..][..h * w];
            if let Some(d_memory) = d_memory {
                d_memory.fill(T::ZERO);
                for (weights, grad) in weights.chunks_exact(n).zip(grad.chunks_exact(w)) {
                    for (slot, &weight) in d_memory.chunks_exact_mut(w).zip(weights) {
                        add_scaled(slot, grad, weight);
                    }
                }
            }
            if let Some(d_weights) = d_weights {
                for (d_weights, grad) in d_weights.chunks_exact_mut(n).zip(grad.chunks_exact(w)) {
                    for (d, slot) in d_weights.iter_mut().zip(memory.chunks_exact(w)) {
                        *d = dot(slot, grad);
                    }
                }
            }
        });
        Ok(vec![d_memory, d_weights])
    }
}

/// One row of the batch of a write.
struct Write<'a, T> {
    memory: &'a [T],
    weights: &'a [T],
    erase: &'a [T],
    add: &'a [T],
    dims: Dims,
}

impl<'a, T: Real> Write<'a, T> {
    #[inline(always)]
    fn row(x: &[View<'a, T>], dims: Dims, i: usize) -> Self {
        let Dims { n, w, h, .. } = dims;
        Self {
            memory: &x[0].data[i * n * w..][..n * w],
            weights: &x[1].data[i * h * n..][..h * n],
            erase: &x[2].data[i * h * w..][..h * w],
            add: &x[3].data[i * h * w..][..h * w],
            dims,
        }
    }

    /// What is kept of slot `i`, `Π (1 - w e)` over all heads but `but`, into `kept`.
    #[inline(always)]
    fn kept(&self, i: usize, but: usize, kept: &mut [T]) {
        kept.fill(T::ONE);
        for (head, erase) in self.erase.chunks_exact(self.dims.w).enumerate() {
            if head != but {
                let weight = self.weights[head * self.dims.n + i];
                kept.iter_mut().zip(erase).for_each(|(k, &e)| *k *= T::ONE - weight * e);
            }
        }
    }
}

impl FusedOp for WriteOp {
    const NAME: &'static str = "memory write";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = Dims::new(x);
        let Dims { b, n, w, .. } = dims;
        let mut out = buffer(b * n * w);
        dims.rows(out.chunks_mut(n * w).enumerate().collect(), |(i, out): (usize, &mut [T])| {
            let row = Write::row(x, dims, i);
            let slots = out.chunks_exact_mut(w).zip(row.memory.chunks_exact(w));
            for (i, (out, slot)) in slots.enumerate() {
                row.kept(i, usize::MAX, out);
                out.iter_mut().zip(slot).for_each(|(o, &m)| *o *= m);
                for (head, add) in row.add.chunks_exact(w).enumerate() {
                    add_scaled(out, add, row.weights[head * n + i]);
                }
            }
        });
        Ok((vec![(out, vec![b, n, w])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs));
        let Dims { b, n, w, h } = dims;
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        let new = |i: usize| pass.wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_memory, mut d_weights) = (new(0), new(1));
        let (mut d_erase, mut d_add) = (new(2), new(3));
        let rows = split(d_memory.as_mut(), n * w, b).into_iter();
        let rows = rows.zip(split(d_weights.as_mut(), h * n, b));
        let rows = rows.zip(split(d_erase.as_mut(), h * w, b)).zip(split(d_add.as_mut(), h * w, b));
        dims.rows(rows.enumerate().collect(), |(i, (((memory, weights), erase), add))| {
            let grad = &grad[i * n * w..][..n * w];
            write_backward(&Write::row(x, dims, i), grad, Wanted { memory, weights, erase, add });
        });
        Ok(vec![d_memory, d_weights, d_erase, d_add])
    }
}

/// Where the gradients of a row go.
struct Wanted<'a, T> {
    memory: Option<&'a mut [T]>,
    weights: Option<&'a mut [T]>,
    erase: Option<&'a mut [T]>,
    add: Option<&'a mut [T]>,
}

#[inline(always)]
fn write_backward<T: Real>(row: &Write<'_, T>, grad: &[T], mut to: Wanted<'_, T>) {
    let Dims { n, w, h, .. } = row.dims;
    let mut kept = vec![T::ZERO; w];
    for sum in [&mut to.erase, &mut to.add].into_iter().flatten() {
        sum.fill(T::ZERO);
    }
    for (i, (grad, slot)) in grad.chunks_exact(w).zip(row.memory.chunks_exact(w)).enumerate() {
        if let Some(memory) = &mut to.memory {
            row.kept(i, usize::MAX, &mut kept);
            let out = &mut memory[i * w..][..w];
            for ((out, &k), &g) in out.iter_mut().zip(&kept).zip(grad) {
                *out = k * g;
            }
        }
        for head in 0..h {
            let weight = row.weights[head * n + i];
            if to.weights.is_some() || to.erase.is_some() {
                // How the new slot grows with what this head keeps of it, times its gradient.
                row.kept(i, head, &mut kept);
                for ((k, &m), &g) in kept.iter_mut().zip(slot).zip(grad) {
                    *k *= m * g;
                }
            }
            if let Some(weights) = &mut to.weights {
                let added = dot(grad, &row.add[head * w..][..w]);
                weights[head * n + i] = added - dot(&kept, &row.erase[head * w..][..w]);
            }
            if let Some(erase) = &mut to.erase {
                add_scaled(&mut erase[head * w..][..w], &kept, -weight);
            }
            if let Some(add) = &mut to.add {
                add_scaled(&mut add[head * w..][..w], grad, weight);
            }
        }
    }
}
