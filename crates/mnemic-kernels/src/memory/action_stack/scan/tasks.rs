//! The time loop, for a group of sequences.

use super::cells;
use super::steps::{Act, Replay, Sizes, Squash, Undo, Unsquash};
use super::{EMPTY, Packs};
use crate::lanes::Lanes;
use crate::packed::{Packed, Start, Term, product};
use crate::real::Real;
use crate::simd::Level;

/// What a group keeps for the backward pass beside its part of the common arrays.
#[derive(Default)]
pub(super) struct Kept<T> {
    /// Actions and values of each step but the last, as [`Act`] leaves them.
    gates: Vec<T>,
    /// The cells before every [`segment`]-th step; those between are made again from them.
    cells: Vec<Lanes<T>>,
}

/// Steps whose cells the backward pass makes again at a time: about as many as there are such segments, so that little is kept of either.
fn segment(t: usize) -> usize {
    t.isqrt().max(1)
}

/// Where the cells before step `step`, which begins a segment, lie among those that are kept.
fn kept_before(sizes: &Sizes, step: usize, each: usize) -> usize {
    let all = (each..step).step_by(each).map(|step| sizes.layout.written(step).len());
    sizes.blocks() * all.sum::<usize>()
}

/// Part `i` of parts of `size`.
fn part<T>(data: &[T], i: usize, size: usize) -> &[T] {
    &data[i * size..][..size]
}

fn part_mut<T>(data: &mut [T], i: usize, size: usize) -> &mut [T] {
    &mut data[i * size..][..size]
}

/// `out += rows times weights`.
fn add_product<T: Real>(
    level: Level,
    rows: usize,
    (lhs, width): (&[T], usize),
    rhs: &Packed<T>,
    (out, out_width): (&mut [T], usize),
) {
    let terms = [Term { lhs, row: width, rhs: rhs.view() }];
    product(level, rows, &terms, Start::Destination, out, out_width);
}

/// Copies step `t` out of `(rows, steps, m)` into `(rows, m)`.
fn take_step<T: Copy>(from: &[T], t: usize, (steps, m): (usize, usize), to: &mut [T]) {
    for (to, from) in to.chunks_exact_mut(m).zip(from.chunks_exact(steps * m)) {
        to.copy_from_slice(part(from, t, m));
    }
}

/// Copies `(rows, m)` to step `t` of `(rows, steps, m)`.
fn give_step<T: Copy>(from: &[T], to: &mut [T], t: usize, (steps, m): (usize, usize)) {
    for (from, to) in from.chunks_exact(m).zip(to.chunks_exact_mut(steps * m)) {
        part_mut(to, t, m).copy_from_slice(from);
    }
}

/// A group's forward pass.
pub(super) struct Forward<'a, T> {
    pub(super) sizes: Sizes,
    /// Steps and width of the hidden layer.
    pub(super) steps: (usize, usize),
    pub(super) packs: &'a Packs<T>,
    /// `(rows, t, m)`.
    pub(super) embedded: &'a [T],
    pub(super) output: &'a mut [T],
    /// `(t, rows, m)` and `(t, rows, k S)`, or of one step where nothing need be kept.
    pub(super) hidden: &'a mut [T],
    pub(super) seen: &'a mut [T],
    pub(super) kept: Option<&'a mut Kept<T>>,
}

/// Working memory of a group's forward pass.
struct Work<T> {
    gates: Vec<T>,
    /// The cells before a step and after it.
    old: Vec<Lanes<T>>,
    new: Vec<Lanes<T>>,
    columns: Vec<T>,
    scores: Vec<T>,
    /// Zeros.
    nothing: Vec<T>,
    sums: Vec<T>,
}

