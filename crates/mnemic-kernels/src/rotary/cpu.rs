//! The fused CPU path: one pass over memory in either direction; backward turns the other way.

use candle_core::{Result, bail};

use super::{Layout, OP};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Body, Real, buffer, for_parts};

/// Operands: `(b, h, n, d)`, and cosines and sines `(1 or b, n, r / 2)`, which get no gradient.
pub(super) struct RotaryOp(pub(super) Layout);

/// Rows `(b, h, n)` of `d` numbers, turned by the angles of their places or back.
struct Turn<'a, T> {
    xs: &'a [T],
    cos: &'a [T],
    sin: &'a [T],
    /// 1, or -1 to turn back.
    sign: T,
    layout: Layout,
    h: usize,
    n: usize,
    d: usize,
    half: usize,
    /// Whether all rows of the batch have the same tables.
    shared: bool,
}

impl<T: Real> Body<T> for Turn<'_, T> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let &Self { h, n, d, half, sign, .. } = self;
        let xs = self.xs[start..].chunks_exact(d);
        for (row, (ys, xs)) in (start / d..).zip(part.chunks_exact_mut(d).zip(xs)) {
            let batch = if self.shared { 0 } else { row / (h * n) };
            let at = (batch * n + row % n) * half;
            let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
            let (turned, rest) = ys.split_at_mut(2 * half);
            rest.copy_from_slice(&xs[2 * half..]);
            match self.layout {
                Layout::Halves => {
                    let (a, b) = turned.split_at_mut(half);
                    let (x, y) = xs[..2 * half].split_at(half);
                    for j in 0..half {
                        let s = sign * sin[j];
                        a[j] = x[j] * cos[j] - y[j] * s;
                        b[j] = y[j] * cos[j] + x[j] * s;
                    }
                }
                Layout::Interleaved => {
                    let pairs = turned.as_chunks_mut::<2>().0.iter_mut();
                    for (j, (to, &[x, y])) in pairs.zip(xs.as_chunks::<2>().0).enumerate() {
                        let s = sign * sin[j];
                        *to = [x * cos[j] - y * s, y * cos[j] + x * s];
                    }
                }
            }
        }
    }
}

impl RotaryOp {
    fn turn<T: Real>(&self, xs: View<'_, T>, inputs: &[View<'_, T>], sign: T) -> Result<Vec<T>> {
        let (&[_, h, n, d], &[tables, _, half]) = (xs.dims, inputs[1].dims) else {
            bail!("{OP}: internal error: operands of other ranks");
        };
        let mut ys = buffer(xs.data.len());
        if !ys.is_empty() {
            let (cos, sin) = (inputs[1].data, inputs[2].data);
            let (layout, shared) = (self.0, tables == 1);
            let body = Turn { xs: xs.data, cos, sin, sign, layout, h, n, d, half, shared };
            for_parts(&mut ys, d, &body);
        }
        Ok(ys)
    }
}

impl FusedOp for RotaryOp {
    const NAME: &'static str = OP;
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let ys = self.turn(inputs[0], inputs, T::ONE)?;
        Ok((vec![(ys, inputs[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let dx = pass.grads[0].map(|g| self.turn(g, pass.inputs, -T::ONE)).transpose()?;
        Ok(vec![dx, None, None])
    }
}
