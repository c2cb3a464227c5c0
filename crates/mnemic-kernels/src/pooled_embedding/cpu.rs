//! The fused CPU path: sums rows of the table without the tensor of all words; its backward pass writes only rows used.
//!
//! A sentence's sum stays in registers, up to four vectors of sixteen numbers at a time, while its words are walked. Small
//! tables are first copied to rows of whole vectors.

use candle_core::{DType, Result, Storage, Tensor, bail};

use crate::fused::{self, Array, Backward, FusedOp, View};
use crate::lanes::{LANES, Lanes, chunks, pack, unpack};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// Whether the fused path can take these operands.
pub(super) fn takes(table: &Tensor, ids: &Tensor, weights: Option<&Tensor>) -> bool {
    // Half precision stays with the plain twin: it need not convert the whole table.
    let float = matches!(table.dtype(), DType::F32 | DType::F64);
    let fits = weights.is_none_or(|w| w.device().is_cpu() && w.dtype() == table.dtype());
    !crate::cuda::emulating() && table.device().is_cpu() && ids.device().is_cpu() && float && fits
}

/// `ids` in groups of `words` to vectors of shape `(outer, d)`.
pub(super) fn pooled_embedding(
    table: &Tensor,
    ids: &Tensor,
    words: usize,
    outer: &[usize],
    weights: Option<&Tensor>,
    padding: Option<u32>,
) -> Result<Tensor> {
    let (_, d) = table.dims2()?;
    let mut shape = outer.to_vec();
    shape.push(d);
    if ids.elem_count() == 0 || d == 0 {
        return Tensor::zeros(shape, table.dtype(), table.device());
    }
    // An id that no row has stands for no padding: all ids are below the number of rows, which are fewer.
    let padding = padding.unwrap_or(u32::MAX);
    let op = PooledOp { ids: ids.contiguous()?, words, padding, shape };
    let mut operands = vec![table];
    operands.extend(weights);
    fused::apply1(op, &operands)
}

/// A table `(v, d)` and perhaps weights `(words, d)` to the sums of `words` rows each.
struct PooledOp {
    ids: Tensor,
    words: usize,
    padding: u32,
    shape: Vec<usize>,
}

impl PooledOp {
    /// Calls `f` with the ids, once they are known to be below `v`.
    fn with_ids<R>(&self, v: usize, f: impl FnOnce(&[u32]) -> R) -> Result<R> {
        let (storage, layout) = self.ids.storage_and_layout();
        let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            bail!("pooled_embedding: internal error: ids are not contiguous on the CPU")
        };
        let ids = &storage.as_slice::<u32>()?[start..end];
        // Not `Iterator::max`, which the compiler leaves as a chain of comparisons.
        let max = ids.iter().fold(0, |max, &id| if id > max { id } else { max });
        if !ids.is_empty() && max as usize >= v {
            bail!("pooled_embedding: id {max} is not below the table's {v} rows")
        }
        Ok(f(ids))
    }

    fn copy_rows<T: Real>(&self, ids: &[u32], table: &[T], d: usize) -> Vec<T> {
        let mut out = buffer(ids.len() * d);
        let rows = rows_per_task(ids.len(), Self::work(d));
        let tasks: Vec<_> = out.chunks_mut(rows * d).zip(ids.chunks(rows)).collect();
        for_each(tasks, |(out, ids)| {
            for (out, &id) in out.chunks_exact_mut(d).zip(ids) {
                match id == self.padding {
                    true => out.fill(T::ZERO),
                    false => out.copy_from_slice(&table[id as usize * d..][..d]),
                }
            }
        });
        out
    }

    /// The elementary steps of one word.
    fn work(d: usize) -> usize {
        2 * chunks(d)
    }
}

