//! A step, fused: strengths of all rows and what is read of them.

use candle_core::Result;

use super::{End, Structure};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::Real;

/// Strengths `(b, n)` and commands to strengths and weights `(b, n + 1)`; of a deque `(b, n + 2)` each.
pub(super) struct StepOp {
    pub(super) structure: Structure,
}

/// The places of `n` rows as they are met from an end.
fn from(end: End, n: usize) -> impl DoubleEndedIterator<Item = usize> {
    (0..n).map(move |i| match end {
        End::Top => n - 1 - i,
        End::Bottom => i,
    })
}

/// What is left of `strengths` when `u` is popped.
fn pop<T: Real>(strengths: &[T], u: T, end: End) -> Vec<T> {
    let mut left = strengths.to_vec();
    let mut passed = T::ZERO;
    for i in from(end, strengths.len()) {
        let strength = strengths[i];
        left[i] = positive(strength - positive(u - passed));
        passed += strength;
    }
    left
}

/// `grad`, for what is left, becomes that of the strengths before; the gradient of what was popped is returned.
fn pop_backward<T: Real>(strengths: &[T], left: &[T], u: T, end: End, grad: &mut [T]) -> T {
    let passed = sums(strengths, end);
    let mut popped = T::ZERO;
    for i in from(end, strengths.len()).rev() {
        let g = if left[i] > T::ZERO { grad[i] } else { T::ZERO };
        // What reaches further rows spares them as much as this row has.
        grad[i] = g - popped;
        if u - passed[i] > T::ZERO {
            popped -= g;
        }
    }
    popped
}

/// How much of each row is read from an end.
fn weigh<T: Real>(strengths: &[T], end: End, weights: &mut [T]) {
    let mut passed = T::ZERO;
    for i in from(end, strengths.len()) {
        weights[i] = smaller(strengths[i], positive(T::ONE - passed));
        passed += strengths[i];
    }
}

/// Adds to `grad` of the strengths what `d_weights` of the weights makes it.
fn weigh_backward<T: Real>(strengths: &[T], end: End, d_weights: &[T], grad: &mut [T]) {
    let passed = sums(strengths, end);
    let mut further = T::ZERO;
    for i in from(end, strengths.len()).rev() {
        grad[i] += further;
        let room = T::ONE - passed[i];
        if strengths[i] <= positive(room) {
            grad[i] += d_weights[i];
        } else if room > T::ZERO {
            further -= d_weights[i];
        }
    }
}

/// For each row, the strengths of those between it and the end.
fn sums<T: Real>(strengths: &[T], end: End) -> Vec<T> {
    let mut out = vec![T::ZERO; strengths.len()];
    let mut sum = T::ZERO;
    for i in from(end, strengths.len()) {
        out[i] = sum;
        sum += strengths[i];
    }
    out
}

fn positive<T: Real>(x: T) -> T {
    // A number that is none stays so.
    if x <= T::ZERO { T::ZERO } else { x }
}

fn smaller<T: Real>(x: T, y: T) -> T {
    if x > y { y } else { x }
}

impl StepOp {
    /// The rows between those pushed at the bottom and at the top, of `n` in all.
    fn old(&self, n: usize) -> std::ops::Range<usize> {
        match self.structure {
            Structure::Deque => 1..n - 1,
            _ => 0..n - 1,
        }
    }

    /// What is left after each pop, the strengths before first.
    fn pops<T: Real>(&self, strengths: &[T], commands: &[T]) -> Vec<Vec<T>> {
        let mut stages = vec![strengths.to_vec()];
        for (&end, command) in self.structure.read_ends().iter().zip(commands.chunks_exact(2)) {
            let left = pop(stages.last().map_or(&[][..], Vec::as_slice), command[1], end);
            stages.push(left);
        }
        stages
    }
}

impl FusedOp for StepOp {
    const NAME: &'static str = "stack step";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (b, before) = (x[0].dims[0], x[0].dims[1]);
        let (ends, pushed) = (self.structure.read_ends(), self.structure.rows_per_step());
        let n = before + pushed;
        let mut strengths = Vec::with_capacity(b * n);
        let mut weights = vec![vec![T::ZERO; b * n]; ends.len()];
        for row in 0..b {
            let commands = &x[1].data[row * 2 * pushed..][..2 * pushed];
            let stages = self.pops(&x[0].data[row * before..][..before], commands);
            if self.structure == Structure::Deque {
                strengths.push(commands[2]);
            }
            strengths.extend(stages.last().into_iter().flatten().copied());
            strengths.push(commands[0]);
            for (weights, &end) in weights.iter_mut().zip(ends) {
                weigh(&strengths[row * n..], end, &mut weights[row * n..][..n]);
            }
        }
        let dims = vec![b, n];
        let all = std::iter::once(strengths).chain(weights);
        Ok((all.map(|data| (data, dims.clone())).collect(), ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, strengths) = (pass.inputs, pass.outputs[0]);
        let (b, before, n) = (x[0].dims[0], x[0].dims[1], strengths.dims[1]);
        let (ends, pushed) = (self.structure.read_ends(), self.structure.rows_per_step());
        let mut d_strengths = Vec::with_capacity(b * before);
        let mut d_commands = Vec::with_capacity(b * 2 * pushed);
        for row in 0..b {
            let part = |view: &View<'_, T>| view.data[row * n..][..n].to_vec();
            let mut grad = pass.grads[0].as_ref().map_or_else(|| vec![T::ZERO; n], part);
            for (&end, d_weights) in ends.iter().zip(&pass.grads[1..]) {
                if let Some(d_weights) = d_weights {
                    let d_weights = &d_weights.data[row * n..][..n];
                    weigh_backward(&strengths.data[row * n..][..n], end, d_weights, &mut grad);
                }
            }
            let commands = &x[1].data[row * 2 * pushed..][..2 * pushed];
            let stages = self.pops(&x[0].data[row * before..][..before], commands);
            let mut old = grad[self.old(n)].to_vec();
            let mut popped = vec![T::ZERO; pushed];
            for (i, &end) in ends.iter().enumerate().rev() {
                let (from, left) = (&stages[i], &stages[i + 1]);
                popped[i] = pop_backward(from, left, commands[2 * i + 1], end, &mut old);
            }
            d_strengths.extend(old);
            let places = [n - 1, 0];
            for (&place, popped) in places.iter().zip(popped) {
                d_commands.extend([grad[place], popped]);
            }
        }
        Ok(vec![Some(d_strengths), Some(d_commands)])
    }
}
