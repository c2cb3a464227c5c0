//! How the cells of sixteen stacks move, and how their gradients do.
//!
//! Cell i of all of them lies side by side, so that a stack is moved by whole vectors: new cell i lies under the old ones i - 1, i and i + 1, and no lane
//! needs another. Around the cells that may have been written stand empty ones; no loop asks where a stack ends.

use std::ops::Range;

use pulp::Simd;

use super::super::{EMPTY, Structure};
use crate::lanes::{LANES, Lanes};
use crate::real::Real;

/// Empty cells on either side: a step reads one beyond the cells that it writes, which are at most one more on a side.
const RIM: usize = 2;
/// The most kinds of actions.
pub(super) const MOST: usize = 4;

/// Where cells lie.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) structure: Structure,
    pub(super) capacity: usize,
    /// Cells that are seen.
    pub(super) visible: usize,
    /// Whether nothing may be done, too.
    pub(super) no_op: bool,
    /// The place of the cell under the head.
    head: usize,
    /// Places in all.
    pub(super) size: usize,
}

impl Layout {
    /// Room for what `steps` may write.
    pub(super) fn new(
        structure: Structure,
        (capacity, visible): (usize, usize),
        no_op: bool,
        steps: usize,
    ) -> Self {
        let most = structure.cells_at(steps, capacity);
        let head = RIM + structure.head(most);
        Self { structure, capacity, visible, no_op, head, size: most + 2 * RIM }
    }

    /// The places of the cells that may have been written in `steps`.
    pub(super) fn written(&self, steps: usize) -> Range<usize> {
        let n = self.structure.cells_at(steps, self.capacity);
        let start = self.head - self.structure.head(n);
        start..start + n
    }

    /// Where cell `i` of those that are seen lies among `cells`, if it is one of them.
    fn seen(&self, i: usize, cells: &Range<usize>) -> Option<usize> {
        let place = self.head as isize + self.structure.first_visible(self.visible) + i as isize;
        usize::try_from(place).ok().filter(|place| cells.contains(place))
    }
}

/// Sets what stands around the cells.
#[inline(always)]
fn rim<T: Real>(places: &mut [Lanes<T>], cells: Range<usize>, number: T) {
    places[cells.start - RIM..cells.start].fill(Lanes::splat(number));
    places[cells.end..cells.end + RIM].fill(Lanes::splat(number));
}

/// Puts `cells` at their places with empty ones around.
#[inline(always)]
pub(super) fn restore<T: Real>(places: &mut [Lanes<T>], written: Range<usize>, cells: &[Lanes<T>]) {
    places[written.clone()].copy_from_slice(cells);
    rim(places, written, T::of(EMPTY));
}

/// The weights of the old cells on the left, in the place and on the right of a new one: before the head, under it and behind it.
struct Weights<T> {
    before: [Lanes<T>; 3],
    head: [Lanes<T>; 3],
    behind: [Lanes<T>; 3],
}

#[inline(always)]
fn weights<T: Real>(layout: &Layout, actions: &[Lanes<T>; MOST]) -> Weights<T> {
    let zero = Lanes::splat(T::ZERO);
    let add = |a: Lanes<T>, b: Lanes<T>| a.zip(b, |a, b| a + b);
    match layout.structure {
        Structure::Stack => {
            let [push, pop, stay, _] = *actions;
            let stay = if layout.no_op { stay } else { zero };
            let behind = [push, stay, pop];
            // The value that is pushed comes from elsewhere.
            Weights { before: behind, head: [zero, stay, pop], behind }
        }
        Structure::List => {
            let [insert, left, right, stay] = *actions;
            let stay = if layout.no_op { stay } else { zero };
            Weights {
                before: [left, stay, add(right, insert)],
                head: [left, stay, right],
                behind: [left, add(stay, insert), right],
            }
        }
    }
}

/// A step: the cells that `steps` have written become those after one more.
#[inline(always)]
pub(super) fn step<S: Simd, T: Real>(
    simd: S,
    layout: &Layout,
    (old, new): (&[Lanes<T>], &mut [Lanes<T>]),
    (actions, value): (&[Lanes<T>; MOST], Lanes<T>),
    steps: usize,
) {
    let cells = layout.written(steps + 1);
    let weights = weights(layout, actions);
    let (head, first, last) = (layout.head, cells.start, cells.end);
    if layout.structure == Structure::Stack && !layout.no_op {
        blend::<S, T, false>(simd, old, new, head..head + 1, &weights.head);
        blend::<S, T, false>(simd, old, new, head + 1..last, &weights.behind);
    } else {
        blend::<S, T, true>(simd, old, new, first..head, &weights.before);
        blend::<S, T, true>(simd, old, new, head..head + 1, &weights.head);
        blend::<S, T, true>(simd, old, new, head + 1..last, &weights.behind);
    }
    new[head] = new[head].add_product(actions[0], value);
    rim(new, cells, T::of(EMPTY));
}

/// New `cells`; without `HERE` nothing stays in its place. Written with registers: from a loop over arrays the compiler makes one over cells, whose
/// numbers it then gathers one by one.
#[inline(always)]
fn blend<S: Simd, T: Real, const HERE: bool>(
    simd: S,
    old: &[Lanes<T>],
    new: &mut [Lanes<T>],
    cells: Range<usize>,
    weights: &[Lanes<T>; 3],
) {
    let (n, from, lanes) = (cells.len(), cells.start, T::lanes::<S>());
    let (before, same, behind) = (&old[from - 1..][..n], &old[from..][..n], &old[from + 1..][..n]);
    let new = &mut new[cells][..n];
    for part in (0..LANES).step_by(lanes) {
        let load = |x: &Lanes<T>| T::load(simd, &x.0[part..][..lanes]);
        let [left, here, right] = [load(&weights[0]), load(&weights[1]), load(&weights[2])];
        for i in 0..n {
            let mut sum = T::times(simd, left, load(&before[i]));
            sum = T::mul_add(simd, right, load(&behind[i]), sum);
            if HERE {
                sum = T::mul_add(simd, here, load(&same[i]), sum);
            }
            T::store(simd, &mut new[i].0[part..][..lanes], sum);
        }
    }
}

