//! The sums over all pairs of a query and a key of one row of the batch, sixteen units at a time.

use crate::lanes::{LANES, Lanes, chunks, dot, kept};
use crate::real::Real;

/// `tanh(q + k)` from what is prepared of each.
pub(super) trait Pair {
    fn prepare<T: Real>(x: T) -> T;
    /// The tanh and its derivative.
    fn tanh<T: Real>(q: T, k: T) -> (T, T);
}

/// From exponentials: `x = e^{2q} e^{2k}`, `tanh = 1 - 2 / (x + 1)`, `tanh' = 4 x / (x + 1)^2`.
pub(super) struct Exponentials;

/// Below this the exponentials and their products neither overflow nor become subnormal.
const LIMIT: f64 = 10.;

impl Pair for Exponentials {
    #[inline(always)]
    fn prepare<T: Real>(x: T) -> T {
        (x + x).exp_()
    }

    #[inline(always)]
    fn tanh<T: Real>(q: T, k: T) -> (T, T) {
        let x = q * k;
        let r = (T::ONE + T::ONE) / (x + T::ONE);
        (T::ONE - r, x * r * r)
    }
}

/// For any numbers.
pub(super) struct Direct;

impl Pair for Direct {
    #[inline(always)]
    fn prepare<T: Real>(x: T) -> T {
        x
    }

    #[inline(always)]
    fn tanh<T: Real>(q: T, k: T) -> (T, T) {
        let y = (q + k).tanh_();
        (y, T::ONE - y * y)
    }
}

/// Queries and keys of one row of the batch, `(t, d)` and `(s, d)`.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a, T> {
    pub(super) queries: &'a [T],
    pub(super) keys: &'a [T],
    pub(super) d: usize,
}

/// The queries and the keys that any pair uses.
pub(super) struct Used {
    pub(super) queries: Vec<bool>,
    pub(super) keys: Vec<bool>,
}

impl Used {
    pub(super) fn all(t: usize, s: usize) -> Self {
        Self { queries: vec![true; t], keys: vec![true; s] }
    }

    /// Whether all numbers in use are fit for [`Exponentials`].
    #[inline(always)]
    pub(super) fn small<T: Real>(&self, x: Operands<'_, T>) -> bool {
        let limit = T::from_f64(LIMIT);
        let small = |data: &[T], used: &[bool]| {
            data.chunks_exact(x.d).zip(used).all(|(row, used)| {
                // NaN is not below the limit.
                let fit = row.iter().map(|x| usize::from(x.abs_() <= limit)).sum::<usize>();
                !*used || fit == row.len()
            })
        };
        small(x.queries, &self.queries) && small(x.keys, &self.keys)
    }
}

/// What the forward pass needs for a row of the batch, used again for the next one.
pub(super) struct Scores<T> {
    /// Prepared, `(t, d)` and `(s, d)`.
    queries: Vec<T>,
    keys: Vec<T>,
    /// The tanh of one pair, `(d)`.
    pair: Vec<T>,
}

impl<T: Real> Scores<T> {
    pub(super) fn new(t: usize, s: usize, d: usize) -> Self {
        Self { queries: vec![T::ZERO; t * d], keys: vec![T::ZERO; s * d], pair: vec![T::ZERO; d] }
    }

    #[inline(always)]
    pub(super) fn prepare<P: Pair>(&mut self, x: Operands<'_, T>) {
        self.queries.iter_mut().zip(x.queries).for_each(|(y, x)| *y = P::prepare(*x));
        self.keys.iter_mut().zip(x.keys).for_each(|(y, x)| *y = P::prepare(*x));
    }

    /// `Σ_d v_d tanh(q_td + k_sd)` for all keys of query `t` that are kept; 0 for the others.
    #[inline(always)]
    pub(super) fn scores<P: Pair>(
        &mut self,
        t: usize,
        v: &[T],
        mask: Option<&[u8]>,
        out: &mut [T],
    ) {
        let d = v.len();
        let query = &self.queries[t * d..][..d];
        for (s, (out, key)) in out.iter_mut().zip(self.keys.chunks_exact(d)).enumerate() {
            if !kept(mask, s) {
                *out = T::ZERO;
                continue;
            }
            for ((y, q), k) in self.pair.iter_mut().zip(query).zip(key) {
                *y = P::tanh(*q, *k).0;
            }
            *out = dot(v, &self.pair);
        }
    }
}

