//! The fused CPU path.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::linear::sum_rows;
use crate::real::{Real, buffer, for_chunks};

/// Operands: `a`, and `b` of the shape of the last axes of `a`.
pub(super) struct AddOp;

impl FusedOp for AddOp {
    const NAME: &'static str = "add";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (a, b) = (x[0].data, x[1].data);
        let mut y = buffer(a.len());
        for_chunks(&mut y, b.len(), |start, part| {
            for (row, part) in part.chunks_mut(b.len()).enumerate() {
                let a = &a[start + row * b.len()..];
                for ((y, a), b) in part.iter_mut().zip(a).zip(b) {
                    *y = *a + *b;
                }
            }
        });
        Ok((vec![(y, x[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Some(dy) = pass.grads[0] else { return Ok(vec![None, None]) };
        let width = pass.inputs[1].data.len();
        let d_a = pass.wanted[0].then(|| dy.data.to_vec());
        let d_b = pass.wanted[1].then(|| match width == dy.data.len() {
            true => dy.data.to_vec(),
            false => sum_rows(dy.data, width),
        });
        Ok(vec![d_a, d_b])
    }
}

pub(super) struct ScaleOp(pub(super) f64);

impl ScaleOp {
    fn of<T: Real>(&self, x: &[T]) -> Vec<T> {
        let (mut y, factor) = (buffer(x.len()), T::of(self.0));
        for_chunks(&mut y, 1, |start, part| {
            part.iter_mut().zip(&x[start..]).for_each(|(y, x)| *y = factor * *x);
        });
        y
    }
}

impl FusedOp for ScaleOp {
    const NAME: &'static str = "scale";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        Ok((vec![(self.of(x[0].data), x[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        Ok(vec![pass.grads[0].map(|dy| self.of(dy.data))])
    }
}

/// Operands of one shape: gate, what it lets through, and what else.
pub(super) struct InterpolateOp;

impl FusedOp for InterpolateOp {
    const NAME: &'static str = "interpolate";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (gate, a, b) = (x[0].data, x[1].data, x[2].data);
        let mixed = gate.iter().zip(a).zip(b).map(|((&g, &a), &b)| g * a + (T::ONE - g) * b);
        Ok((vec![(mixed.collect(), x[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Some(dy) = pass.grads[0] else { return Ok(vec![None; 3]) };
        let [gate, a, b] = [0, 1, 2].map(|i| pass.inputs[i].data);
        let by_gate = |f: fn(T) -> T| dy.data.iter().zip(gate).map(|(&d, &g)| d * f(g)).collect();
        let apart = a.iter().zip(b).zip(dy.data).map(|((&a, &b), &d)| d * (a - b));
        Ok(vec![
            pass.wanted[0].then(|| apart.collect()),
            pass.wanted[1].then(|| by_gate(|g| g)),
            pass.wanted[2].then(|| by_gate(|g| T::ONE - g)),
        ])
    }
}
