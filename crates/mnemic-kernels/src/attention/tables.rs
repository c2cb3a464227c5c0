//! Gradients of tables that all heads or batch rows may share: each job sums its own, and they are added in order.

use super::Sizes;
use super::backward::Wanted;
use super::cpu::{Band, Call};
use crate::matmul::{Mat, matmul};
use crate::real::Real;

/// Gradients of tables. One that is not wanted is empty.
#[derive(Default)]
pub(super) struct Tables<T> {
    /// `(heads, n_q + n_k - 1)`.
    pub(super) distance: Vec<T>,
    /// `(heads or 1, l, d)`.
    pub(super) music: Vec<T>,
    /// `(places, d)`.
    pub(super) shaw_keys: Vec<T>,
    /// `(places, d_v)`.
    pub(super) shaw_values: Vec<T>,
}

impl<T: Real> Tables<T> {
    /// Zeros, for the query heads of one key-value head.
    pub(super) fn new(call: &Call<'_, T>, wanted: Wanted) -> Self {
        Self::zeros(call, wanted, call.sizes.h / call.sizes.h_kv)
    }

    fn zeros(call: &Call<'_, T>, wanted: Wanted, heads: usize) -> Self {
        let Sizes { d, d_v, .. } = call.sizes;
        let zeros = |wanted: bool, n: usize| vec![T::ZERO; if wanted { n } else { 0 }];
        let music = call.music.as_ref().map_or(0, |m| heads.min(m.heads) * m.l * d);
        let places = call.shaw.map_or(0, |s| s.rows);
        Self {
            distance: zeros(wanted.bias && call.full.is_none(), heads * distances(call)),
            music: zeros(wanted.relative_keys, music),
            shaw_keys: zeros(wanted.relative_keys, places * d),
            shaw_values: zeros(wanted.relative_values, places * d_v),
        }
    }

    /// The gradients of all heads from those of each job; `jobs` of one key-value head are neighbours.
    pub(super) fn sum(call: &Call<'_, T>, wanted: Wanted, jobs: &[Self]) -> Self {
        let Sizes { b, h, h_kv, d, .. } = call.sizes;
        let mut all = Self::zeros(call, wanted, h);
        let shares = (jobs.len() / (b * h_kv).max(1)).max(1);
        for (i, job) in jobs.iter().enumerate() {
            let head = i / shares % h_kv * (h / h_kv);
            let music = match &call.music {
                Some(music) if music.heads > 1 => head * music.l * d,
                _ => 0,
            };
            add(&mut all.distance, head * distances(call), &job.distance);
            add(&mut all.music, music, &job.music);
            add(&mut all.shaw_keys, 0, &job.shaw_keys);
            add(&mut all.shaw_values, 0, &job.shaw_values);
        }
        all
    }

    /// The distances of the group's head `member`; empty where not wanted.
    pub(super) fn distance_row(&mut self, call: &Call<'_, T>, member: usize) -> &mut [T] {
        let n = distances(call);
        if self.distance.is_empty() { &mut [] } else { &mut self.distance[member * n..][..n] }
    }

    /// The rows of a band; empty where not wanted.
    pub(super) fn music_rows(
        &mut self,
        call: &Call<'_, T>,
        member: usize,
        band: &Band,
    ) -> &mut [T] {
        let (Some(music), false) = (&call.music, self.music.is_empty()) else { return &mut [] };
        let table = if music.heads == 1 { 0 } else { member };
        let first = table * music.l;
        &mut self.music
            [(first + band.range.start) * call.sizes.d..(first + band.range.end) * call.sizes.d]
    }

    /// Adds one head's products for Shaw's tables: `(sums, operand)` of the keys and of the values, `(n_q, places)` and `(n_q, ·)`.
    pub(super) fn finish_shaw(
        &mut self,
        call: &Call<'_, T>,
        places: usize,
        keys: (&[T], &[T]),
        values: (&[T], &[T]),
    ) {
        let Sizes { n_q, d, d_v, .. } = call.sizes;
        let product = |out: &mut [T], (sums, operand): (&[T], &[T]), d: usize| {
            if !out.is_empty() {
                let sums = Mat { data: sums, row: 1, col: places };
                let operand = Mat { data: operand, row: d, col: 1 };
                let none = gemm::Parallelism::None;
                matmul((places, d, n_q), out, d, true, sums, operand, none);
            }
        };
        product(&mut self.shaw_keys, keys, d);
        product(&mut self.shaw_values, values, d_v);
    }
}

fn distances<T: Real>(call: &Call<'_, T>) -> usize {
    (call.sizes.n_q + call.sizes.n_k).saturating_sub(1)
}

fn add<T: Real>(sum: &mut [T], at: usize, part: &[T]) {
    if !part.is_empty() {
        sum[at..at + part.len()].iter_mut().zip(part).for_each(|(s, x)| *s += *x);
    }
}
