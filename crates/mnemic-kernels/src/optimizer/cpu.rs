//! The fused CPU path: every number of parameter, gradient and states is read once and written once.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::Gradient;
use super::rule::{Float, Rule};
use crate::real::slice;
use crate::{simd, threads};

/// Numbers taken together: two or more vectors at any SIMD level.
const LANES: usize = 16;

pub(super) fn update<T: Float, const K: usize, const N: usize, R: Rule<K, N>>(
    rule: &R,
    param: &Tensor,
    grad: Gradient<'_>,
    states: [&Tensor; N],
) -> Result<()> {
    let constants = rule.constants().map(T::of);
    with_slice(grad.tensor, |g: &[T]| {
        let mut targets = vec![param];
        targets.extend(states);
        with_slices_mut(R::NAME, &targets, vec![], &mut |slices: Vec<&mut [T]>| {
            let mut slices = slices.into_iter();
            let (Some(p), Ok(s)) = (slices.next(), slices.collect::<Vec<_>>().try_into()) else {
                bail!("{}: internal error: states are missing", R::NAME);
            };
            Part { rule, constants, scale: T::of(grad.scale), p, g, s }.run();
            Ok(())
        })
    })?
}

/// What tells the memory of one tensor from that of another.
pub(super) fn address(t: &Tensor) -> usize {
    let (storage, _) = t.storage_and_layout();
    std::ptr::from_ref::<Storage>(&storage).addr()
}

/// Calls `f` with the numbers of a contiguous CPU tensor.
pub(super) fn with_slice<T: Float, Out>(t: &Tensor, f: impl FnOnce(&[T]) -> Out) -> Result<Out> {
    let (storage, layout) = t.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("internal error: not on the CPU") };
    Ok(f(slice("optimizer", storage, layout)?))
}

type Then<'f, T> = &'f mut dyn FnMut(Vec<&mut [T]>) -> Result<()>;

/// Calls `f` with the numbers of several tensors at once, to change them. candle gives out one storage at a time, within
/// an operation on it; here each operation holds the next one.
fn with_slices_mut<T: Float>(
    name: &'static str,
    tensors: &[&Tensor],
    held: Vec<&mut [T]>,
    f: Then<'_, T>,
) -> Result<()> {
    let Some((first, rest)) = tensors.split_first() else { return f(held) };
    let body = |storage: &mut CpuStorage, layout: &Layout| {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("{name}: internal error: {layout:?} is not contiguous");
        };
        let Some(numbers) = T::slice_mut(storage) else {
            bail!("{name}: internal error: tensors of two types");
        };
        let mut held = held;
        held.push(&mut numbers[start..end]);
        with_slices_mut(name, rest, held, f)
    };
    first.inplace_op1(&InPlace(name, Cell::new(Some(body))))
}

struct InPlace<F>(&'static str, Cell<Option<F>>);

impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match self.1.take() {
            Some(f) => f(storage, layout),
            None => bail!("{}: internal error: ran twice", self.0),
        }
    }
}

/// A stretch of a parameter with its gradient and states.
struct Part<'a, T, R, const K: usize, const N: usize> {
    rule: &'a R,
    constants: [T; K],
    scale: T,
    p: &'a mut [T],
    g: &'a [T],
    s: [&'a mut [T]; N],
}

impl<'a, T: Float, R: Rule<K, N>, const K: usize, const N: usize> Part<'a, T, R, K, N> {
    fn run(self) {
        let level = simd::level();
        let size = threads::rows_per_task(self.p.len(), 1).next_multiple_of(LANES);
        if size >= self.p.len() {
            level.dispatch(self);
        } else {
            threads::for_each(self.split(size), |part| level.dispatch(part));
        }
    }

    fn split(self, size: usize) -> Vec<Self> {
        let Part { rule, constants, scale, p, g, s } = self;
        let mut s = s.map(|s| s.chunks_mut(size));
        p.chunks_mut(size)
            .zip(g.chunks(size))
            .map(|(p, g)| {
                let s = s.each_mut().map(|s| s.next().unwrap_or_default());
                Part { rule, constants, scale, p, g, s }
            })
            .collect()
    }
}

impl<T: Float, R: Rule<K, N>, const K: usize, const N: usize> pulp::WithSimd
    for Part<'_, T, R, K, N>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Part { rule, constants: c, scale, p, g, s } = self;
        let (p, p_rest) = p.as_chunks_mut::<LANES>();
        let (g, g_rest) = g.as_chunks::<LANES>();
        let s = s.map(|s| s.as_chunks_mut::<LANES>());
        for (i, (p, g)) in p.iter_mut().zip(g).enumerate() {
            // Through local arrays: the compiler need not ask whether the slices overlap.
            let old: [[T; LANES]; N] = std::array::from_fn(|k| s[k].0[i]);
            let (old_p, g) = (*p, *g);
            let mut new_p = [T::ZERO; LANES];
            let mut new = [[T::ZERO; LANES]; N];
            for j in 0..LANES {
                let now = std::array::from_fn(|k| old[k][j]);
                let (x, next) = rule.update(c, old_p[j], g[j] * scale, now);
                new_p[j] = x;
                for k in 0..N {
                    new[k][j] = next[k];
                }
            }
            *p = new_p;
            for k in 0..N {
                s[k].0[i] = new[k];
            }
        }
        for (i, (p, g)) in p_rest.iter_mut().zip(g_rest).enumerate() {
            let now = std::array::from_fn(|k| s[k].1[i]);
            let (x, next) = rule.update(c, *p, *g * scale, now);
            *p = x;
            for k in 0..N {
                s[k].1[i] = next[k];
            }
        }
    }
}
