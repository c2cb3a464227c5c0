//! A step, fused: every new cell is a blend of three neighbouring old ones.
//!
//! The old cells stand in a row that is filled up with empty ones, so that new cell i lies under row[i], row[i + 1] and row[i + 2]. Their weights are the
//! same for whole runs of cells: for all of a stack, and of a list for those on the left of the head, the head, and those on its right.

use candle_core::Result;

use super::{EMPTY, Structure};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::{add_scaled, dot};
use crate::real::{Real, buffer};
use crate::simd;
use crate::threads::{for_each, rows_per_task};

/// Cells `(b, S, n)`, actions `(b, S, a)` and values `(b, S)` to cells `(b, S, m)` and what is seen of them, `(b, S, k)`.
pub(super) struct UpdateOp {
    pub(super) structure: Structure,
    pub(super) capacity: usize,
    pub(super) visible: usize,
}

/// The sizes of one stack.
#[derive(Clone, Copy)]
struct Shape {
    structure: Structure,
    /// Cells before and after, actions, cells seen.
    n: usize,
    m: usize,
    a: usize,
    k: usize,
}

/// A run of new cells with the weights of the old cells on their left, in their place and on their right.
struct Run<T> {
    cells: std::ops::Range<usize>,
    weights: [T; 3],
}

impl Shape {
    /// Empty cells before the old ones in the row.
    fn before(self) -> usize {
        1 + self.structure.head(self.m) - self.structure.head(self.n)
    }

    /// The row of the old cells. Where a stack pushes, the value stands before its top.
    fn row<T: Real>(self, cells: &[T], value: T, row: &mut Vec<T>) {
        row.clear();
        row.resize(self.m + 2, T::of(EMPTY));
        row[self.before()..][..self.n].copy_from_slice(cells);
        if self.structure == Structure::Stack {
            row[0] = value;
        }
    }

    /// Which weights the actions give to which cells.
    fn runs<T: Real>(self, actions: &[T]) -> [Run<T>; 3] {
        let head = self.structure.head(self.m);
        let no_op = |at: usize| actions.get(at).copied().unwrap_or(T::ZERO);
        let all = match self.structure {
            Structure::Stack => [[actions[0], no_op(2), actions[1]]; 3],
            Structure::List => {
                let (insert, left, right, stay) = (actions[0], actions[1], actions[2], no_op(3));
                [[left, stay, right + insert], [left, stay, right], [left, stay + insert, right]]
            }
        };
        let cells = [0..head, head..head + 1, head + 1..self.m];
        let mut all = all.into_iter();
        cells.map(|cells| Run { cells, weights: all.next().unwrap_or([T::ZERO; 3]) })
    }

    /// The gradients of the actions from those of the weights of each run.
    fn actions_of<T: Real>(self, runs: [[T; 3]; 3], inserted: T, actions: &mut [T]) {
        let [left, head, right] = runs;
        let sum = |i: usize| left[i] + head[i] + right[i];
        let all = match self.structure {
            Structure::Stack => [sum(0), sum(2), sum(1), T::ZERO],
            Structure::List => [inserted + left[2] + right[1], sum(0), sum(2), sum(1)],
        };
        actions.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    }

    /// The cells that are seen, where they exist: their places among those seen and among all.
    fn seen(self) -> impl Iterator<Item = (usize, usize)> {
        let first = self.structure.head(self.m) as isize + self.structure.first_visible(self.k);
        (0..self.k).filter_map(move |i| {
            let place = usize::try_from(first + i as isize).ok()?;
            (place < self.m).then_some((i, place))
        })
    }
}

/// Some stacks of a step.
struct Forward<'a, T> {
    shape: Shape,
    cells: &'a [T],
    actions: &'a [T],
    values: &'a [T],
    out: &'a mut [T],
    visible: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Shape { structure, n, m, a, k } = self.shape;
        let mut row = Vec::with_capacity(m + 2);
        for (i, &value) in self.values.iter().enumerate() {
            let actions = &self.actions[i * a..][..a];
            let out = &mut self.out[i * m..][..m];
            self.shape.row(&self.cells[i * n..][..n], value, &mut row);
            for Run { cells, weights: [left, here, right] } in self.shape.runs(actions) {
                let row = &row[cells.start..cells.end + 2];
                for (j, out) in out[cells].iter_mut().enumerate() {
                    *out = left * row[j] + here * row[j + 1] + right * row[j + 2];
                }
            }
            if structure == Structure::List {
                out[structure.head(m)] += actions[0] * value;
            }
            let visible = &mut self.visible[i * k..][..k];
            visible.fill(T::of(EMPTY));
            self.shape.seen().for_each(|(to, from)| visible[to] = out[from]);
        }
    }
}

/// Some stacks of the backward pass of a step.
struct Reverse<'a, T> {
    forward: Given<'a, T>,
    d_out: Option<&'a [T]>,
    d_visible: Option<&'a [T]>,
    d_cells: &'a mut [T],
    d_actions: &'a mut [T],
    d_values: &'a mut [T],
}

