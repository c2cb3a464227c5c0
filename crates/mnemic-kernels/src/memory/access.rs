//! Reading and writing, fused: every slot is visited once, sixteen numbers of it at a time.
//!
//! Rows of heads are padded with zeros to whole vectors, slots are not: the last vector of a slot holds the beginning of the next, which
//! zeros on the other side make nothing of, or which is written over by what follows.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{LANES, Lanes, chunks, pack, parts};
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

    /// Does rows of the batch in tasks, each with the machine's vector instructions.
    fn rows<R: pulp::WithSimd<Output = ()> + Send>(self, rows: impl Iterator<Item = R>) {
        let Self { b, n, w, h } = self;
        let each = rows_per_task(b, n * w * (h + 1) / 4);
        let mut tasks: Vec<Vec<R>> =
            (0..b.div_ceil(each)).map(|_| Vec::with_capacity(each)).collect();
        for (i, row) in rows.enumerate() {
            if let Some(task) = tasks.get_mut(i / each) {
                task.push(row);
            }
        }
        let level = simd::level();
        for_each(tasks, |task| task.into_iter().for_each(|row| level.dispatch(row)));
    }

    /// Row `i` of the batch of an operand, `size` numbers.
    fn row<T>(data: &[T], size: usize, i: usize) -> &[T] {
        &data[i * size..][..size]
    }
}

/// A row of a reading.
struct Read<'a, T> {
    memory: &'a [T],
    weights: &'a [T],
    out: &'a mut [T],
    w: usize,
}

impl<T: Real> pulp::WithSimd for Read<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (w, n) = (self.w, self.memory.len() / self.w);
        for (out, weights) in self.out.chunks_exact_mut(w).zip(self.weights.chunks_exact(n)) {
            for column in (0..w).step_by(LANES) {
                let mut sum = Lanes::splat(T::ZERO);
                for (i, &weight) in weights.iter().enumerate() {
                    let slot = Lanes::load(self.memory, i * w + column);
                    sum = sum.add_product(slot, Lanes::splat(weight));
                }
                sum.store(out, column);
            }
        }
    }
}

/// A row of a reading's backward pass. What is read is `grad`, padded.
struct ReadBackward<'a, T> {
    memory: &'a [T],
    weights: &'a [T],
    grad: Vec<Lanes<T>>,
    d_memory: Option<&'a mut [T]>,
    d_weights: Option<&'a mut [T]>,
    w: usize,
}

impl<T: Real> pulp::WithSimd for ReadBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (w, n, c) = (self.w, self.memory.len() / self.w, chunks(self.w));
        if let Some(d_memory) = self.d_memory {
            for i in 0..n {
                for k in 0..c {
                    let mut sum = Lanes::splat(T::ZERO);
                    for (grad, weights) in
                        self.grad.chunks_exact(c).zip(self.weights.chunks_exact(n))
                    {
                        sum = sum.add_product(grad[k], Lanes::splat(weights[i]));
                    }
                    sum.store(d_memory, i * w + k * LANES);
                }
            }
        }
        if let Some(d_weights) = self.d_weights {
            for (grad, d_weights) in self.grad.chunks_exact(c).zip(d_weights.chunks_exact_mut(n)) {
                for (i, d) in d_weights.iter_mut().enumerate() {
                    let mut sum = Lanes::splat(T::ZERO);
                    for (k, &grad) in grad.iter().enumerate() {
                        sum = sum.add_product(Lanes::load(self.memory, i * w + k * LANES), grad);
                    }
                    *d = sum.sum();
                }
            }
        }
    }
}

impl FusedOp for ReadOp {
    const NAME: &'static str = "memory read";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = Dims::new(x);
        let Dims { b, n, w, h } = dims;
        let mut out = buffer(b * h * w);
        dims.rows(out.chunks_mut(h * w).enumerate().map(|(i, out)| Read {
            memory: Dims::row(x[0].data, n * w, i),
            weights: Dims::row(x[1].data, h * n, i),
            out,
            w,
        }));
        Ok((vec![(out, vec![b, h, w])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs));
        let Dims { b, n, w, h } = dims;
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        let new = |i: usize| pass.wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_memory, mut d_weights) = (new(0), new(1));
        let (mut memory, mut weights) = (parts(&mut d_memory, n * w), parts(&mut d_weights, h * n));
        dims.rows((0..b).map(|i| ReadBackward {
            memory: Dims::row(x[0].data, n * w, i),
            weights: Dims::row(x[1].data, h * n, i),
            grad: pack(Dims::row(grad, h * w, i), w),
            d_memory: memory(),
            d_weights: weights(),
            w,
        }));
        drop((memory, weights));
        Ok(vec![d_memory, d_weights])
    }
}

/// What a row of a write is given; what is erased and added is padded.
struct Given<'a, T> {
    memory: &'a [T],
    weights: &'a [T],
    erase: Vec<Lanes<T>>,
    add: Vec<Lanes<T>>,
    n: usize,
    w: usize,
}

impl<'a, T: Real> Given<'a, T> {
    fn new(x: &[View<'a, T>], dims: Dims, i: usize) -> Self {
        let Dims { n, w, h, .. } = dims;
        Self {
            memory: Dims::row(x[0].data, n * w, i),
            weights: Dims::row(x[1].data, h * n, i),
            erase: pack(Dims::row(x[2].data, h * w, i), w),
            add: pack(Dims::row(x[3].data, h * w, i), w),
            n,
            w,
        }
    }

    /// The heads' weights of slot `i`.
    #[inline(always)]
    fn weights(&self, i: usize) -> impl Iterator<Item = T> + '_ {
        self.weights.chunks_exact(self.n).map(move |weights| weights[i])
    }

