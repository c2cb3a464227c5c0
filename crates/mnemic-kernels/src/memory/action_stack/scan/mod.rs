//! The scan as one fused operation.
//!
//! Sequences are worked on in groups, so that the cells of a group stay in the first caches. The groups depend on the sizes alone, and inside the
//! operation sequences are ordered by group, step and row; so the weights' gradients, one product over all steps each, are sums of one order however many
//! threads there are. Of the cells only those of about √t steps are kept; the backward pass makes the others again from them and the actions, segment by
//! segment, so that they stay in the caches.

mod cells;
mod steps;
mod tasks;
#[cfg(test)]
mod tests;

use candle_core::Result;

use super::{EMPTY, Structure};
use crate::fused::{Backward, FusedOp, Results, View};
use crate::linear::weight_gradient;
use crate::matmul::{Mat, matmul, parallelism};
use crate::packed::Packed;
use crate::real::{Real, buffer};
use crate::{simd, threads};
use cells::Layout;
use steps::Sizes;
use tasks::Kept;

/// Embedded inputs `(b, t, m)`, P `(m, S k)`, A `(S a, m)`, D `(S, m)` and perhaps R `(m, m)` to the hidden layer `(b, t, m)`.
pub(super) struct ScanOp {
    pub(super) structure: Structure,
    pub(super) capacity: usize,
    pub(super) visible: usize,
}

/// What the backward pass needs.
pub(super) struct Saved<T> {
    /// `(t, rows, m)` of each group, beside each other.
    hidden: Vec<T>,
    /// `(t, rows, k S)`, likewise.
    seen: Vec<T>,
    groups: Vec<Kept<T>>,
}

/// Weights, packed for the forward or for the backward pass.
struct Packs<T> {
    see: Packed<T>,
    emit: Packed<T>,
    recurrent: Option<Packed<T>>,
}

/// Columns of a group, about: so many that products have rows enough and vectors are filled, so few that the cells stay in the first caches.
const COLUMNS: usize = 96;

/// All sizes.
struct Plan {
    b: usize,
    t: usize,
    m: usize,
    /// Of a group; the last may have fewer rows.
    group: Sizes,
}

