//! What a step does beside its products: the columns of a group, sixteen at a time.
//!
//! Products want a row for each sequence, the cells a column for each stack of each sequence; [`turn`] brings numbers from one to the other.

use pulp::{Simd, WithSimd};

use super::cells::{self, Layout, MOST};
use crate::lanes::{LANES, Lanes};
use crate::real::Real;

/// The sizes of a group of sequences that are worked on together.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layout: Layout,
    pub(super) rows: usize,
    /// Stacks of a row.
    pub(super) stacks: usize,
    /// Kinds of actions.
    pub(super) actions: usize,
}

impl Sizes {
    /// Vectors that hold a number for each stack of each row.
    pub(super) fn blocks(&self) -> usize {
        (self.rows * self.stacks).div_ceil(LANES)
    }

    /// Numbers in them.
    pub(super) fn wide(&self) -> usize {
        self.blocks() * LANES
    }

    /// Numbers of the actions and values of all columns.
    pub(super) fn gates(&self) -> usize {
        (self.actions + 1) * self.wide()
    }

    /// Numbers that are emitted for the stacks of a row: the actions one after the other, then the values.
    pub(super) fn emitted(&self) -> usize {
        (self.actions + 1) * self.stacks
    }

    /// Cells of a row that are seen.
    pub(super) fn seen(&self) -> usize {
        self.layout.visible * self.stacks
    }

    /// Actions and value of a block.
    #[inline(always)]
    fn load<T: Real>(&self, gates: &[T], block: usize) -> ([Lanes<T>; MOST], Lanes<T>) {
        let (wide, at) = (self.wide(), block * LANES);
        let mut actions = [Lanes::splat(T::ZERO); MOST];
        for (i, action) in actions.iter_mut().enumerate().take(self.actions) {
            *action = Lanes::load(gates, i * wide + at);
        }
        (actions, Lanes::load(gates, self.actions * wide + at))
    }

    #[inline(always)]
    fn store<T: Real>(
        &self,
        (actions, value): ([Lanes<T>; MOST], Lanes<T>),
        gates: &mut [T],
        block: usize,
    ) {
        let (wide, at) = (self.wide(), block * LANES);
        for (i, action) in actions.into_iter().enumerate().take(self.actions) {
            action.store(gates, i * wide + at);
        }
        value.store(gates, self.actions * wide + at);
    }
}

/// `to (o, i, s) = from (i, o, s)`, rows of both at these strides. What spills over behind a part is written over by the next one.
#[inline(always)]
fn turn<T: Real>(
    (from, from_row): (&[T], usize),
    (to, to_row): (&mut [T], usize),
    (outer, inner, s): (usize, usize, usize),
) {
    for o in 0..outer {
        for i in 0..inner {
            for c in (0..s).step_by(LANES) {
                Lanes::load(from, i * from_row + o * s + c).store(to, o * to_row + i * s + c);
            }
        }
    }
}

/// Actions and values from their scores; the cells after the step and what is seen of them.
pub(super) struct Act<'a, T> {
    pub(super) sizes: Sizes,
    /// Steps done before this one.
    pub(super) steps: usize,
    /// `(rows, a + 1, S)`.
    pub(super) scores: &'a [T],
    /// Written: `(a + 1, rows S)`, filled up to whole vectors.
    pub(super) gates: &'a mut [T],
    pub(super) old: &'a [Lanes<T>],
    pub(super) new: &'a mut [Lanes<T>],
    /// Working memory, `(k, rows S)` filled up to whole vectors.
    pub(super) columns: &'a mut [T],
    /// Written: `(rows, k, S)`.
    pub(super) seen: &'a mut [T],
}

impl<T: Real> WithSimd for Act<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sizes, steps, scores, gates, old, new, columns, seen } = self;
        let Sizes { layout, rows, stacks, actions } = sizes;
        let (wide, size, visible) = (sizes.wide(), layout.size, layout.visible);
        turn((scores, sizes.emitted()), (gates, wide), (actions + 1, rows, stacks));
        let blocks = old.chunks_exact(size).zip(new.chunks_exact_mut(size));
        for (block, (old, new)) in blocks.enumerate() {
            let (mut chosen, value) = sizes.load(gates, block);
            softmax(&mut chosen, actions);
            let value = value.map(|x| x.sigmoid_());
            sizes.store((chosen, value), gates, block);
            cells::step(simd, &layout, (old, new), (&chosen, value), steps);
            for i in 0..visible {
                cells::see(&layout, new, i, steps + 1).store(columns, i * wide + block * LANES);
            }
        }
        turn((columns, wide), (seen, sizes.seen()), (rows, visible, stacks));
    }
}