impl FusedOp for PooledOp {
    const NAME: &'static str = "pooled_embedding";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (v, d) = (x[0].dims[0], x[0].dims[1]);
        let out = self.with_ids(v, |ids| {
            if self.words == 1 && x.len() == 1 {
                return self.copy_rows(ids, x[0].data, d);
            }
            let weights = x.get(1).map(|w| pack(w.data, d));
            let packed = (v <= ids.len()).then(|| pack(x[0].data, d));
            let mut out = buffer(ids.len() / self.words * d);
            let rows = rows_per_task(out.len() / d, self.words * Self::work(d));
            let (sums, level) =
                (Sums { d, words: self.words, padding: self.padding }, simd::level());
            let tasks = out.chunks_mut(rows * d).zip(ids.chunks(rows * self.words)).collect();
            for_each(tasks, |(out, ids)| {
                let weights = weights.as_deref();
                match &packed {
                    Some(table) => {
                        let table = Packed { lanes: table, chunks: chunks(d) };
                        level.dispatch(Forward { sums, table, weights, ids, out });
                    }
                    None => {
                        let table = Plain { data: x[0].data, d };
                        level.dispatch(Forward { sums, table, weights, ids, out });
                    }
                }
            });
            out
        })?;
        Ok((vec![(out, self.shape.clone())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Backward { inputs: x, grads, wanted, .. } = pass;
        let (v, d) = (x[0].dims[0], x[0].dims[1]);
        let Some(grad) = grads[0].map(|g| g.data) else {
            bail!("pooled_embedding: internal error: no gradient")
        };
        let sums = Sums { d, words: self.words, padding: self.padding };
        self.with_ids(v, |ids| {
            let table = wanted[0].then(|| {
                let weights = x.get(1).map(|w| pack(w.data, d));
                table_gradient(sums, v, ids, grad, weights.as_deref())
            });
            let mut all = vec![table];
            if x.len() > 1 {
                all.push(wanted[1].then(|| weights_gradient(sums, ids, grad, x[0].data)));
            }
            all
        })
    }
}

/// Sums of `words` rows of `d` numbers each, without the ids `padding`.
#[derive(Clone, Copy)]
struct Sums {
    d: usize,
    words: usize,
    padding: u32,
}

/// Calls a method for all vectors of a row, up to four at a time, their number being a constant to the compiler.
macro_rules! for_vectors {
    ($d:expr, $this:ident.$method:ident($($arg:expr),*)) => {{
        let n = chunks($d);
        for first in (0..n).step_by(4) {
            match n - first {
                1 => $this.$method::<1>(first, $($arg),*),
                2 => $this.$method::<2>(first, $($arg),*),
                3 => $this.$method::<3>(first, $($arg),*),
                _ => $this.$method::<4>(first, $($arg),*),
            }
        }
    }};
}

/// Rows of numbers, read a vector at a time. What stands beyond the end of a row is arbitrary.
trait Rows<T>: Copy {
    fn lanes(&self, row: usize, chunk: usize) -> Lanes<T>;
}

#[derive(Clone, Copy)]
struct Plain<'a, T> {
    data: &'a [T],
    d: usize,
}

impl<T: Real> Rows<T> for Plain<'_, T> {
    #[inline(always)]
    fn lanes(&self, row: usize, chunk: usize) -> Lanes<T> {
        Lanes::load(self.data, row * self.d + chunk * LANES)
    }
}

#[derive(Clone, Copy)]
struct Packed<'a, T> {
    lanes: &'a [Lanes<T>],
    chunks: usize,
}

impl<T: Real> Rows<T> for Packed<'_, T> {
    #[inline(always)]
    fn lanes(&self, row: usize, chunk: usize) -> Lanes<T> {
        self.lanes[row * self.chunks + chunk]
    }
}

struct Forward<'a, T, R> {
    sums: Sums,
    table: R,
    weights: Option<&'a [Lanes<T>]>,
    ids: &'a [u32],
    out: &'a mut [T],
}