impl<T: Real> Forward<'_, T> {
    pub(super) fn run(mut self, level: Level) {
        let Self { sizes, steps: (t, m), .. } = self;
        let (rows, kept) = (sizes.rows, if self.kept.is_some() { t - 1 } else { 1 });
        let cells = vec![Lanes::splat(T::of(EMPTY)); sizes.blocks() * sizes.layout.size];
        let mut work = Work {
            gates: vec![T::ZERO; kept * sizes.gates()],
            old: cells.clone(),
            new: cells,
            columns: vec![T::ZERO; sizes.layout.visible * sizes.wide()],
            scores: vec![T::ZERO; rows * sizes.emitted()],
            nothing: vec![T::ZERO; sizes.emitted()],
            sums: vec![T::ZERO; rows * m],
        };
        self.reserve();
        self.seen[..rows * sizes.seen()].fill(T::of(EMPTY));
        for step in 0..t {
            self.see(level, step, &mut work);
            // Where the stacks go after the last step nobody sees.
            if step + 1 < t {
                self.act(level, step, &mut work);
            }
        }
        if let Some(kept) = self.kept {
            kept.gates = work.gates;
        }
    }

    /// Where the numbers of a step lie.
    fn at(&self, step: usize) -> usize {
        if self.kept.is_some() { step } else { 0 }
    }

    /// The hidden layer of a step.
    fn see(&mut self, level: Level, step: usize, work: &mut Work<T>) {
        let Self { sizes, steps: (_, m), packs, .. } = *self;
        let (rows, seen, sums) = (sizes.rows, sizes.seen(), &mut work.sums);
        take_step(self.embedded, step, self.steps, sums);
        let looks = part(self.seen, self.at(step), rows * seen);
        add_product(level, rows, (looks, seen), &packs.see, (sums, m));
        if let Some(recurrent) = packs.recurrent.as_ref().filter(|_| step > 0) {
            let before = part(self.hidden, self.at(step - 1), rows * m);
            add_product(level, rows, (before, m), recurrent, (sums, m));
        }
        level.dispatch(Squash(sums));
        let now = self.at(step);
        part_mut(self.hidden, now, rows * m).copy_from_slice(sums);
        give_step(sums, self.output, step, self.steps);
    }

    /// What it does to the stacks.
    fn act(&mut self, level: Level, step: usize, work: &mut Work<T>) {
        let Self { sizes, steps: (_, m), packs, .. } = *self;
        let rows = sizes.rows;
        let terms = [Term { lhs: &work.sums, row: m, rhs: packs.emit.view() }];
        let start = Start::Bias(&work.nothing);
        product(level, rows, &terms, start, &mut work.scores, sizes.emitted());
        self.keep_cells(&work.old, step);
        let (now, next) = (self.at(step), self.at(step + 1));
        level.dispatch(Act {
            sizes,
            steps: step,
            scores: &work.scores,
            gates: part_mut(&mut work.gates, now, sizes.gates()),
            old: &work.old,
            new: &mut work.new,
            columns: &mut work.columns,
            seen: part_mut(self.seen, next, rows * sizes.seen()),
        });
        std::mem::swap(&mut work.old, &mut work.new);
    }

    fn reserve(&mut self) {
        let (t, sizes) = (self.steps.0, &self.sizes);
        if let Some(kept) = &mut self.kept {
            let each = segment(t);
            kept.cells.reserve_exact(kept_before(sizes, t.next_multiple_of(each), each));
        }
    }

    /// Keeps the cells before a step that begins a segment. At the start there are none.
    fn keep_cells(&mut self, cells: &[Lanes<T>], step: usize) {
        let Some(kept) = &mut self.kept else { return };
        if step > 0 && step.is_multiple_of(segment(self.steps.0)) {
            let written = self.sizes.layout.written(step);
            for block in cells.chunks_exact(self.sizes.layout.size) {
                kept.cells.extend_from_slice(&block[written.clone()]);
            }
        }
    }
}

/// A group's backward pass.
pub(super) struct Backward<'a, T> {
    pub(super) sizes: Sizes,
    pub(super) steps: (usize, usize),
    pub(super) packs: &'a Packs<T>,
    pub(super) kept: &'a Kept<T>,
    /// `(t, rows, m)`.
    pub(super) hidden: &'a [T],
    /// `(rows, t, m)`; written: that of the input.
    pub(super) d_output: Option<&'a [T]>,
    pub(super) d_embedded: &'a mut [T],
    /// Written: `(t, rows, m)` and `(t, rows, (a + 1) S)`.
    pub(super) d_sums: &'a mut [T],
    pub(super) d_scores: &'a mut [T],
}

/// Working memory of a group's backward pass.
struct BackWork<T> {
    /// The cells before each step of a segment.
    past: Vec<Lanes<T>>,
    /// The gradients of the cells after a step and before it.
    grads: Vec<Lanes<T>>,
    d_old: Vec<Lanes<T>>,
    columns: Vec<T>,
    d_gates: Vec<T>,
    d_seen: Vec<T>,
    /// Zeros.
    nothing: Vec<T>,
    d_hidden: Vec<T>,
}

