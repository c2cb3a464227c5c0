//! Arithmetic on the rows of a tile. Everything is inlined into the loops that run at a SIMD level, and every sum has a fixed
//! order, so all levels give the same bits.

use crate::real::Real;
use crate::rng::Philox;

const LANES: usize = 32;

/// Folds lane by lane, then the lanes in halves.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices below a constant become whole vectors")]
fn fold<T: Real>(xs: &[T], start: T, f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = f(lanes[l], chunk[l]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, *x);
    }
    fold_lanes(&mut lanes, f)
}

/// Not inlined: else the compiler spreads the order of the halves over the loop before it, with a shuffle for each load.
#[inline(never)]
#[allow(clippy::needless_range_loop, reason = "as in `fold`")]
fn fold_lanes<T: Real>(lanes: &mut [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = f(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest of `low` and the numbers.
#[inline(always)]
pub(super) fn max<T: Real>(xs: &[T], low: T) -> T {
    fold(xs, low, |a, b| if b > a { b } else { a })
}

#[inline(always)]
pub(super) fn sum<T: Real>(xs: &[T]) -> T {
    fold(xs, T::ZERO, |a, b| a + b)
}

#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "as in `fold`")]
pub(super) fn dot<T: Real>(xs: &[T], ys: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let ((xs, x_rest), (ys, y_rest)) = (xs.as_chunks::<LANES>(), ys.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for l in 0..LANES {
            lanes[l] += x[l] * y[l];
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += *x * *y;
    }
    fold_lanes(&mut lanes, |a, b| a + b)
}

#[inline(always)]
pub(super) fn add<T: Real>(xs: &mut [T], ys: &[T]) {
    for (x, y) in xs.iter_mut().zip(ys) {
        *x += *y;
    }
}

#[inline(always)]
pub(super) fn multiply<T: Real>(xs: &mut [T], ys: &[T]) {
    for (x, y) in xs.iter_mut().zip(ys) {
        *x *= *y;
    }
}

#[inline(always)]
pub(super) fn scale<T: Real>(xs: &mut [T], factor: T) {
    for x in xs {
        *x *= factor;
    }
}

/// `x ← exp(x - shift)`.
#[inline(always)]
pub(super) fn exp<T: Real>(xs: &mut [T], shift: T) {
    for x in xs {
        *x = (*x - shift).exp_();
    }
}

/// `d ← p (d - delta)`.
#[inline(always)]
pub(super) fn softmax_gradient<T: Real>(d: &mut [T], p: &[T], delta: T) {
    for (d, p) in d.iter_mut().zip(p) {
        *d = *p * (*d - delta);
    }
}

/// Where a row of a tile and a row of a band of distances meet: places `tile..tile + len` and `band..band + len`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overlap {
    pub(super) tile: usize,
    pub(super) band: usize,
    pub(super) len: usize,
}

impl Overlap {
    /// Place `c` of a tile of `width` belongs to place `c + shift` of a band of `band` places.
    #[inline(always)]
    pub(super) fn new(width: usize, shift: isize, band: usize) -> Self {
        let tile = width.min(0.max(-shift) as usize);
        let end = width.min(0.max(band as isize - shift) as usize);
        let len = end.saturating_sub(tile);
        let band = if len == 0 { 0 } else { (tile as isize + shift) as usize };
        Self { tile, band, len }
    }

    /// Adds the band to the tile.
    #[inline(always)]
    pub(super) fn spread<T: Real>(self, tile: &mut [T], band: &[T]) {
        add(&mut tile[self.tile..self.tile + self.len], &band[self.band..self.band + self.len]);
    }

    /// Adds the tile to the band.
    #[inline(always)]
    pub(super) fn collect<T: Real>(self, tile: &[T], band: &mut [T]) {
        add(&mut band[self.band..self.band + self.len], &tile[self.tile..self.tile + self.len]);
    }

    /// [`Overlap::spread`], with the band's first and last number beyond its ends.
    #[inline(always)]
    pub(super) fn spread_clipped<T: Real>(self, tile: &mut [T], band: &[T]) {
        self.spread(tile, band);
        let (left, right) = (band[0], band[band.len() - 1]);
        let (before, after) = self.outside(tile.len());
        tile[before].iter_mut().for_each(|x| *x += left);
        tile[after].iter_mut().for_each(|x| *x += right);
    }

    /// [`Overlap::collect`], with what lies beyond the band's ends added to its first and last number.
    #[inline(always)]
    pub(super) fn collect_clipped<T: Real>(self, tile: &[T], band: &mut [T]) {
        self.collect(tile, band);
        let (before, after) = self.outside(tile.len());
        band[0] += sum(&tile[before]);
        band[band.len() - 1] += sum(&tile[after]);
    }

    /// The places of a tile below and above the band. Where they do not meet, `tile` is 0 (all above) or the width.
    #[inline(always)]
    fn outside(self, width: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        (0..self.tile, self.tile + self.len..width)
    }
}

/// Which weights are dropped. Four of them share a block of the generator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout<T> {
    rng: Philox,
    /// A weight is dropped where its 32-bit number lies below.
    threshold: u64,
    keep: T,
}

impl<T: Real> Dropout<T> {
    pub(super) fn new(p: f64, rng: Philox) -> Self {
        let keep = T::from_f64(if p < 1. { 1. / (1. - p) } else { 0. });
        Self { rng, threshold: (p * 4_294_967_296.0) as u64, keep }
    }

    /// The factors of weights `first..`: 0, or `1 / (1 - p)`.
    #[inline(always)]
    pub(super) fn fill(&self, first: u64, factors: &mut [T]) {
        let factor = |word: u32| if u64::from(word) < self.threshold { T::ZERO } else { self.keep };
        let skip = ((4 - first % 4) % 4).min(factors.len() as u64) as usize;
        let (head, body) = factors.split_at_mut(skip);
        if skip > 0 {
            let words = self.rng.block(first / 4);
            let from = (first % 4) as usize;
            for (f, word) in head.iter_mut().zip(&words[from..]) {
                *f = factor(*word);
            }
        }
        for (block, part) in (first.div_ceil(4)..).zip(body.chunks_mut(4)) {
            for (f, word) in part.iter_mut().zip(self.rng.block(block)) {
                *f = factor(word);
            }
        }
    }
}
