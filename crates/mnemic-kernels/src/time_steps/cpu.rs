//! The fused CPU path: copies. They are bound by memory, so they stay on one thread.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};

/// Operand: (b, t, …).
pub(super) struct UnbindOp;

/// Operands: t times (b, …).
pub(super) struct StackOp;

/// Sequence `xs` (b, t, d) to its steps, each (b, d).
fn split<T: Real>(xs: &[T], (b, t, d): (usize, usize, usize)) -> Vec<Vec<T>> {
    let step = |s: usize| {
        let mut ys = Vec::with_capacity(b * d);
        (0..b).for_each(|row| ys.extend_from_slice(&xs[(row * t + s) * d..][..d]));
        ys
    };
    (0..t).map(step).collect()
}

/// Steps, each (b, d), to the sequence (b, t, d); an absent step is zero.
fn join<'a, T: Real>(
    steps: impl Iterator<Item = Option<&'a [T]>>,
    (b, t, d): (usize, usize, usize),
) -> Vec<T> {
    let mut ys = buffer(b * t * d);
    for (s, xs) in steps.enumerate() {
        for row in 0..b {
            let y = &mut ys[(row * t + s) * d..][..d];
            match xs {
                Some(xs) => y.copy_from_slice(&xs[row * d..][..d]),
                None => y.fill(T::ZERO),
            }
        }
    }
    ys
}

impl FusedOp for UnbindOp {
    const NAME: &'static str = "unbind";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (dims, b, t) = (inputs[0].dims, inputs[0].dims[0], inputs[0].dims[1]);
        let d = dims[2..].iter().product();
        let step_dims: Vec<usize> = [&dims[..1], &dims[2..]].concat();
        let steps = split(inputs[0].data, (b, t, d));
        Ok((steps.into_iter().map(|step| (step, step_dims.clone())).collect(), ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let dims = pass.inputs[0].dims;
        let d = dims[2..].iter().product();
        let steps = pass.grads.iter().map(|g| g.map(|g| g.data));
        Ok(vec![Some(join(steps, (dims[0], dims[1], d)))])
    }
}

impl FusedOp for StackOp {
    const NAME: &'static str = "stack";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (dims, t) = (inputs[0].dims, inputs.len());
        let d = dims[1..].iter().product();
        let ys = join(inputs.iter().map(|x| Some(x.data)), (dims[0], t, d));
        Ok((vec![(ys, [&dims[..1], &[t], &dims[1..]].concat())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (dims, t) = (pass.inputs[0].dims, pass.inputs.len());
        let d = dims[1..].iter().product();
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        Ok(split(grad, (dims[0], t, d)).into_iter().map(Some).collect())
    }
}
