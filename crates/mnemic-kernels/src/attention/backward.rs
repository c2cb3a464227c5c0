//! The backward pass: weights are made again from `log_sum_exp`, a tile at a time, and all gradients of a tile follow in the same
//! visit (five products). With `D_i = Σ_c dO_ic O_ic` less the gradient of `log_sum_exp_i`:
//!
//! `dV = P̃ᵀ dO`, `dP = Z ∘ (dO Vᵀ)`, `dS = P ∘ (dP - D)`, `dQ = τ dS K`, `dK = τ dSᵀ Q`, where `Z` are the factors of dropout and
//! `P̃ = Z ∘ P`.
//!
//! A task owns the gradients of the keys and values of one key-value head and visits all its queries. Where there are few such
//! heads, the keys are shared out further, and each share adds up its own gradients of the queries, summed at the end in
//! order.

use std::ops::Range;

use candle_core::Result;

use super::Sizes;
use super::cpu::{COLS, Call, for_each, full_slice, pieces};
use super::job::Job;
use super::tables::Tables;
use crate::fused::{Backward, View};
use crate::real::{Real, buffer};

/// With fewer tasks than this, keys are shared out. It is no property of the machine, so that results do not depend on it.
const TASKS: usize = 8;

/// Which gradients are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) q: bool,
    pub(super) k: bool,
    pub(super) v: bool,
    pub(super) bias: bool,
    pub(super) relative_keys: bool,
    pub(super) relative_values: bool,
}

impl Wanted {
    fn new<T: Real>(call: &Call<'_, T>, wanted: &[bool], bias_tensor: bool) -> Self {
        let first = 3 + usize::from(bias_tensor);
        let at = |i: usize| wanted.get(i).copied().unwrap_or(false);
        Self {
            q: at(0),
            k: at(1),
            v: at(2),
            bias: bias_tensor && at(3),
            relative_keys: at(first),
            relative_values: call.shaw.is_some() && at(first + 1),
        }
    }
}

/// What comes from outside for all heads.
pub(super) struct Grads<'a, T> {
    pub(super) output: &'a [T],
    pub(super) log_sum_exp: &'a [T],
    /// `dO (b, h, n_q, d_v)`.
    pub(super) d_output: &'a [T],
    pub(super) d_log_sum_exp: Option<View<'a, T>>,
    pub(super) wanted: Wanted,
}

/// The gradients of the operands, in their order.
pub(super) fn run<T: Real>(
    call: &Call<'_, T>,
    pass: &Backward<'_, T, ()>,
) -> Result<Vec<Option<Vec<T>>>> {
    let Sizes { h, h_kv, n_q, n_k, d, d_v, .. } = call.sizes;
    let bias_tensor = has_bias_operand(call, pass.inputs);
    let wanted = Wanted::new(call, pass.wanted, bias_tensor);
    let zeros;
    let d_output = match pass.grads[0] {
        Some(grad) => grad.data,
        None => {
            zeros = vec![T::ZERO; pass.outputs[0].data.len()];
            &zeros
        }
    };
    let grads = Grads {
        output: pass.outputs[0].data,
        log_sum_exp: pass.outputs[1].data,
        d_output,
        d_log_sum_exp: pass.grads[1],
        wanted,
    };
    let full = call.full.filter(|_| wanted.bias);
    let mut results = Results::new(call, wanted, full);
    let work = n_q * n_k.div_ceil(results.shares) * (h / h_kv) * (d + d_v);
    let (jobs, d_full) = results.jobs(call, wanted);
    for_each(owners(call, full, jobs, d_full), work, |(jobs, mut d_full): Task<'_, T>| {
        for job in jobs {
            job.run(call, &grads, &mut d_full);
        }
    });
    Ok(results.finish(call, wanted, bias_tensor))
}

/// The gradients of all operands. Those that are not wanted are empty.
struct Results<T> {
    /// `(shares, b, h, n_q, d)`.
    d_q: Vec<T>,
    d_k: Vec<T>,
    d_v: Vec<T>,
    full: Vec<T>,
    /// One for each key-value head and share.
    tables: Vec<Tables<T>>,
    shares: usize,
}

/// `n`, or 0 for what is not wanted.
fn size(wanted: bool, n: usize) -> usize {
    if wanted { n } else { 0 }
}

impl<T: Real> Results<T> {
    fn new(call: &Call<'_, T>, wanted: Wanted, full: Option<View<'_, T>>) -> Self {
        let Sizes { b, h, h_kv, n_q, n_k, d, d_v } = call.sizes;
        let shares = shares(&call.sizes, full.is_some());
        Self {
            d_q: buffer(size(wanted.q, shares * b * h * n_q * d)),
            d_k: buffer(size(wanted.k, b * h_kv * n_k * d)),
            d_v: buffer(size(wanted.v, b * h_kv * n_k * d_v)),
            full: vec![T::ZERO; full.map_or(0, |f| f.data.len())],
            tables: (0..shares * b * h_kv).map(|_| Tables::default()).collect(),
            shares,
        }
    }

