//! Sixteen numbers at a time, for reductions and gathers, which the compiler does not vectorise from plain loops.
//!
//! Everything is `#[inline(always)]`, to be compiled for the SIMD level of the caller, and of a fixed order, so that every level
//! gives the same bits.

use crate::real::Real;

/// One vector of AVX-512 in 32 bits; two or four of a narrower level or of 64 bits.
pub(crate) const LANES: usize = 16;

/// Sixteen numbers, aligned so that no load of them straddles two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Lanes<T>(pub(crate) [T; LANES]);

impl<T: Real> Lanes<T> {
    #[inline(always)]
    pub(crate) fn splat(x: T) -> Self {
        Self([x; LANES])
    }

    /// The numbers of `data` from `start` on; zeros past its end.
    #[inline(always)]
    pub(crate) fn load(data: &[T], start: usize) -> Self {
        match data.get(start..).and_then(|rest| rest.first_chunk::<LANES>()) {
            Some(whole) => Self(*whole),
            None => Self::load_end(data, start),
        }
    }

    #[cold]
    fn load_end(data: &[T], start: usize) -> Self {
        let mut lanes = [T::ZERO; LANES];
        let rest = data.get(start..).unwrap_or_default();
        lanes.iter_mut().zip(rest).for_each(|(l, x)| *l = *x);
        Self(lanes)
    }

    /// Writes all lanes that lie inside `out`. Rows written in order may so spill over into the next, not yet written one.
    #[inline(always)]
    pub(crate) fn store(self, out: &mut [T], start: usize) {
        match out.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<LANES>()) {
            Some(whole) => *whole = self.0,
            None => self.store_end(out, start),
        }
    }

    #[cold]
    fn store_end(self, out: &mut [T], start: usize) {
        let rest = out.get_mut(start..).unwrap_or_default();
        rest.iter_mut().zip(self.0).for_each(|(o, x)| *o = x);
    }

    // Loops over one array, not `array::from_fn`: these the compiler turns into one vector operation.

    #[inline(always)]
    pub(crate) fn zip(mut self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        for j in 0..LANES {
            self.0[j] = f(self.0[j], other.0[j]);
        }
        self
    }

    #[inline(always)]
    pub(crate) fn map(mut self, f: impl Fn(T) -> T) -> Self {
        for j in 0..LANES {
            self.0[j] = f(self.0[j]);
        }
        self
    }

    /// `self + a b`
    #[inline(always)]
    pub(crate) fn add_product(mut self, a: Self, b: Self) -> Self {
        for j in 0..LANES {
            self.0[j] += a.0[j] * b.0[j];
        }
        self
    }

    /// The sum, by halves.
    #[inline(always)]
    pub(crate) fn sum(self) -> T {
        let mut x = self.0;
        for j in 0..8 {
            x[j] += x[j + 8];
        }
        for j in 0..4 {
            x[j] += x[j + 4];
        }
        (x[0] + x[2]) + (x[1] + x[3])
    }
}

/// Vectors that hold a row of `d` numbers.
pub(crate) fn chunks(d: usize) -> usize {
    d.div_ceil(LANES)
}

/// Rows of `d` numbers, each filled up with zeros to whole vectors.
pub(crate) fn pack<T: Real>(data: &[T], d: usize) -> Vec<Lanes<T>> {
    let mut packed = vec![Lanes::splat(T::ZERO); data.len() / d.max(1) * chunks(d)];
    for (to, from) in packed.chunks_mut(chunks(d).max(1)).zip(data.chunks(d.max(1))) {
        for (to, from) in to.iter_mut().zip(from.chunks(LANES)) {
            to.0[..from.len()].copy_from_slice(from);
        }
    }
    packed
}

/// Takes the padding off again: the first `d` numbers of every `chunks(d)` vectors.
pub(crate) fn unpack<T: Real>(packed: &[Lanes<T>], d: usize) -> Vec<T> {
    let mut data = Vec::with_capacity(packed.len() / chunks(d).max(1) * d);
    for row in packed.chunks(chunks(d).max(1)) {
        for (c, lanes) in row.iter().enumerate() {
            data.extend_from_slice(&lanes.0[..LANES.min(d - c * LANES)]);
        }
    }
    data
}

