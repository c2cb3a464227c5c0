//! The fused CPU path: one operation a story, forward and backward.
//!
//! Batch rows are worked on in groups of about [`SLOTS`] slots, so that the numbers of a step stay in the first cache; the
//! recurrent weights, packed once, stay in the second. A group first projects its sentences and their scores with the keys in one
//! product. In the time loop stand the product with the recurrent weights and vectorised gates; nothing is allocated there.
//! Groups do not depend on the number of threads, and so no bit does.

use candle_core::Result;

use super::backward::{BackwardWeights, Task};
use super::steps::{Gates, Sizes, Update};
use crate::fused::{Array, Backward, FusedOp, Results, View};
use crate::lanes::LANES;
use crate::matmul::Mat;
use crate::packed::{Packed, Start, Term, product};
use crate::real::{Real, buffer};
use crate::simd::{self, Level};
use crate::threads;

/// Slots to be worked on together: enough to fill the tiles of a product.
const SLOTS: usize = 24;

/// Operands: sentences `(b, n, d)`, keys `(m, d)`, initial `(m, d)`, state, key and input weights `(d, d)`, bias `(d)`, slopes
/// `(d)`, and perhaps the gates' bias `(m)`. Results: states `(b, m, d)`, gates `(b, n, m)`.
pub(super) struct EntityOp {
    pub(super) lengths: Vec<usize>,
}

#[derive(Clone, Copy)]
pub(super) struct Dims {
    pub(super) b: usize,
    pub(super) n: usize,
    pub(super) m: usize,
    pub(super) d: usize,
    /// `d`, filled up to whole vectors.
    pub(super) dp: usize,
    /// The width of a projected sentence: `dp`, and `m` filled up.
    pub(super) width: usize,
}

impl Dims {
    fn of<T>(inputs: &[View<'_, T>]) -> Self {
        let (sentences, keys) = (inputs[0].dims, inputs[1].dims);
        let (m, d) = (keys[0], keys[1]);
        let dp = d.next_multiple_of(LANES);
        let width = dp + m.next_multiple_of(LANES);
        Self { b: sentences[0], n: sentences[1], m, d, dp, width }
    }

    /// Batch rows of a group.
    pub(super) fn rows(self) -> usize {
        (SLOTS / self.m).max(1)
    }

    pub(super) fn sizes(self, steps: usize) -> Sizes {
        Sizes { m: self.m, dp: self.dp, width: self.width, steps }
    }
}

/// Batch rows that are worked on together.
pub(super) struct Group {
    pub(super) first: usize,
    /// The rows, counted from `first`, and their lengths; the longest first, so that those still being read are the first ones.
    pub(super) order: Vec<(usize, usize)>,
}

impl Group {
    /// The length of the longest row.
    pub(super) fn steps(&self) -> usize {
        self.order.first().map_or(0, |(_, length)| *length)
    }

    /// The number of rows that have a sentence `t`.
    pub(super) fn active(&self, t: usize) -> usize {
        self.order.iter().take_while(|(_, length)| *length > t).count()
    }

    /// The sentences in the order of the rows, filled up to whole vectors, `(rows, steps, dp)`.
    pub(super) fn sentences<T: Real>(&self, dims: Dims, xs: &[T]) -> Vec<T> {
        let Dims { n, d, dp, .. } = dims;
        let size = self.steps() * dp;
        let mut sentences = vec![T::ZERO; self.order.len() * size];
        for (out, (row, length)) in sentences.chunks_exact_mut(size.max(1)).zip(&self.order) {
            let xs = xs[(self.first + row) * n * d..].chunks_exact(d).take(*length);
            out.chunks_exact_mut(dp).zip(xs).for_each(|(out, x)| out[..d].copy_from_slice(x));
        }
        sentences
    }
}

/// What the forward pass keeps of a group, by steps; the rows of a step in the group's order.
#[derive(Default)]
pub(super) struct Kept<T> {
    /// States before each step and after the last, `(steps + 1, rows, m, dp)`; numbers also where a row has ended.
    pub(super) h: Vec<T>,
    /// Candidates before their PReLU, `(steps, rows, m, dp)`.
    pub(super) z: Vec<T>,
    /// One over the norms, `(steps, rows, m)`.
    pub(super) inverse: Vec<T>,
}

impl EntityOp {
    pub(super) fn groups(&self, dims: Dims) -> Vec<Group> {
        let rows = dims.rows();
        let groups = self.lengths.chunks(rows).enumerate();
        groups
            .map(|(i, lengths)| {
                let mut order: Vec<_> = lengths.iter().copied().enumerate().collect();
                order.sort_by_key(|(_, length)| std::cmp::Reverse(*length)); // stable
                Group { first: i * rows, order }
            })
            .collect()
    }
}

impl FusedOp for EntityOp {
    const NAME: &'static str = "entity_scan";
    type Saved<T: Real> = Vec<Kept<T>>;

