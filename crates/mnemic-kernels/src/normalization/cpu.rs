//! The fused CPU path. A row is read from memory once in each direction.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};
use crate::rows::{column_sums, map, map2, map3, sum, two_sums};
use crate::{simd, threads};

/// Operands: the rows, then the weight and the bias, where there are any.
pub(super) struct NormOp {
    /// Layer norm, not RMS norm.
    pub(super) centred: bool,
    pub(super) weight: bool,
    pub(super) bias: bool,
    pub(super) eps: f64,
}

/// A row's normalized numbers are `((x - mean) - rest) * scale`. The `rest` of the mean is what its rounding left out.
#[derive(Clone, Copy)]
pub(super) struct Stats<T> {
    mean: T,
    rest: T,
    scale: T,
}

impl<T: Real> Stats<T> {
    #[inline(always)]
    fn of(x: &[T], centred: bool, eps: f64) -> Self {
        let share = T::from_f64(1. / x.len() as f64);
        let scale = |square: T| T::from_f64(1. / (square.to_f64() + eps).sqrt());
        if !centred {
            let square = sum(x, |x| x * x) * share;
            return Self { mean: T::ZERO, rest: T::ZERO, scale: scale(square) };
        }
        let mean = sum(x, |x| x) * share;
        let square = |x: T| (x - mean) * (x - mean);
        let (rest, square) = two_sums([x, x, x], |x, _, _| x - mean, |x, _, _| square(x));
        // Hardly anything is taken off: the rest is within the rounding of the mean. Of equal numbers only the rounding of the squares
        // is left, of either sign; real numbers do not lie as near to each other as the floor.
        let rest = rest * share;
        let (variance, floor) = (square * share - rest * rest, rest * rest * T::from_f64(1e-6));
        let variance = if variance > floor { variance } else { floor };
        Self { mean, rest, scale: scale(variance) }
    }

    #[inline(always)]
    fn normalized(self, x: T) -> T {
        (x - self.mean - self.rest) * self.scale
    }
}

impl NormOp {
    fn weight<'a, T>(&self, inputs: &[View<'a, T>]) -> Option<&'a [T]> {
        if self.weight { inputs.get(1).map(|w| w.data) } else { None }
    }
}

fn width(x: &View<'_, impl Real>) -> usize {
    x.dims.last().copied().unwrap_or(1)
}

impl FusedOp for NormOp {
    const NAME: &'static str = "mnemic-norm";
    type Saved<T: Real> = Vec<Stats<T>>;

    fn forward<T: Real>(
        &self,
        inputs: &[View<'_, T>],
        _: bool,
    ) -> Result<(Vec<Array<T>>, Vec<Stats<T>>)> {
        let x = inputs[0];
        let width = width(&x);
        let bias = if self.bias { inputs.last().map(|b| b.data) } else { None };
        let rows = x.data.len() / width.max(1);
        let mut stats = vec![Stats { mean: T::ZERO, rest: T::ZERO, scale: T::ZERO }; rows];
        let mut out = buffer(x.data.len());
        if rows > 0 {
            let share = threads::rows_per_task(rows, width);
            let parts = out.chunks_mut(share * width).zip(stats.chunks_mut(share));
            let parts = parts.zip(x.data.chunks(share * width)).collect();
            let (level, weight) = (simd::level(), self.weight(inputs));
            threads::for_each(parts, |((out, stats), x)| {
                level.dispatch(Forward { op: self, x, weight, bias, out, stats });
            });
        }
        Ok((vec![(out, x.dims.to_vec())], stats))
    }

    fn backward<T: Real>(
        &self,
        pass: Backward<'_, T, Vec<Stats<T>>>,
    ) -> Result<Vec<Option<Vec<T>>>> {
        let Some(grad) = pass.grads[0] else { return Ok(vec![]) };
        let (weight, bias) = (
            self.weight && pass.wanted[1],
            self.bias && pass.wanted.last().copied().unwrap_or(false),
        );
        let pass = Gradient {
            x: pass.inputs[0].data,
            dy: grad.data,
            width: width(&pass.inputs[0]),
            weight: self.weight(pass.inputs),
            stats: pass.saved,
            centred: self.centred,
            wanted: [pass.wanted[0], weight, bias],
        };
        let [dx, d_weight, d_bias] = pass.run();
        let mut results = vec![dx];
        if self.weight {
            results.push(d_weight);
        }
        if self.bias {
            results.push(d_bias);
        }
        Ok(results)
    }
}

struct Forward<'a, T> {
    op: &'a NormOp,
    x: &'a [T],
    weight: Option<&'a [T]>,
    bias: Option<&'a [T]>,
    out: &'a mut [T],
    stats: &'a mut [Stats<T>],
}

impl<T: Real> pulp::WithSimd for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let width = self.x.len() / self.stats.len();
        let rows = self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        for ((x, y), kept) in rows.zip(self.stats) {
            let stats = Stats::of(x, self.op.centred, self.op.eps);
            match (self.weight, self.bias) {
                (None, None) => map(y, x, |x| stats.normalized(x)),
                (Some(w), None) => map2(y, x, w, |x, w| stats.normalized(x) * w),
                (None, Some(b)) => map2(y, x, b, |x, b| stats.normalized(x) + b),
                (Some(w), Some(b)) => map3(y, x, w, b, |x, w, b| stats.normalized(x) * w + b),
            }
            *kept = stats;
        }
    }
}