impl<T: Real, R: Rows<T>> pulp::WithSimd for Forward<'_, T, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let ids = self.ids;
        for (i, ids) in ids.chunks_exact(self.sums.words).enumerate() {
            for_vectors!(self.sums.d, self.sum(i, ids));
        }
    }
}

impl<T: Real, R: Rows<T>> Forward<'_, T, R> {
    /// Vectors `first..first + C` of sentence `i`.
    #[inline(always)]
    fn sum<const C: usize>(&mut self, first: usize, i: usize, ids: &[u32]) {
        let Sums { d, padding, .. } = self.sums;
        let mut sum = [Lanes::splat(T::ZERO); C];
        match self.weights {
            None => {
                for id in ids.iter().filter(|&&id| id != padding) {
                    for (k, sum) in sum.iter_mut().enumerate() {
                        *sum = sum.zip(self.table.lanes(*id as usize, first + k), |a, b| a + b);
                    }
                }
            }
            Some(weights) => {
                for (id, w) in ids.iter().zip(weights.chunks_exact(chunks(d))) {
                    if *id == padding {
                        continue;
                    }
                    for (k, (sum, w)) in sum.iter_mut().zip(&w[first..]).enumerate() {
                        *sum = sum.add_product(self.table.lanes(*id as usize, first + k), *w);
                    }
                }
            }
        }
        for (k, sum) in sum.into_iter().enumerate() {
            // What spills over into the next row is overwritten by it.
            sum.store(self.out, i * d + (first + k) * LANES);
        }
    }
}

/// Rows of a gradient that are added to, `first` and after it.
trait RowsMut<T> {
    fn rows(&self) -> usize;
    fn add(&mut self, row: usize, chunk: usize, lanes: Lanes<T>);
}

struct PlainMut<'a, T> {
    data: &'a mut [T],
    d: usize,
}

impl<T: Real> RowsMut<T> for PlainMut<'_, T> {
    #[inline(always)]
    fn rows(&self) -> usize {
        self.data.len() / self.d
    }

    #[inline(always)]
    fn add(&mut self, row: usize, chunk: usize, lanes: Lanes<T>) {
        let (start, end) = (row * self.d + chunk * LANES, (row + 1) * self.d);
        match self.data[start..end].first_chunk_mut::<LANES>() {
            Some(whole) => *whole = Lanes(*whole).zip(lanes, |a, b| a + b).0,
            None => {
                self.data[start..end].iter_mut().zip(lanes.0).for_each(|(t, x)| *t += x);
            }
        }
    }
}

struct PackedMut<'a, T> {
    lanes: &'a mut [Lanes<T>],
    chunks: usize,
}

impl<T: Real> RowsMut<T> for PackedMut<'_, T> {
    #[inline(always)]
    fn rows(&self) -> usize {
        self.lanes.len() / self.chunks
    }

    #[inline(always)]
    fn add(&mut self, row: usize, chunk: usize, lanes: Lanes<T>) {
        let at = &mut self.lanes[row * self.chunks + chunk];
        *at = at.zip(lanes, |a, b| a + b);
    }
}

/// Table rows are shared out; each task walks all ids in order, so that the sums are the same for any number of threads.
fn table_gradient<T: Real>(
    sums: Sums,
    v: usize,
    ids: &[u32],
    grad: &[T],
    weights: Option<&[Lanes<T>]>,
) -> Vec<T> {
    let (d, n) = (sums.d, chunks(sums.d));
    let rows = rows_per_task(v, (ids.len() * PooledOp::work(d)).div_ceil(v));
    let level = simd::level();
    if v <= ids.len() {
        let mut table = vec![Lanes::splat(T::ZERO); v * n];
        for_each(table.chunks_mut(rows * n).enumerate().collect(), |(i, lanes)| {
            let rows = (i * rows, PackedMut { lanes, chunks: n });
            level.dispatch(TableGradient { sums, rows, weights, ids, grad });
        });
        return unpack(&table, d);
    }
    // Zeroed memory that is not touched costs nothing, so the rows of unused words are free.
    let mut table = vec![T::ZERO; v * d];
    for_each(table.chunks_mut(rows * d).enumerate().collect(), |(i, data)| {
        let rows = (i * rows, PlainMut { data, d });
        level.dispatch(TableGradient { sums, rows, weights, ids, grad });
    });
    table
}

