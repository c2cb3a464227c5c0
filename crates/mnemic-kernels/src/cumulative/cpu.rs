//! The fused CPU path. A scan waits for its last sum, so several rows go side by side.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Body, Real, buffer, for_parts};

/// Rows side by side: as many as cover the latency of an addition.
const ROWS: usize = 8;

/// Operand: (…, n).
pub(super) struct CumsumOp {
    pub(super) exclusive: bool,
}

/// Operand: (…, n).
pub(super) struct CumprodOp {
    pub(super) exclusive: bool,
}

/// Scans of the rows of `xs`, each of length `n`.
struct Scan<'a, T> {
    xs: &'a [T],
    n: usize,
    exclusive: bool,
    /// From the last element to the first.
    reverse: bool,
    product: bool,
}

impl<T: Real> Scan<'_, T> {
    fn run_all(&self) -> Vec<T> {
        let mut ys = buffer(self.xs.len());
        if !ys.is_empty() {
            for_parts(&mut ys, self.n, self);
        }
        ys
    }

    /// `R` rows at once.
    #[inline(always)]
    fn rows<const R: usize>(&self, xs: &[T], ys: &mut [T]) {
        let n = self.n;
        let mut state = [if self.product { T::ONE } else { T::ZERO }; R];
        for step in 0..n {
            let j = if self.reverse { n - 1 - step } else { step };
            for (r, state) in state.iter_mut().enumerate() {
                let old = *state;
                let x = xs[r * n + j];
                *state = if self.product { old * x } else { old + x };
                ys[r * n + j] = if self.exclusive { old } else { *state };
            }
        }
    }
}

impl<T: Real> Body<T> for Scan<'_, T> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let xs = &self.xs[start..][..part.len()];
        let size = ROWS * self.n;
        let whole = part.len() / size * size;
        let (many, few) = part.split_at_mut(whole);
        for (ys, xs) in many.chunks_exact_mut(size).zip(xs.chunks_exact(size)) {
            self.rows::<ROWS>(xs, ys);
        }
        for (ys, xs) in few.chunks_exact_mut(self.n).zip(xs[whole..].chunks_exact(self.n)) {
            self.rows::<1>(xs, ys);
        }
    }
}

fn last(dims: &[usize]) -> usize {
    dims[dims.len() - 1]
}

impl FusedOp for CumsumOp {
    const NAME: &'static str = "cumsum";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let View { data: xs, dims } = inputs[0];
        let n = last(dims);
        let scan = Scan { xs, n, exclusive: self.exclusive, reverse: false, product: false };
        Ok((vec![(scan.run_all(), dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let n = last(pass.inputs[0].dims);
        let scan = |xs| Scan { xs, n, exclusive: self.exclusive, reverse: true, product: false };
        Ok(vec![pass.grads[0].map(|g| scan(g.data).run_all())])
    }
}

impl FusedOp for CumprodOp {
    const NAME: &'static str = "cumprod";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let View { data: xs, dims } = inputs[0];
        let n = last(dims);
        let scan = Scan { xs, n, exclusive: self.exclusive, reverse: false, product: true };
        Ok((vec![(scan.run_all(), dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let View { data: xs, dims } = pass.inputs[0];
        let mut dx = buffer(xs.len());
        if let (Some(g), false) = (pass.grads[0], xs.is_empty()) {
            let (n, exclusive) = (last(dims), self.exclusive);
            for_parts(&mut dx, n, &ProductGradient { xs, grads: g.data, n, exclusive });
        }
        Ok(vec![Some(dx)])
    }
}

/// The gradient of the cumulative product.
struct ProductGradient<'a, T> {
    xs: &'a [T],
    grads: &'a [T],
    n: usize,
    exclusive: bool,
}

impl<T: Real> Body<T> for ProductGradient<'_, T> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let n = self.n;
        let rows = self.xs[start..].chunks_exact(n).zip(self.grads[start..].chunks_exact(n));
        for (dx, (xs, grads)) in part.chunks_exact_mut(n).zip(rows) {
            // What the results from `i` on pass back, without the factors before `i`.
            let mut after = T::ZERO;
            for ((d, x), g) in dx.iter_mut().zip(xs).zip(grads).rev() {
                if self.exclusive {
                    // Result `i` itself lacks factor `i`.
                    *d = after;
                    after = *g + *x * after;
                } else {
                    *d = *g + after;
                    after = *x * *d;
                }
            }
            let mut before = T::ONE;
            for (d, x) in dx.iter_mut().zip(xs) {
                *d *= before;
                before *= *x;
            }
        }
    }
}
