//! The fused CPU path: 64 words of the stream at a time, compared and multiplied in one pass.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Body, Real, buffer, for_parts};
use crate::rng::{LANES, Philox};

pub(super) struct DropoutOp {
    rng: Philox,
    /// Words below it drop their element. At `p >= 1`, where it does not fit, `keep` is 0.
    threshold: u32,
    keep: f64,
}

impl DropoutOp {
    pub(super) fn new(p: f64, rng: Philox) -> Self {
        let threshold = (p * 4_294_967_296.0) as u32;
        Self { rng, threshold, keep: if p >= 1. { 0. } else { 1. / (1. - p) } }
    }

    /// `xs` times the mask.
    fn mask<T: Real>(&self, xs: &[T]) -> Vec<T> {
        let mut ys = buffer(xs.len());
        for_parts(&mut ys, WORDS, &Masked { op: self, xs });
        ys
    }
}

impl FusedOp for DropoutOp {
    const NAME: &'static str = "dropout";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        Ok((vec![(self.mask(inputs[0].data), inputs[0].dims.to_vec())], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        Ok(vec![pass.grads[0].map(|g| self.mask(g.data))])
    }
}

/// Words drawn at a time.
const WORDS: usize = 4 * LANES;

struct Masked<'a, T> {
    op: &'a DropoutOp,
    xs: &'a [T],
}

impl<T: Real> Body<T> for Masked<'_, T> {
    #[inline(always)]
    fn run(&self, start: usize, part: &mut [T]) {
        let (threshold, keep) = (self.op.threshold, T::of(self.op.keep));
        let xs = &self.xs[start..][..part.len()];
        // Parts begin at multiples of `WORDS`, so a block of the stream is never cut.
        let mut block = start as u64 / 4;
        for (ys, xs) in part.chunks_mut(WORDS).zip(xs.chunks(WORDS)) {
            let words = self.op.rng.blocks(block);
            for ((y, x), w) in ys.iter_mut().zip(xs).zip(&words) {
                // A product also where dropped: what is not a number stays so.
                *y = *x * if *w < threshold { T::ZERO } else { keep };
            }
            block += LANES as u64;
        }
    }
}