struct TableGradient<'a, T, R> {
    sums: Sums,
    /// The first row, and the rows from there on.
    rows: (usize, R),
    weights: Option<&'a [Lanes<T>]>,
    ids: &'a [u32],
    grad: &'a [T],
}

impl<T: Real, R: RowsMut<T>> pulp::WithSimd for TableGradient<'_, T, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let ids = self.ids;
        for (i, ids) in ids.chunks_exact(self.sums.words).enumerate() {
            for_vectors!(self.sums.d, self.scatter(i, ids));
        }
    }
}

impl<T: Real, R: RowsMut<T>> TableGradient<'_, T, R> {
    /// Adds vectors `first..first + C` of the gradient of sentence `i` to the rows of its words.
    #[inline(always)]
    fn scatter<const C: usize>(&mut self, first: usize, i: usize, ids: &[u32]) {
        let Sums { d, padding, .. } = self.sums;
        let grad: [Lanes<T>; C] =
            std::array::from_fn(|k| Lanes::load(self.grad, i * d + (first + k) * LANES));
        let (start, rows) = (self.rows.0, self.rows.1.rows());
        for (j, &id) in ids.iter().enumerate() {
            let row = (id as usize).wrapping_sub(start);
            if id == padding || row >= rows {
                continue;
            }
            match self.weights {
                None => {
                    for (k, grad) in grad.iter().enumerate() {
                        self.rows.1.add(row, first + k, *grad);
                    }
                }
                Some(w) => {
                    let w = &w[j * chunks(d) + first..][..C];
                    for (k, (grad, w)) in grad.iter().zip(w).enumerate() {
                        self.rows.1.add(row, first + k, grad.zip(*w, |g, w| g * w));
                    }
                }
            }
        }
    }
}

/// The gradient of the position weights, `Σ_i g_i ∘ E[x_ij]`; positions are shared out.
fn weights_gradient<T: Real>(sums: Sums, ids: &[u32], grad: &[T], table: &[T]) -> Vec<T> {
    let Sums { d, words, .. } = sums;
    let mut out = buffer(words * d);
    let rows = rows_per_task(words, ids.len() / words * PooledOp::work(d));
    let level = simd::level();
    for_each(out.chunks_mut(rows * d).enumerate().collect(), |(i, out)| {
        let table = Plain { data: table, d };
        level.dispatch(WeightsGradient { sums, first: i * rows, ids, grad, table, out });
    });
    out
}

struct WeightsGradient<'a, T> {
    sums: Sums,
    first: usize,
    ids: &'a [u32],
    grad: &'a [T],
    table: Plain<'a, T>,
    out: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for WeightsGradient<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        for j in 0..self.out.len() / self.sums.d {
            for_vectors!(self.sums.d, self.position(j));
        }
    }
}

impl<T: Real> WeightsGradient<'_, T> {
    #[inline(always)]
    fn position<const C: usize>(&mut self, first: usize, j: usize) {
        let Sums { d, words, padding } = self.sums;
        let mut sum = [Lanes::splat(T::ZERO); C];
        for (i, id) in self.ids.iter().skip(self.first + j).step_by(words).enumerate() {
            if *id == padding {
                continue;
            }
            for (k, sum) in sum.iter_mut().enumerate() {
                let grad = Lanes::load(self.grad, i * d + (first + k) * LANES);
                *sum = sum.add_product(grad, self.table.lanes(*id as usize, first + k));
            }
        }
        for (k, sum) in sum.into_iter().enumerate() {
            sum.store(self.out, j * d + (first + k) * LANES);
        }
    }
}