/// The inner product of two rows of one length. Four sums run side by side, since an addition must wait for the one before.
#[inline(always)]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [Lanes::splat(T::ZERO); 4];
    let (a, a_last) = a.as_chunks::<4>();
    let (b, b_last) = b.as_chunks::<4>();
    for (a, b) in a.iter().zip(b) {
        for k in 0..4 {
            sums[k] = sums[k].add_product(Lanes(a[k]), Lanes(b[k]));
        }
    }
    let [s0, s1, s2, s3] = sums;
    let add = |a: T, b: T| a + b;
    let mut sum = s0.zip(s2, add).zip(s1.zip(s3, add), add);
    for (a, b) in a_last.iter().zip(b_last) {
        sum = sum.add_product(Lanes(*a), Lanes(*b));
    }
    let (a, a_rest) = a_rest.as_chunks::<4>();
    let (b, b_rest) = b_rest.as_chunks::<4>();
    let mut small = [T::ZERO; 4];
    for (a, b) in a.iter().zip(b) {
        for j in 0..4 {
            small[j] += a[j] * b[j];
        }
    }
    for (j, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        small[j] += *a * *b;
    }
    sum.sum() + ((small[0] + small[2]) + (small[1] + small[3]))
}

/// `out += scale x`
#[inline(always)]
pub(crate) fn add_scaled<T: Real>(out: &mut [T], x: &[T], scale: T) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += scale * *x);
}

/// `out = scale x`
#[inline(always)]
pub(crate) fn set_scaled<T: Real>(out: &mut [T], x: &[T], scale: T) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o = scale * *x);
}

/// The parts of `size` numbers of a gradient that may not be wanted, one after the other.
pub(crate) fn parts<'a, T>(
    gradient: &'a mut Option<Vec<T>>,
    size: usize,
) -> impl FnMut() -> Option<&'a mut [T]> {
    let mut parts = gradient.as_deref_mut().map(|g| g.chunks_mut(size));
    move || parts.as_mut().and_then(Iterator::next)
}

/// Whether place `i` is kept: everywhere where there is no mask.
#[inline(always)]
pub(crate) fn kept(mask: Option<&[u8]>, i: usize) -> bool {
    mask.is_none_or(|m| m[i] != 0)
}

/// Turns scores into their softmax over the places kept; the others become 0, all of them where none is kept. The logarithm of
/// the sum of exponentials is returned.
#[inline(always)]
pub(crate) fn softmax_row<T: Real>(scores: &mut [T], mask: Option<&[u8]>) -> T {
    let none = T::from_f64(f64::NEG_INFINITY);
    let mut max = none;
    let mut any = false;
    for (i, x) in scores.iter().enumerate() {
        if kept(mask, i) {
            any = true;
            max = if *x > max { *x } else { max };
        }
    }
    if !any {
        scores.fill(T::ZERO);
        return none;
    }
    scores.iter_mut().for_each(|x| *x = (*x - max).exp_());
    if let Some(mask) = mask {
        scores.iter_mut().zip(mask).for_each(|(x, m)| *x = if *m != 0 { *x } else { T::ZERO });
    }
    let mut lanes = Lanes::splat(T::ZERO);
    let (whole, rest) = scores.as_chunks::<LANES>();
    for chunk in whole {
        lanes = lanes.zip(Lanes(*chunk), |a, b| a + b);
    }
    lanes.0.iter_mut().zip(rest).for_each(|(l, x)| *l += *x);
    let sum = lanes.sum();
    let scale = T::ONE / sum;
    scores.iter_mut().for_each(|x| *x *= scale);
    max + T::from_f64(sum.to_f64().ln())
}

/// The gradient of the scores from that of their softmax `p`, in place: `p ∘ (g - Σ p g)`. Places not kept get 0.
#[inline(always)]
pub(crate) fn softmax_row_backward<T: Real>(p: &[T], g: &mut [T], mask: Option<&[u8]>) {
    if let Some(mask) = mask {
        g.iter_mut().zip(mask).for_each(|(g, m)| *g = if *m != 0 { *g } else { T::ZERO });
    }
    let sum = dot(p, g);
    g.iter_mut().zip(p).for_each(|(g, p)| *g = *p * (*g - sum));
}