/// What the forward pass was given.
#[derive(Clone, Copy)]
struct Given<'a, T> {
    shape: Shape,
    cells: &'a [T],
    actions: &'a [T],
    values: &'a [T],
}

impl<T: Real> pulp::WithSimd for Reverse<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Given { shape, cells, actions, values } = self.forward;
        let Shape { structure, n, m, a, k } = shape;
        let head = structure.head(m);
        let (mut row, mut d_row) = (Vec::with_capacity(m + 2), vec![T::ZERO; m + 2]);
        let mut grad = vec![T::ZERO; m];
        for (i, &value) in values.iter().enumerate() {
            let actions = &actions[i * a..][..a];
            match self.d_out {
                Some(d_out) => grad.copy_from_slice(&d_out[i * m..][..m]),
                None => grad.fill(T::ZERO),
            }
            if let Some(d_visible) = self.d_visible {
                shape.seen().for_each(|(from, to)| grad[to] += d_visible[i * k + from]);
            }
            shape.row(&cells[i * n..][..n], value, &mut row);
            d_row.fill(T::ZERO);
            let mut sums = [[T::ZERO; 3]; 3];
            for (Run { cells, weights }, sums) in shape.runs(actions).into_iter().zip(&mut sums) {
                let (row, grad) = (&row[cells.start..cells.end + 2], &grad[cells.clone()]);
                let d_row = &mut d_row[cells.start..cells.end + 2];
                for (by, weight) in weights.into_iter().enumerate() {
                    add_scaled(&mut d_row[by..][..grad.len()], grad, weight);
                    sums[by] = dot(&row[by..][..grad.len()], grad);
                }
            }
            self.d_cells[i * n..][..n].copy_from_slice(&d_row[shape.before()..][..n]);
            shape.actions_of(sums, grad[head] * value, &mut self.d_actions[i * a..][..a]);
            self.d_values[i] = match structure {
                Structure::Stack => d_row[0],
                Structure::List => grad[head] * actions[0],
            };
        }
    }
}

impl UpdateOp {
    fn shape<T>(&self, x: &[View<'_, T>]) -> Shape {
        let (n, a) = (x[0].dims[2], x[1].dims[2]);
        let m = self.structure.cells_after(n, self.capacity);
        Shape { structure: self.structure, n, m, a, k: self.visible }
    }
}

impl FusedOp for UpdateOp {
    const NAME: &'static str = "action stack";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let shape = self.shape(x);
        let Shape { n, m, a, k, .. } = shape;
        let (b, s) = (x[2].dims[0], x[2].dims[1]);
        let (mut out, mut visible) = (buffer(b * s * m), buffer(b * s * k));
        let each = rows_per_task(b * s, m);
        let results = out.chunks_mut(each * m).zip(visible.chunks_mut(each * k));
        let tasks: Vec<_> = results
            .enumerate()
            .map(|(i, (out, visible))| Forward {
                shape,
                cells: part(x[0].data, i, each * n),
                actions: part(x[1].data, i, each * a),
                values: part(x[2].data, i, each),
                out,
                visible,
            })
            .collect();
        let level = simd::level();
        for_each(tasks, |task| level.dispatch(task));
        Ok((vec![(out, vec![b, s, m]), (visible, vec![b, s, k])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs;
        let shape = self.shape(x);
        let Shape { n, m, a, k, .. } = shape;
        let rows = x[2].data.len();
        let each = rows_per_task(rows, 3 * m);
        let (mut d_cells, mut d_actions, mut d_values) =
            (buffer(rows * n), buffer(rows * a), buffer(rows));
        let mut cells = d_cells.chunks_mut((each * n).max(1));
        let results = d_actions.chunks_mut(each * a).zip(d_values.chunks_mut(each));
        let tasks: Vec<_> = results
            .enumerate()
            .map(|(i, (d_actions, d_values))| Reverse {
                forward: Given {
                    shape,
                    cells: part(x[0].data, i, each * n),
                    actions: part(x[1].data, i, each * a),
                    values: part(x[2].data, i, each),
                },
                d_out: pass.grads[0].as_ref().map(|g| part(g.data, i, each * m)),
                d_visible: pass.grads[1].as_ref().map(|g| part(g.data, i, each * k)),
                d_cells: cells.next().unwrap_or_default(),
                d_actions,
                d_values,
            })
            .collect();
        let level = simd::level();
        for_each(tasks, |task| level.dispatch(task));
        Ok(vec![Some(d_cells), Some(d_actions), Some(d_values)])
    }
}

/// Part `i` of parts of `size`; the last may be shorter.
fn part<T>(data: &[T], i: usize, size: usize) -> &[T] {
    &data[(i * size).min(data.len())..((i + 1) * size).min(data.len())]
}