/// The softmax over the first `count`.
#[inline(always)]
fn softmax<T: Real>(scores: &mut [Lanes<T>; MOST], count: usize) {
    let mut most = scores[0];
    for x in &scores[1..count] {
        most = most.zip(*x, |a, b| if b > a { b } else { a });
    }
    let mut sum = Lanes::splat(T::ZERO);
    for x in &mut scores[..count] {
        *x = x.zip(most, |x, most| (x - most).exp_());
        sum = sum.zip(*x, |a, b| a + b);
    }
    let scale = sum.map(|x| T::ONE / x);
    for x in &mut scores[..count] {
        *x = x.zip(scale, |x, scale| x * scale);
    }
}

/// The cells after a step whose actions are known.
pub(super) struct Replay<'a, T> {
    pub(super) sizes: Sizes,
    pub(super) steps: usize,
    pub(super) gates: &'a [T],
    pub(super) old: &'a [Lanes<T>],
    pub(super) new: &'a mut [Lanes<T>],
}

impl<T: Real> WithSimd for Replay<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let size = self.sizes.layout.size;
        let blocks = self.old.chunks_exact(size).zip(self.new.chunks_exact_mut(size));
        for (block, (old, new)) in blocks.enumerate() {
            let (actions, value) = self.sizes.load(self.gates, block);
            cells::step(simd, &self.sizes.layout, (old, new), (&actions, value), self.steps);
        }
    }
}

/// The backward pass of [`Act`].
pub(super) struct Undo<'a, T> {
    pub(super) sizes: Sizes,
    pub(super) steps: usize,
    pub(super) gates: &'a [T],
    /// The cells before the step.
    pub(super) old: &'a [Lanes<T>],
    /// The gradients of the cells after it, to which those of what is seen are added, and before it.
    pub(super) grads: &'a mut [Lanes<T>],
    pub(super) d_old: &'a mut [Lanes<T>],
    /// The gradients of what is seen, `(rows, k, S)`.
    pub(super) d_seen: &'a [T],
    /// Working memory, `(k, rows S)` and `(a + 1, rows S)`, both filled up to whole vectors.
    pub(super) columns: &'a mut [T],
    pub(super) d_gates: &'a mut [T],
    /// Written: `(rows, a + 1, S)`.
    pub(super) d_scores: &'a mut [T],
}

impl<T: Real> WithSimd for Undo<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sizes, steps, gates, columns, d_gates, .. } = self;
        let Sizes { layout, rows, stacks, actions } = sizes;
        let (wide, size, visible) = (sizes.wide(), layout.size, layout.visible);
        turn((self.d_seen, sizes.seen()), (columns, wide), (visible, rows, stacks));
        let grads = self.grads.chunks_exact_mut(size).zip(self.d_old.chunks_exact_mut(size));
        for (block, (old, (grads, d_old))) in self.old.chunks_exact(size).zip(grads).enumerate() {
            for i in 0..visible {
                let d = Lanes::load(columns, i * wide + block * LANES);
                cells::see_back(&layout, grads, i, steps + 1, d);
            }
            let (chosen, value) = sizes.load(gates, block);
            let back = cells::Back { old, grads, d_old };
            let (mut d_chosen, d_value) =
                cells::step_back(simd, &layout, back, (&chosen, value), steps);
            softmax_back(&chosen, &mut d_chosen, actions);
            let d_value = d_value.zip(value, |d, v| d * v * (T::ONE - v));
            sizes.store((d_chosen, d_value), d_gates, block);
        }
        let to = (self.d_scores, sizes.emitted());
        turn((d_gates, wide), to, (rows, actions + 1, stacks));
    }
}

#[inline(always)]
fn softmax_back<T: Real>(p: &[Lanes<T>; MOST], d: &mut [Lanes<T>; MOST], count: usize) {
    let mut sum = Lanes::splat(T::ZERO);
    for (p, d) in p[..count].iter().zip(&d[..count]) {
        sum = sum.add_product(*p, *d);
    }
    for (p, d) in p[..count].iter().zip(&mut d[..count]) {
        *d = d.zip(sum, |d, sum| d - sum).zip(*p, |d, p| d * p);
    }
}

/// The hidden layer from its sums.
pub(super) struct Squash<'a, T>(pub(super) &'a mut [T]);

impl<T: Real> WithSimd for Squash<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.0 {
            *x = x.sigmoid_();
        }
    }
}

/// The gradients of the sums from those of the hidden layer.
pub(super) struct Unsquash<'a, T> {
    pub(super) hidden: &'a [T],
    pub(super) d_hidden: &'a [T],
    pub(super) d_sums: &'a mut [T],
}

impl<T: Real> WithSimd for Unsquash<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((to, d), h) in self.d_sums.iter_mut().zip(self.d_hidden).zip(self.hidden) {
            *to = *d * *h * (T::ONE - *h);
        }
    }
}
