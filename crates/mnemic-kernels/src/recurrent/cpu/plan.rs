//! In which order rows and steps are worked on.

use crate::threads;

/// Rows sorted by length, the longest first, so that the rows that are still being read are always the first ones; and
/// steps in reading order.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) b: usize,
    pub(super) t: usize,
    /// The row of the batch at each sorted place.
    pub(super) order: Vec<usize>,
    /// The number of rows that step `k` of the reading order is valid for.
    pub(super) active: Vec<usize>,
    reverse: bool,
}

impl Plan {
    pub(super) fn new(b: usize, t: usize, lengths: Option<&[usize]>, reverse: bool) -> Self {
        let full = vec![t; b];
        let lengths = lengths.unwrap_or(&full);
        let mut order: Vec<usize> = (0..b).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(lengths[row])); // stable
        let time = |k| if reverse { t - 1 - k } else { k };
        let active = (0..t).map(|k| lengths.iter().filter(|&&l| l > time(k)).count()).collect();
        Self { b, t, order, active, reverse }
    }

    /// The time step that is read at position `k`.
    pub(super) fn time(&self, k: usize) -> usize {
        if self.reverse { self.t - 1 - k } else { k }
    }

    /// The number of rows at places `first..first + rows` that step `k` is valid for.
    pub(super) fn active_in(&self, k: usize, first: usize, rows: usize) -> usize {
        self.active[k].saturating_sub(first).min(rows)
    }

    /// Cuts the sorted rows into at most `tasks` ranges with about the same number of valid steps each.
    pub(super) fn ranges(&self, tasks: usize) -> Vec<(usize, usize)> {
        let mut lengths = vec![0; self.b];
        for &active in &self.active {
            lengths[..active].iter_mut().for_each(|l| *l += 1);
        }
        let total: usize = lengths.iter().map(|l| l + 1).sum();
        let mut ranges = Vec::with_capacity(tasks);
        let (mut start, mut done) = (0, 0);
        for (row, length) in lengths.iter().enumerate() {
            done += length + 1;
            if done * tasks >= total * (ranges.len() + 1) || row + 1 == self.b {
                ranges.push((start, row + 1 - start));
                start = row + 1;
            }
        }
        ranges
    }

    /// Copies rows of `d` numbers from `(b, t, d)` at `xs` into reading order, `(t, b, d)` with sorted rows.
    pub(super) fn gather<T: Copy + Send + Sync>(&self, xs: &[T], d: usize, out: &mut [T]) {
        let steps = threads::rows_per_task(self.t, self.b * d / 8);
        let tasks: Vec<_> = out.chunks_mut((steps * self.b * d).max(1)).enumerate().collect();
        threads::for_each(tasks, |(i, out)| {
            for (j, out) in out.chunks_exact_mut(self.b * d).enumerate() {
                let time = self.time(i * steps + j);
                for (out, row) in out.chunks_exact_mut(d).zip(&self.order) {
                    out.copy_from_slice(&xs[(row * self.t + time) * d..][..d]);
                }
            }
        });
    }

    /// The inverse of [`Plan::gather`] for the steps that are valid; `zero` at the others.
    pub(super) fn scatter<T: Copy + Send + Sync>(
        &self,
        xs: &[T],
        d: usize,
        zero: T,
        out: &mut [T],
    ) {
        let mut places = vec![0; self.b];
        for (place, &row) in self.order.iter().enumerate() {
            places[row] = place;
        }
        let rows = threads::rows_per_task(self.b, self.t * d / 8);
        let tasks: Vec<_> = out.chunks_mut((rows * self.t * d).max(1)).enumerate().collect();
        threads::for_each(tasks, |(i, out)| {
            for (out, &place) in out.chunks_exact_mut(self.t * d).zip(&places[i * rows..]) {
                for k in 0..self.t {
                    let to = &mut out[self.time(k) * d..][..d];
                    if place < self.active[k] {
                        to.copy_from_slice(&xs[(k * self.b + place) * d..][..d]);
                    } else {
                        to.fill(zero);
                    }
                }
            }
        });
    }

    /// Sorts rows of `d` numbers.
    pub(super) fn sort<T: Copy>(&self, xs: &[T], d: usize, out: &mut [T]) {
        for (place, &row) in self.order.iter().enumerate() {
            out[place * d..][..d].copy_from_slice(&xs[row * d..][..d]);
        }
    }

    /// The inverse of [`Plan::sort`].
    pub(super) fn unsort<T: Copy>(&self, xs: &[T], d: usize, out: &mut [T]) {
        for (place, &row) in self.order.iter().enumerate() {
            out[row * d..][..d].copy_from_slice(&xs[place * d..][..d]);
        }
    }
}