/// The backward pass: with `g = dy ∘ weight` and the normalized row `z`, `dx = scale (g - mean(g) - z mean(g ∘ z))`, without `mean(g)`
/// for RMS norm; `d_weight = Σ dy ∘ z` and `d_bias = Σ dy` over the rows.
struct Gradient<'a, T> {
    x: &'a [T],
    dy: &'a [T],
    width: usize,
    weight: Option<&'a [T]>,
    stats: &'a [Stats<T>],
    centred: bool,
    /// Whether rows, weight and bias need a gradient.
    wanted: [bool; 3],
}

/// Blocks of rows whose parts of the weight's and the bias's gradient are summed apart, at most.
const BLOCKS: usize = 64;

impl<T: Real> Gradient<'_, T> {
    fn run(&self) -> [Option<Vec<T>>; 3] {
        let (width, rows) = (self.width, self.stats.len());
        // No thread's business: the blocks are part of the arithmetic.
        let block = rows.div_ceil(BLOCKS).max((1usize << 14).div_ceil(width.max(1)));
        let blocks = rows.div_ceil(block);
        let mut dx = self.wanted[0].then(|| buffer(self.x.len()));
        let mut parts = self.wanted.map(|wanted| if wanted { width * blocks } else { 0 });
        parts[0] = 0;
        let [_, mut d_weight, mut d_bias] = parts.map(|n| vec![T::ZERO; n]);
        let level = simd::level();
        let mut dx_parts = dx.iter_mut().flat_map(|dx| dx.chunks_mut((block * width).max(1)));
        let mut d_weights = d_weight.chunks_mut(width.max(1));
        let mut d_biases = d_bias.chunks_mut(width.max(1));
        let tasks = (0..blocks).map(|i| Block {
            pass: self,
            rows: i * block..rows.min((i + 1) * block),
            dx: dx_parts.next(),
            d_weight: d_weights.next(),
            d_bias: d_biases.next(),
        });
        threads::for_each(tasks.collect(), |task| level.dispatch(task));
        let total = |parts: &[T], wanted: bool| wanted.then(|| column_sums(parts, width));
        let (d_weight, d_bias) = (total(&d_weight, self.wanted[1]), total(&d_bias, self.wanted[2]));
        [dx, d_weight, d_bias]
    }
}

struct Block<'a, T> {
    pass: &'a Gradient<'a, T>,
    rows: std::ops::Range<usize>,
    dx: Option<&'a mut [T]>,
    d_weight: Option<&'a mut [T]>,
    d_bias: Option<&'a mut [T]>,
}

impl<T: Real> pulp::WithSimd for Block<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let Gradient { x, dy, width, weight, stats, centred, .. } = *self.pass;
        for (k, row) in self.rows.enumerate() {
            let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
            let stats = stats[row];
            if let Some(dx) = &mut self.dx {
                row_gradient(&mut dx[k * width..][..width], x, dy, weight, stats, centred);
            }
            match (&mut self.d_weight, &mut self.d_bias) {
                (Some(d_weight), Some(d_bias)) => add_both(d_weight, d_bias, x, dy, stats),
                (Some(d_weight), None) => add_product(d_weight, x, dy, stats),
                (None, Some(d_bias)) => d_bias.iter_mut().zip(dy).for_each(|(d, dy)| *d += *dy),
                (None, None) => {}
            }
        }
    }
}

#[inline(always)]
fn row_gradient<T: Real>(
    dx: &mut [T],
    x: &[T],
    dy: &[T],
    weight: Option<&[T]>,
    stats: Stats<T>,
    centred: bool,
) {
    let share = T::from_f64(1. / x.len() as f64);
    let z = |x| stats.normalized(x);
    let (plain, product) = match weight {
        None => two_sums([x, dy, dy], |_, dy, _| dy, |x, dy, _| z(x) * dy),
        Some(w) => two_sums([x, dy, w], |_, dy, w| dy * w, |x, dy, w| z(x) * (dy * w)),
    };
    let plain = if centred { plain * share } else { T::ZERO };
    let (product, scale) = (product * share, stats.scale);
    match weight {
        None => map2(dx, x, dy, |x, dy| (dy - plain - z(x) * product) * scale),
        Some(w) => map3(dx, x, dy, w, |x, dy, w| (dy * w - plain - z(x) * product) * scale),
    }
}

#[inline(always)]
fn add_both<T: Real>(d_weight: &mut [T], d_bias: &mut [T], x: &[T], dy: &[T], stats: Stats<T>) {
    for (((d, e), x), dy) in d_weight.iter_mut().zip(d_bias).zip(x).zip(dy) {
        *d += stats.normalized(*x) * *dy;
        *e += *dy;
    }
}

#[inline(always)]
fn add_product<T: Real>(d_weight: &mut [T], x: &[T], dy: &[T], stats: Stats<T>) {
    for ((d, x), dy) in d_weight.iter_mut().zip(x).zip(dy) {
        *d += stats.normalized(*x) * *dy;
    }
}