/// What the backward pass needs for a row of the batch, used again for the next one.
pub(super) struct Sweep<T> {
    /// Prepared, `(chunks, t)` and `(chunks, s)`.
    queries: Vec<Lanes<T>>,
    keys: Vec<Lanes<T>>,
    /// `(s)`, for one chunk.
    d_keys: Vec<Lanes<T>>,
    t: usize,
}

/// Gradients of one row of the batch, those wanted; that of `v` in whole vectors.
pub(super) struct Gradients<'a, T> {
    pub(super) queries: Option<&'a mut [T]>,
    pub(super) keys: Option<&'a mut [T]>,
    pub(super) v: Option<&'a mut [Lanes<T>]>,
}

impl<T: Real> Sweep<T> {
    pub(super) fn new(t: usize, s: usize, d: usize) -> Self {
        let zeros = |n| vec![Lanes::splat(T::ZERO); n];
        Self { queries: zeros(chunks(d) * t), keys: zeros(chunks(d) * s), d_keys: zeros(s), t }
    }

    #[inline(always)]
    pub(super) fn prepare<P: Pair>(&mut self, x: Operands<'_, T>) {
        prepare::<P, T>(&mut self.queries, x.queries, x.d);
        prepare::<P, T>(&mut self.keys, x.keys, x.d);
    }

    /// The gradients from those of the scores, `d_scores (t, s)`, in one sweep over the pairs.
    ///
    /// `dq_td = v_d Σ_s g_ts tanh'`, `dk_sd = v_d Σ_t g_ts tanh'`, `dv_d = Σ_ts g_ts tanh`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "one index for four arrays of constant size")]
    pub(super) fn backward<P: Pair>(
        &mut self,
        d: usize,
        v: &[Lanes<T>],
        d_scores: &[T],
        mut out: Gradients<'_, T>,
    ) {
        let (n_t, n_s) = (self.t, self.d_keys.len());
        for (c, v) in v.iter().enumerate() {
            let keys = &self.keys[c * n_s..][..n_s];
            self.d_keys.fill(Lanes::splat(T::ZERO));
            let mut d_v = Lanes::splat(T::ZERO);
            for t in 0..n_t {
                let q = self.queries[c * n_t + t];
                let mut d_q = Lanes::splat(T::ZERO);
                let row = d_scores[t * n_s..][..n_s].iter().zip(keys);
                for ((g, k), d_k) in row.zip(&mut self.d_keys) {
                    if *g == T::ZERO {
                        continue;
                    }
                    let mut slope = [T::ZERO; LANES];
                    for j in 0..LANES {
                        let (tanh, derivative) = P::tanh(q.0[j], k.0[j]);
                        d_v.0[j] += *g * tanh;
                        slope[j] = *g * derivative;
                    }
                    d_q = d_q.zip(Lanes(slope), |a, b| a + b);
                    *d_k = d_k.zip(Lanes(slope), |a, b| a + b);
                }
                if let Some(out) = &mut out.queries {
                    put(out, t, c, d, d_q.zip(*v, |a, b| a * b));
                }
            }
            if let Some(out) = &mut out.keys {
                for (s, d_k) in self.d_keys.iter().enumerate() {
                    put(out, s, c, d, d_k.zip(*v, |a, b| a * b));
                }
            }
            if let Some(out) = &mut out.v {
                out[c] = d_v;
            }
        }
    }
}

/// Writes vector `c` of row `i`.
#[inline(always)]
fn put<T: Real>(out: &mut [T], i: usize, c: usize, d: usize, lanes: Lanes<T>) {
    let out = &mut out[i * d + c * LANES..(i + 1) * d];
    match out.first_chunk_mut::<LANES>() {
        Some(whole) => *whole = lanes.0,
        None => out.iter_mut().zip(lanes.0).for_each(|(o, x)| *o = x),
    }
}

/// `P::prepare` of rows of `d` numbers, to `(chunks, rows)`.
#[inline(always)]
fn prepare<P: Pair, T: Real>(out: &mut [Lanes<T>], data: &[T], d: usize) {
    let rows = data.len() / d;
    for (i, row) in data.chunks_exact(d).enumerate() {
        for c in 0..chunks(d) {
            out[c * rows + i] = Lanes::load(row, c * LANES).map(P::prepare);
        }
    }
}