/// Cell `i` of those that are seen after `steps`.
#[inline(always)]
pub(super) fn see<T: Real>(
    layout: &Layout,
    places: &[Lanes<T>],
    i: usize,
    steps: usize,
) -> Lanes<T> {
    match layout.seen(i, &layout.written(steps)) {
        Some(place) => places[place],
        None => Lanes::splat(T::of(EMPTY)),
    }
}

/// Adds the gradient of cell `i` of those that are seen after `steps` to that of the cells.
#[inline(always)]
pub(super) fn see_back<T: Real>(
    layout: &Layout,
    grads: &mut [Lanes<T>],
    i: usize,
    steps: usize,
    d: Lanes<T>,
) {
    if let Some(place) = layout.seen(i, &layout.written(steps)) {
        grads[place] = grads[place].zip(d, |a, b| a + b);
    }
}

/// What the backward pass of a step reads and writes.
pub(super) struct Back<'a, T> {
    /// The cells before the step.
    pub(super) old: &'a [Lanes<T>],
    /// The gradients of those after it, zeros around them.
    pub(super) grads: &'a [Lanes<T>],
    /// To be written: the gradients of those before it, zeros around them.
    pub(super) d_old: &'a mut [Lanes<T>],
}

/// The backward pass of [`step`]: gives the gradients of the actions and of the value.
#[inline(always)]
pub(super) fn step_back<S: Simd, T: Real>(
    simd: S,
    layout: &Layout,
    mut back: Back<'_, T>,
    (actions, value): (&[Lanes<T>; MOST], Lanes<T>),
    steps: usize,
) -> ([Lanes<T>; MOST], Lanes<T>) {
    let cells = layout.written(steps + 1);
    let weights = weights(layout, actions);
    let (head, first, last) = (layout.head, cells.start, cells.end);
    let list = layout.structure == Structure::List;
    let [before, under, behind] = if list || layout.no_op {
        [
            sweep::<S, T, true>(simd, &mut back, first..head, &weights.before),
            // What a cell gets back depends on who stands on its right: the head itself goes with those before it.
            sweep::<S, T, true>(simd, &mut back, head..head + 1, &weights.before),
            sweep::<S, T, true>(simd, &mut back, head + 1..last, &weights.behind),
        ]
    } else {
        let none = [Lanes::splat(T::ZERO); 3];
        let under = sweep::<S, T, false>(simd, &mut back, head..head + 1, &weights.behind);
        [none, under, sweep::<S, T, false>(simd, &mut back, head + 1..last, &weights.behind)]
    };
    rim(back.d_old, layout.written(steps), T::ZERO);
    let d_head = back.grads[head];
    let add = |a: Lanes<T>, b: Lanes<T>| a.zip(b, |a, b| a + b);
    let sum = |i: usize| add(add(before[i], under[i]), behind[i]);
    let written = d_head.zip(value, |d, v| d * v);
    let d_actions = match layout.structure {
        Structure::Stack => [add(written, behind[0]), sum(2), sum(1), Lanes::splat(T::ZERO)],
        Structure::List => [add(add(written, before[2]), behind[1]), sum(0), sum(2), sum(1)],
    };
    (d_actions, d_head.zip(actions[0], |d, a| d * a))
}

/// The gradients of the old `cells`, and the sums over the new ones of gradient times the old cell on the left, in the place and on the right.
#[inline(always)]
fn sweep<S: Simd, T: Real, const HERE: bool>(
    simd: S,
    back: &mut Back<'_, T>,
    cells: Range<usize>,
    weights: &[Lanes<T>; 3],
) -> [Lanes<T>; 3] {
    let (n, from, lanes) = (cells.len(), cells.start, T::lanes::<S>());
    let (old, grads) = (back.old, back.grads);
    let (x0, x1, x2) = (&old[from - 1..][..n], &old[from..][..n], &old[from + 1..][..n]);
    let (g0, g1, g2) = (&grads[from - 1..][..n], &grads[from..][..n], &grads[from + 1..][..n]);
    let d_old = &mut back.d_old[cells][..n];
    let mut sums = [Lanes::splat(T::ZERO); 3];
    for part in (0..LANES).step_by(lanes) {
        let load = |x: &Lanes<T>| T::load(simd, &x.0[part..][..lanes]);
        let [left, here, right] = [load(&weights[0]), load(&weights[1]), load(&weights[2])];
        let mut totals = [T::splat(simd, T::ZERO); 3];
        for i in 0..n {
            let g = load(&g1[i]);
            let mut d = T::times(simd, left, load(&g2[i]));
            d = T::mul_add(simd, right, load(&g0[i]), d);
            totals[0] = T::mul_add(simd, g, load(&x0[i]), totals[0]);
            totals[2] = T::mul_add(simd, g, load(&x2[i]), totals[2]);
            if HERE {
                d = T::mul_add(simd, here, g, d);
                totals[1] = T::mul_add(simd, g, load(&x1[i]), totals[1]);
            }
            T::store(simd, &mut d_old[i].0[part..][..lanes], d);
        }
        for (sum, total) in sums.iter_mut().zip(totals) {
            T::store(simd, &mut sum.0[part..][..lanes], total);
        }
    }
    sums
}