impl Plan {
    fn new<T>(op: &ScanOp, x: &[View<'_, T>]) -> Self {
        let [b, t, m] = [0, 1, 2].map(|i| x[0].dims[i]);
        let stacks = x[3].dims[0];
        let actions = x[2].dims[0] / stacks;
        let no_op = actions == op.structure.num_actions(true);
        let layout = Layout::new(op.structure, (op.capacity, op.visible), no_op, t - 1);
        let groups = b.div_ceil((COLUMNS / stacks).clamp(4, 16));
        Self { b, t, m, group: Sizes { layout, rows: b.div_ceil(groups), stacks, actions } }
    }

    /// The groups: their rows.
    fn groups(&self) -> Vec<Sizes> {
        let rows = (0..self.b).step_by(self.group.rows);
        rows.map(|first| Sizes { rows: self.group.rows.min(self.b - first), ..self.group })
            .collect()
    }

    /// How many numbers of `width` a step and row a group has.
    fn each(&self, width: usize) -> usize {
        self.group.rows * self.t * width
    }

    /// Runs the groups, on threads where it pays.
    fn run<I: Send>(&self, tasks: Vec<I>, f: impl Fn(I) + Sync + Send) {
        let group = self.group;
        let products = self.m * (group.seen() + group.emitted());
        let work = self.t * (group.stacks * group.layout.size + products) / 16;
        if threads::rows_per_task(self.b, work) < self.b {
            threads::for_each(tasks, f);
        } else {
            tasks.into_iter().for_each(f);
        }
    }

    /// P as `(k S, m)`: the stacks' first cells, then their second ones.
    fn see<T: Real>(&self, x: &[View<'_, T>]) -> Vec<T> {
        let (s, k) = (self.group.stacks, self.group.layout.visible);
        let mut see = Vec::with_capacity(self.m * s * k);
        for i in 0..k {
            for stack in 0..s {
                see.extend(x[1].data.iter().skip(stack * k + i).step_by(s * k));
            }
        }
        see
    }

    /// A and D as `((a + 1) S, m)`: one kind of action of all stacks after the other, then the values.
    fn emit<T: Real>(&self, x: &[View<'_, T>]) -> Vec<T> {
        let (s, a, m) = (self.group.stacks, self.group.actions, self.m);
        let mut emit = Vec::with_capacity((a + 1) * s * m);
        for action in 0..a {
            for stack in 0..s {
                emit.extend_from_slice(&x[2].data[(stack * a + action) * m..][..m]);
            }
        }
        emit.extend_from_slice(x[3].data);
        emit
    }

    fn packs<T: Real>(&self, x: &[View<'_, T>], backward: bool) -> Packs<T> {
        let m = self.m;
        let (seen, emitted) = (self.group.seen(), self.group.emitted());
        let (see, emit) = (self.see(x), self.emit(x));
        // A matrix `(rows, columns)`, or its transpose.
        let pack = |data: &[T], (rows, columns): (usize, usize), turned: bool| {
            if turned {
                Packed::new(Mat { data, row: 1, col: columns }, columns, rows)
            } else {
                Packed::new(Mat { data, row: columns, col: 1 }, rows, columns)
            }
        };
        Packs {
            see: pack(&see, (seen, m), backward),
            emit: pack(&emit, (emitted, m), !backward),
            recurrent: x.get(4).map(|r| pack(r.data, (m, m), !backward)),
        }
    }
}

impl FusedOp for ScanOp {
    const NAME: &'static str = "action stack scan";
    type Saved<T: Real> = Saved<T>;

    fn forward<T: Real>(&self, x: &[View<'_, T>], grad: bool) -> Result<Results<T, Saved<T>>> {
        let plan = Plan::new(self, x);
        let (b, t, m, seen) = (plan.b, plan.t, plan.m, plan.group.seen());
        let (groups, packs) = (plan.groups(), plan.packs(x, false));
        let steps = if grad { t } else { 1 };
        let mut saved = Saved {
            hidden: buffer(b * steps * m),
            seen: buffer(b * steps * seen),
            groups: groups.iter().map(|_| Kept::default()).collect(),
        };
        let mut output = buffer(b * t * m);
        let rows = plan.group.rows;
        let outputs = output.chunks_mut(plan.each(m)).zip(x[0].data.chunks(plan.each(m)));
        let kept = saved.hidden.chunks_mut(rows * steps * m);
        let kept = kept.zip(saved.seen.chunks_mut(rows * steps * seen)).zip(&mut saved.groups);
        let tasks = groups.into_iter().zip(outputs).zip(kept);
        let tasks = tasks.map(|((sizes, (output, embedded)), ((hidden, seen), kept))| {
            let (steps, kept) = ((t, m), grad.then_some(kept));
            let packs = &packs;
            tasks::Forward { sizes, steps, packs, embedded, output, hidden, seen, kept }
        });
        let level = simd::level();
        plan.run(tasks.collect(), |task| task.run(level));
        Ok((vec![(output, vec![b, t, m])], saved))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Saved<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let plan = Plan::new(self, pass.inputs);
        let (b, t, m) = (plan.b, plan.t, plan.m);
        let (seen, emitted) = (plan.group.seen(), plan.group.emitted());
        let (d_embedded, d_sums, d_scores) = plan.sweep(&pass);
        let wanted = |i: usize| pass.wanted.get(i).is_some_and(|&wanted| wanted);
        let Saved { hidden, seen: looks, .. } = pass.saved;
        let d_see = wanted(1).then(|| weight_gradient(looks, &d_sums, (m, seen, b * t)));
        let d_emit = (wanted(2) || wanted(3))
            .then(|| weight_gradient(hidden, &d_scores, (emitted, m, b * t)));
        let mut gradients = vec![
            Some(d_embedded),
            d_see.map(|d| plan.as_visible(&d)),
            d_emit.as_ref().map(|d| plan.as_actions(d)),
            d_emit.map(|d| d[(emitted - plan.group.stacks) * m..].to_vec()),
        ];
        if pass.inputs.len() > 4 {
            gradients.push(wanted(4).then(|| plan.recurrent_gradient(hidden, &d_sums)));
        }
        Ok(gradients)
    }
}

impl Plan {
    /// The gradients of the inputs, and by group those of the sums of the hidden layer and of the scores of actions and values.
    fn sweep<T: Real>(&self, pass: &Backward<'_, T, Saved<T>>) -> (Vec<T>, Vec<T>, Vec<T>) {
        let (b, t, m, emitted) = (self.b, self.t, self.m, self.group.emitted());
        let packs = self.packs(pass.inputs, true);
        let (mut d_embedded, mut d_sums) = (buffer(b * t * m), buffer(b * t * m));
        let mut d_scores = buffer(b * t * emitted);
        let each = self.each(m);
        let written = d_embedded.chunks_mut(each).zip(d_sums.chunks_mut(each));
        let written = written.zip(d_scores.chunks_mut(self.each(emitted)));
        let kept = pass.saved.groups.iter().zip(pass.saved.hidden.chunks(each));
        let tasks = self.groups().into_iter().zip(kept).zip(written).enumerate();
        let tasks =
            tasks.map(|(i, ((sizes, (kept, hidden)), ((d_embedded, d_sums), d_scores)))| {
                let d_output = pass.grads[0].map(|g| &g.data[i * each..][..hidden.len()]);
                let (steps, packs) = ((t, m), &packs);
                tasks::Backward {
                    sizes,
                    steps,
                    packs,
                    kept,
                    hidden,
                    d_output,
                    d_embedded,
                    d_sums,
                    d_scores,
                }
            });
        let level = simd::level();
        self.run(tasks.collect(), |task| task.run(level));
        (d_embedded, d_sums, d_scores)
    }

    /// P's gradient from `(m, k S)` to `(m, S k)`.
    fn as_visible<T: Real>(&self, d: &[T]) -> Vec<T> {
        let (s, k) = (self.group.stacks, self.group.layout.visible);
        let row = |row: &[T]| (0..s * k).map(|i| row[i % k * s + i / k]).collect::<Vec<T>>();
        d.chunks_exact(s * k).flat_map(row).collect()
    }

    /// A's gradient from `(a, S, m)` to `(S, a, m)`.
    fn as_actions<T: Real>(&self, d: &[T]) -> Vec<T> {
        let (s, a, m) = (self.group.stacks, self.group.actions, self.m);
        let rows = (0..s * a).map(|i| &d[(i % a * s + i / a) * m..][..m]);
        rows.flatten().copied().collect()
    }

    /// R's gradient: every step's sums with the hidden layer a step before.
    fn recurrent_gradient<T: Real>(&self, hidden: &[T], d_sums: &[T]) -> Vec<T> {
        let (t, m) = (self.t, self.m);
        let mut d = vec![T::ZERO; m * m];
        let groups = hidden.chunks(self.each(m)).zip(d_sums.chunks(self.each(m)));
        for (hidden, d_sums) in groups {
            let rows = hidden.len() / (t * m);
            let lhs = Mat { data: &d_sums[rows * m..], row: 1, col: m };
            let rhs = Mat { data: hidden, row: m, col: 1 };
            matmul((m, m, (t - 1) * rows), &mut d, m, true, lhs, rhs, parallelism());
        }
        d
    }
}