    fn forward<T: Real>(
        &self,
        inputs: &[View<'_, T>],
        grad: bool,
    ) -> Result<Results<T, Vec<Kept<T>>>> {
        let dims = Dims::of(inputs);
        let Dims { b, n, m, d, .. } = dims;
        let level = simd::level();
        let groups = self.groups(dims);
        let weights = ForwardWeights::new(level, dims, inputs);
        let mut saved: Vec<Kept<T>> = groups.iter().map(|_| Kept::default()).collect();
        let (mut states, mut gates) = (buffer(b * m * d), vec![T::ZERO; b * n * m]);
        let tasks =
            states.chunks_mut(dims.rows() * m * d).zip(gates.chunks_mut(dims.rows() * n * m));
        let tasks = groups.iter().zip(&mut saved).zip(tasks);
        let tasks = tasks.map(|((group, kept), (states, gates))| Forward {
            dims,
            group,
            keep: grad,
            xs: inputs[0].data,
            weights: &weights,
            kept,
            states,
            gates,
        });
        threads::for_each(tasks.collect(), |task: Forward<'_, T>| task.run(level));
        let results: Vec<Array<T>> = vec![(states, vec![b, m, d]), (gates, vec![b, n, m])];
        Ok((results, saved))
    }

    fn backward<T: Real>(
        &self,
        pass: Backward<'_, T, Vec<Kept<T>>>,
    ) -> Result<Vec<Option<Vec<T>>>> {
        let dims = Dims::of(pass.inputs);
        let groups = self.groups(dims);
        let weights = BackwardWeights::new(dims, pass.inputs);
        Ok(Task::run_all(dims, &groups, &pass, &weights))
    }
}

/// The parameters as the forward pass reads them.
struct ForwardWeights<T> {
    /// `Uᵀ`.
    state: Packed<T>,
    /// `[Wᵀ, wᵀ]`: a sentence times this is its part of the candidate, and its scores with the keys.
    input: Packed<T>,
    /// `[b, c]`.
    start: Vec<T>,
    /// `V w_j`, `(m, dp)`.
    keys: Vec<T>,
    slopes: Vec<T>,
    initial: Vec<T>,
}

impl<T: Real> ForwardWeights<T> {
    fn new(level: Level, dims: Dims, inputs: &[View<'_, T>]) -> Self {
        let Dims { m, d, dp, width, .. } = dims;
        let data = |i: usize| inputs[i].data;
        let mut start = vec![T::ZERO; width];
        start[..d].copy_from_slice(data(6));
        if let Some(bias) = inputs.get(8) {
            start[dp..dp + m].copy_from_slice(bias.data);
        }
        let key = transposed(&[(data(4), 0)], d, dp);
        let mut keys = buffer(m * dp);
        let terms = [Term { lhs: data(1), row: d, rhs: key.view() }];
        product(level, m, &terms, Start::Bias(&vec![T::ZERO; dp]), &mut keys, dp);
        Self {
            state: transposed(&[(data(3), 0)], d, dp),
            input: transposed(&[(data(5), 0), (data(1), dp)], d, width),
            start,
            keys,
            slopes: padded(data(7), d, dp),
            initial: padded(data(2), d, dp),
        }
    }
}

/// Matrices of rows of `d` numbers, transposed and set side by side from the given columns on, `(d, width)`.
fn transposed<T: Real>(parts: &[(&[T], usize)], d: usize, width: usize) -> Packed<T> {
    let mut data = vec![T::ZERO; d * width];
    for (part, column) in parts {
        for (r, row) in part.chunks_exact(d).enumerate() {
            row.iter().enumerate().for_each(|(i, x)| data[i * width + column + r] = *x);
        }
    }
    Packed::new(Mat { data: &data, row: width, col: 1 }, d, width)
}

/// Rows of `from` numbers, filled up with zeros to `to`.
pub(super) fn padded<T: Real>(xs: &[T], from: usize, to: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; xs.len() / from * to];
    let rows = out.chunks_exact_mut(to).zip(xs.chunks_exact(from));
    rows.for_each(|(out, x)| out[..from].copy_from_slice(x));
    out
}

/// Rows of `from` numbers without what stands behind the first `to`.
pub(super) fn cut_rows<T: Real>(xs: &[T], from: usize, out: &mut [T], to: usize) {
    let rows = out.chunks_exact_mut(to).zip(xs.chunks_exact(from));
    rows.for_each(|(out, x)| out.copy_from_slice(&x[..to]));
}

/// The forward pass of a group.
struct Forward<'a, T> {
    dims: Dims,
    group: &'a Group,
    /// Whether a backward pass may follow.
    keep: bool,
    xs: &'a [T],
    weights: &'a ForwardWeights<T>,
    kept: &'a mut Kept<T>,
    states: &'a mut [T],
    gates: &'a mut [T],
}

impl<T: Real> Forward<'_, T> {
    fn run(mut self, level: Level) {
        let Dims { m, dp, .. } = self.dims;
        let (rows, steps) = (self.group.order.len(), self.group.steps());
        let sentences = self.group.sentences(self.dims, self.xs);
        let projected = self.project(level, &sentences);
        let size = rows * m * dp;
        // Without a backward pass two states take turns.
        let (states, kept) = if self.keep { (steps + 1, steps) } else { (2, 1) };
        // Rows that end early leave places that are not written.
        let even = self.group.active(steps.saturating_sub(1)) == rows;
        let mut h = if even { buffer(states * size) } else { vec![T::ZERO; states * size] };
        h.chunks_exact_mut(m * dp)
            .take(rows)
            .for_each(|h| h.copy_from_slice(&self.weights.initial));
        let mut z = buffer(kept * size);
        let mut inverse = buffer(kept * rows * m);
        let mut gates = buffer(rows * m);
        self.finish(0, &h);
        for t in 0..steps {
            let slots = self.group.active(t) * m;
            let (old, new) = pair(&mut h, size, t, self.keep);
            let at = if self.keep { t } else { 0 };
            let z = &mut z[at * size..][..slots * dp];
            let gates = &mut gates[..slots];
            level.dispatch(Gates {
                sizes: self.dims.sizes(steps),
                t,
                sentences: &sentences,
                projected: &projected,
                keys: &self.weights.keys,
                old,
                z: &mut *z,
                gates: &mut *gates,
            });
            let terms = [Term { lhs: old, row: dp, rhs: self.weights.state.view() }];
            product(level, slots, &terms, Start::Destination, z, dp);
            level.dispatch(Update {
                sizes: self.dims.sizes(steps),
                gates,
                slopes: &self.weights.slopes,
                z,
                old,
                new: &mut *new,
                inverse: &mut inverse[at * rows * m..][..slots],
            });
            self.write_gates(t, gates);
            self.finish(t + 1, new);
        }
        if self.keep {
            *self.kept = Kept { h, z, inverse };
        }
    }