    /// All jobs, those of one key-value head next to each other, and the gradient of a full bias.
    fn jobs(&mut self, call: &Call<'_, T>, wanted: Wanted) -> (Vec<Job<'_, T>>, &mut [T]) {
        let Sizes { b, h, h_kv, n_q, n_k, d, d_v } = call.sizes;
        let (heads, shares) = (b * h_kv, self.shares);
        let mut q = pieces(&mut self.d_q, shares * heads, size(wanted.q, h / h_kv * n_q * d));
        let k = pieces(&mut self.d_k, heads, size(wanted.k, n_k * d));
        let v = pieces(&mut self.d_v, heads, size(wanted.v, n_k * d_v));
        let mut tables = self.tables.iter_mut();
        let mut jobs = Vec::with_capacity(shares * heads);
        for (kv, (mut k, mut v)) in k.into_iter().zip(v).enumerate() {
            for (share, tables) in (0..shares).zip(&mut tables) {
                let keys = key_share(n_k, shares, share);
                let (d_k, rest) = k.split_at_mut(size(wanted.k, keys.len() * d));
                k = rest;
                let (d_v, rest) = v.split_at_mut(size(wanted.v, keys.len() * d_v));
                v = rest;
                let d_q = std::mem::take(&mut q[share * heads + kv]);
                jobs.push(Job { kv, keys, d_q, d_k, d_v, tables });
            }
        }
        (jobs, &mut self.full)
    }

    /// Sums what was shared out, and puts all in the operands' order.
    fn finish(
        mut self,
        call: &Call<'_, T>,
        wanted: Wanted,
        bias_tensor: bool,
    ) -> Vec<Option<Vec<T>>> {
        if wanted.q {
            add_shares(&mut self.d_q, self.shares, call.q.len());
        }
        let table = Tables::sum(call, wanted, &self.tables);
        let mut all = vec![Some(self.d_q), Some(self.d_k), Some(self.d_v)];
        if bias_tensor {
            all.push(Some(if call.full.is_some() { self.full } else { table.distance }));
        }
        if call.music.is_some() {
            all.push(Some(table.music));
        }
        if let Some(shaw) = call.shaw {
            all.push(Some(table.shaw_keys));
            if shaw.values.is_some() {
                all.push(Some(table.shaw_values));
            }
        }
        all
    }
}

/// Whether the bias is an operand, not made from ALiBi's slopes.
fn has_bias_operand<T: Real>(call: &Call<'_, T>, inputs: &[View<'_, T>]) -> bool {
    let relative = usize::from(call.music.is_some())
        + call.shaw.map_or(0, |s| 1 + usize::from(s.values.is_some()));
    inputs.len() > 3 + relative
}

/// How many shares the keys are cut into.
fn shares(sizes: &Sizes, full: bool) -> usize {
    let heads = (sizes.b * sizes.h_kv).max(1);
    // The gradient of a whole bias is written in place, by one task for each of its heads.
    if full { 1 } else { (TASKS / heads).clamp(1, sizes.n_k.div_ceil(COLS).max(1)) }
}

/// The keys of a share: whole blocks.
fn key_share(n_k: usize, shares: usize, share: usize) -> Range<usize> {
    let blocks = n_k.div_ceil(COLS);
    let at = |s: usize| (blocks * s / shares * COLS).min(n_k);
    at(share)..at(share + 1)
}

/// Sums the shares into the first, in order.
fn add_shares<T: Real>(xs: &mut Vec<T>, shares: usize, n: usize) {
    for share in 1..shares {
        let (sum, rest) = xs.split_at_mut(n);
        let other = &rest[(share - 1) * n..share * n];
        sum.iter_mut().zip(other).for_each(|(s, x)| *s += *x);
    }
    xs.truncate(n);
}

type Task<'a, T> = (Vec<Job<'a, T>>, Vec<(usize, &'a mut [T])>);

/// The jobs as tasks. Jobs that add to the same part of a full bias's gradient form one task, which owns that part.
fn owners<'a, T: Real>(
    call: &Call<'_, T>,
    full: Option<View<'_, T>>,
    jobs: Vec<Job<'a, T>>,
    d_full: &'a mut [T],
) -> Vec<Task<'a, T>> {
    let Sizes { h, h_kv, n_q, n_k, .. } = call.sizes;
    let Some(full) = full else { return jobs.into_iter().map(|j| (vec![j], vec![])).collect() };
    let group = h / h_kv;
    let slices = full.dims[0] * full.dims[1];
    // A job's slices belong to the task of its first one; heads of a group are neighbours.
    let first = |slice: usize| if full.dims[1] == 1 { slice } else { slice / group * group };
    let mut tasks: Vec<Task<'a, T>> = (0..slices).map(|_| (vec![], vec![])).collect();
    for (slice, part) in pieces(d_full, slices, n_q * n_k).into_iter().enumerate() {
        tasks[first(slice)].1.push((slice, part));
    }
    for job in jobs {
        let slice = full_slice(full.dims, job.kv / h_kv, job.kv % h_kv * group);
        tasks[first(slice)].0.push(job);
    }
    tasks.retain(|(jobs, _)| !jobs.is_empty());
    tasks
}
