//! Cells around a head on a tape, read and written, fused.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::Real;

/// Where the heads of a batch are, how far they see, and how long the tape is, which is a ring.
#[derive(Clone)]
pub(super) struct Heads {
    pub(super) positions: Vec<usize>,
    pub(super) radius: usize,
    pub(super) cells: usize,
}

impl Heads {
    /// The cells that the head of row `row` sees, from the left.
    fn cells(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        let start = self.positions[row] + self.cells * self.radius - self.radius;
        (0..=2 * self.radius).map(move |k| (start + k) % self.cells)
    }

    fn seen(&self) -> usize {
        2 * self.radius + 1
    }
}

/// Tapes `(b, n, w)` to `(b, 2r + 1, w)`.
pub(super) struct ReadOp(pub(super) Heads);

/// Tapes `(b, n, w)`, what is kept and added `(b, 2r + 1, w)` to tapes `(b, n, w)`.
pub(super) struct WriteOp(pub(super) Heads);

impl FusedOp for ReadOp {
    const NAME: &'static str = "tape read";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (b, n, w) = (x[0].dims[0], x[0].dims[1], x[0].dims[2]);
        let mut out = Vec::with_capacity(b * self.0.seen() * w);
        for row in 0..b {
            let tape = &x[0].data[row * n * w..][..n * w];
            for cell in self.0.cells(row) {
                out.extend_from_slice(&tape[cell * w..][..w]);
            }
        }
        Ok((vec![(out, vec![b, self.0.seen(), w])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let dims = pass.inputs[0].dims;
        let (n, w) = (dims[1], dims[2]);
        let mut d_tape = vec![T::ZERO; pass.inputs[0].data.len()];
        let grad = pass.grads[0].map_or(&[][..], |g| g.data);
        let rows = grad.chunks_exact(self.0.seen() * w).zip(d_tape.chunks_exact_mut(n * w));
        for (row, (grad, d_tape)) in rows.enumerate() {
            // A head may see a short tape's cell twice.
            for (cell, grad) in self.0.cells(row).zip(grad.chunks_exact(w)) {
                d_tape[cell * w..][..w].iter_mut().zip(grad).for_each(|(d, g)| *d += *g);
            }
        }
        Ok(vec![Some(d_tape)])
    }
}

impl FusedOp for WriteOp {
    const NAME: &'static str = "tape write";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (n, w, size) = (x[0].dims[1], x[0].dims[2], self.0.seen() * x[0].dims[2]);
        let mut out = x[0].data.to_vec();
        for (row, tape) in out.chunks_exact_mut(n * w).enumerate() {
            let [keep, add] = [1, 2].map(|i| x[i].data[row * size..][..size].chunks_exact(w));
            for (cell, (keep, add)) in self.0.cells(row).zip(keep.zip(add)) {
                let cell = tape[cell * w..][..w].iter_mut();
                cell.zip(keep.iter().zip(add)).for_each(|(m, (f, v))| *m = *f * *m + *v);
            }
        }
        Ok((vec![(out, x[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs;
        let (n, w, size) = (x[0].dims[1], x[0].dims[2], self.0.seen() * x[0].dims[2]);
        let Some(grad) = pass.grads[0] else { return Ok(vec![None; 3]) };
        let mut d_tape = grad.data.to_vec();
        let mut d_keep = Vec::with_capacity(x[1].data.len());
        let mut d_add = Vec::with_capacity(x[1].data.len());
        for (row, d_tape) in d_tape.chunks_exact_mut(n * w).enumerate() {
            let tape = &x[0].data[row * n * w..][..n * w];
            let keep = x[1].data[row * size..][..size].chunks_exact(w);
            for (cell, keep) in self.0.cells(row).zip(keep) {
                let (d, m) = (&mut d_tape[cell * w..][..w], &tape[cell * w..][..w]);
                d_add.extend_from_slice(d);
                d_keep.extend(d.iter().zip(m).map(|(d, m)| *d * *m));
                d.iter_mut().zip(keep).for_each(|(d, f)| *d *= *f);
            }
        }
        Ok(vec![Some(d_tape), Some(d_keep), Some(d_add)])
    }
}