    /// The sentences' part of the candidates, and their scores with the keys, `(rows, steps, width)`.
    fn project(&self, level: Level, sentences: &[T]) -> Vec<T> {
        let Dims { dp, width, .. } = self.dims;
        let (rows, steps) = (self.group.order.len(), self.group.steps());
        let mut projected = buffer(rows * steps * width);
        for (place, (_, length)) in self.group.order.iter().enumerate() {
            let lhs = &sentences[place * steps * dp..];
            let terms = [Term { lhs, row: dp, rhs: self.weights.input.view() }];
            let out = &mut projected[place * steps * width..];
            product(level, *length, &terms, Start::Bias(&self.weights.start), out, width);
        }
        projected
    }

    fn write_gates(&mut self, t: usize, gates: &[T]) {
        let Dims { n, m, .. } = self.dims;
        for (gates, (row, _)) in gates.chunks_exact(m).zip(&self.group.order) {
            self.gates[(row * n + t) * m..][..m].copy_from_slice(gates);
        }
    }

    /// Writes the states of the rows of length `t`.
    fn finish(&mut self, t: usize, h: &[T]) {
        let Dims { m, d, dp, .. } = self.dims;
        for (h, (row, length)) in h.chunks_exact(m * dp).zip(&self.group.order) {
            if *length == t {
                cut_rows(h, dp, &mut self.states[row * m * d..][..m * d], d);
            }
        }
    }
}

/// The states before and after step `t`.
fn pair<T>(h: &mut [T], size: usize, t: usize, keep: bool) -> (&[T], &mut [T]) {
    let (before, after) = h.split_at_mut(if keep { (t + 1) * size } else { size });
    match keep {
        true => (&before[t * size..], &mut after[..size]),
        false if t.is_multiple_of(2) => (before, after),
        false => (after, before),
    }
}