impl<T: Real> Backward<'_, T> {
    pub(super) fn run(mut self, level: Level) {
        let Self { sizes, steps: (t, m), .. } = self;
        let (rows, seen) = (sizes.rows, sizes.seen());
        let all = sizes.blocks() * sizes.layout.size;
        let mut work = BackWork {
            past: vec![Lanes::splat(T::of(EMPTY)); all * segment(t)],
            grads: vec![Lanes::splat(T::ZERO); all],
            d_old: vec![Lanes::splat(T::ZERO); all],
            columns: vec![T::ZERO; sizes.layout.visible * sizes.wide()],
            d_gates: vec![T::ZERO; sizes.gates()],
            d_seen: vec![T::ZERO; rows * seen],
            nothing: vec![T::ZERO; seen],
            d_hidden: vec![T::ZERO; rows * m],
        };
        for step in (0..t).rev() {
            match self.d_output {
                Some(d) => take_step(d, step, self.steps, &mut work.d_hidden),
                None => work.d_hidden.fill(T::ZERO),
            }
            if step + 1 < t {
                self.act_back(level, step, &mut work);
            } else {
                let last = rows * sizes.emitted();
                part_mut(self.d_scores, step, last).fill(T::ZERO);
            }
            self.see_back(level, step, &mut work);
        }
    }

    /// The gradients of the scores of a step, and what the hidden layer gets from them and from the next step.
    fn act_back(&mut self, level: Level, step: usize, work: &mut BackWork<T>) {
        let Self { sizes, steps: (t, m), packs, kept, .. } = *self;
        let (rows, emitted, length) = (sizes.rows, sizes.emitted(), segment(t));
        if let Some(recurrent) = &packs.recurrent {
            let later = part(self.d_sums, step + 1, rows * m);
            add_product(level, rows, (later, m), recurrent, (&mut work.d_hidden, m));
        }
        if step + 2 == t || (step + 1).is_multiple_of(length) {
            replay(level, (&sizes, length), kept, step, &mut work.past);
        }
        let d_scores = part_mut(self.d_scores, step, rows * emitted);
        level.dispatch(Undo {
            sizes,
            steps: step,
            gates: part(&kept.gates, step, sizes.gates()),
            old: part(&work.past, step % length, work.grads.len()),
            grads: &mut work.grads,
            d_old: &mut work.d_old,
            d_seen: &work.d_seen,
            columns: &mut work.columns,
            d_gates: &mut work.d_gates,
            d_scores,
        });
        std::mem::swap(&mut work.grads, &mut work.d_old);
        add_product(level, rows, (d_scores, emitted), &packs.emit, (&mut work.d_hidden, m));
    }

    /// The gradients of the sums of the hidden layer and of what it saw.
    fn see_back(&mut self, level: Level, step: usize, work: &mut BackWork<T>) {
        let Self { sizes, steps: (_, m), packs, .. } = *self;
        let hidden = part(self.hidden, step, sizes.rows * m);
        let d_sums = part_mut(self.d_sums, step, sizes.rows * m);
        level.dispatch(Unsquash { hidden, d_hidden: &work.d_hidden, d_sums });
        give_step(d_sums, self.d_embedded, step, self.steps);
        if step > 0 {
            let terms = [Term { lhs: d_sums, row: m, rhs: packs.see.view() }];
            let start = Start::Bias(&work.nothing);
            product(level, sizes.rows, &terms, start, &mut work.d_seen, sizes.seen());
        }
    }
}

/// Makes the cells before each step of a segment up to step `last`, from those that are kept.
fn replay<T: Real>(
    level: Level,
    (sizes, length): (&Sizes, usize),
    kept: &Kept<T>,
    last: usize,
    past: &mut [Lanes<T>],
) {
    let (size, all) = (sizes.layout.size, sizes.blocks() * sizes.layout.size);
    let first = last - last % length;
    if first == 0 {
        past[..all].fill(Lanes::splat(T::of(EMPTY)));
    } else {
        let written = sizes.layout.written(first);
        let cells = &kept.cells[kept_before(sizes, first, length)..];
        let blocks = past.chunks_exact_mut(size).zip(cells.chunks_exact(written.len()));
        for (block, cells) in blocks.take(sizes.blocks()) {
            cells::restore(block, written.clone(), cells);
        }
    }
    for step in first..last {
        let (old, new) = past.split_at_mut((step - first + 1) * all);
        level.dispatch(Replay {
            sizes: *sizes,
            steps: step,
            gates: part(&kept.gates, step, sizes.gates()),
            old: &old[old.len() - all..],
            new: &mut new[..all],
        });
    }
}