    /// What is kept of vector `k` of slot `i`, `Π (1 - w e)` over all heads but `but`.
    #[inline(always)]
    fn kept(&self, i: usize, k: usize, but: usize) -> Lanes<T> {
        let c = chunks(self.w);
        let mut kept = Lanes::splat(T::ONE);
        for (head, weight) in self.weights(i).enumerate() {
            if head != but {
                kept = kept.zip(self.erase[head * c + k], |kept, e| kept * (T::ONE - weight * e));
            }
        }
        kept
    }
}

struct Write<'a, T> {
    given: Given<'a, T>,
    out: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Write<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (x, c) = (&self.given, chunks(self.given.w));
        for i in 0..x.n {
            for k in 0..c {
                let at = i * x.w + k * LANES;
                let slot = Lanes::load(x.memory, at);
                let mut new = x.kept(i, k, usize::MAX).zip(slot, |kept, m| kept * m);
                for (head, weight) in x.weights(i).enumerate() {
                    new = new.add_product(x.add[head * c + k], Lanes::splat(weight));
                }
                new.store(self.out, at);
            }
        }
    }
}

/// A row of a write's backward pass.
struct WriteBackward<'a, T> {
    given: Given<'a, T>,
    grad: &'a [T],
    d_memory: Option<&'a mut [T]>,
    d_weights: Option<&'a mut [T]>,
    d_erase: Option<&'a mut [T]>,
    d_add: Option<&'a mut [T]>,
}

impl<T: Real> pulp::WithSimd for WriteBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let (x, c) = (&self.given, chunks(self.given.w));
        let h = x.weights.len() / x.n;
        let mut d_erase = vec![Lanes::splat(T::ZERO); h * c];
        let mut d_add = d_erase.clone();
        let mut d_weights = [Lanes::splat(T::ZERO); MOST_HEADS];
        for i in 0..x.n {
            d_weights.iter_mut().take(h).for_each(|d| *d = Lanes::splat(T::ZERO));
            for k in 0..c {
                let at = i * x.w + k * LANES;
                let (grad, slot) = (Lanes::load(self.grad, at), Lanes::load(x.memory, at));
                if let Some(d_memory) = &mut self.d_memory {
                    let kept = x.kept(i, k, usize::MAX);
                    kept.zip(grad, |kept, g| kept * g).store(d_memory, at);
                }
                for (head, weight) in x.weights(i).enumerate() {
                    let place = head * c + k;
                    // How the new slot grows with what this head keeps of it, times its gradient.
                    let product = slot.zip(grad, |m, g| m * g);
                    let others = x.kept(i, k, head).zip(product, |kept, p| kept * p);
                    d_add[place] = d_add[place].add_product(grad, Lanes::splat(weight));
                    d_erase[place] = d_erase[place].add_product(others, Lanes::splat(-weight));
                    if let Some(d) = d_weights.get_mut(head) {
                        *d = d.add_product(grad, x.add[place]);
                        *d = d.zip(others.zip(x.erase[place], |o, e| o * e), |d, o| d - o);
                    }
                }
            }
            if let Some(all) = &mut self.d_weights {
                for (all, d) in all.chunks_exact_mut(x.n).zip(&d_weights) {
                    all[i] = d.sum();
                }
            }
        }
        for (to, from) in [(self.d_erase, d_erase), (self.d_add, d_add)] {
            for (to, from) in
                to.into_iter().flat_map(|to| to.chunks_exact_mut(x.w)).zip(from.chunks_exact(c))
            {
                for (k, lanes) in from.iter().enumerate() {
                    lanes.store(to, k * LANES);
                }
            }
        }
    }
}

/// Write heads that the backward pass has registers for; more take the plain twin.
pub(super) const MOST_HEADS: usize = 16;

impl FusedOp for WriteOp {
    const NAME: &'static str = "memory write";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = Dims::new(x);
        let Dims { b, n, w, .. } = dims;
        let mut out = buffer(b * n * w);
        let rows = out.chunks_mut(n * w).enumerate();
        dims.rows(rows.map(|(i, out)| Write { given: Given::new(x, dims, i), out }));
        Ok((vec![(out, vec![b, n, w])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, dims) = (pass.inputs, Dims::new(pass.inputs));
        let Dims { b, n, w, h } = dims;
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        let new = |i: usize| pass.wanted[i].then(|| buffer::<T>(x[i].data.len()));
        let (mut d_memory, mut d_weights) = (new(0), new(1));
        let (mut d_erase, mut d_add) = (new(2), new(3));
        let (mut memory, mut weights) = (parts(&mut d_memory, n * w), parts(&mut d_weights, h * n));
        let (mut erase, mut add) = (parts(&mut d_erase, h * w), parts(&mut d_add, h * w));
        dims.rows((0..b).map(|i| WriteBackward {
            given: Given::new(x, dims, i),
            grad: Dims::row(grad, n * w, i),
            d_memory: memory(),
            d_weights: weights(),
            d_erase: erase(),
            d_add: add(),
        }));
        drop((memory, weights, erase, add));
        Ok(vec![d_memory, d_weights, d_erase, d_add])
    }
}
