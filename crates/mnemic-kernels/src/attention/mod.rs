//! Scaled dot-product attention with masks, biases, relative positions and dropout.
//!
//! For a query `q_i` and the keys `k_j` that it may see,
//! `s_ij = τ (q_i·k_j + relative_ij) + bias_ij`, `p_i = softmax(s_i)`, `output_i = Σ_j p_ij v_j`, and
//! `log_sum_exp_i = ln Σ_j exp(s_ij)`.
//!
//! The scores never stand in memory as a whole: they are made a tile at a time, with a running maximum and sum of each row
//! (Milakov & Gimelshein 2018; Dao et al. 2022, "FlashAttention"), and again in the backward pass from `log_sum_exp`. So memory
//! is linear in the length. The result is exact, not an approximation.
//!
//! Letters: b batch, h query heads, `h_kv` key-value heads, `n_q` queries, `n_k` keys, d and `d_v` widths, `δ = n_k - n_q`. Query `i`
//! stands at position `i + δ` of the keys: the last query sits on the last key, as when a decoder reads with a cache.
//!
//! A row that sees no key has output 0, `log_sum_exp` -inf and no gradient.

mod backward;
mod cpu;
#[cfg(cuda_path)]
mod cuda;
mod differentiate;
mod forward;
mod job;
pub mod plain;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use crate::fused;
use crate::rng::Philox;

/// What [`attention`] does beside `softmax(q kᵀ / √d) v`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::attention::{Attention, Bias, Mask, alibi_slopes, attention};
/// let x = Tensor::ones((1, 2, 3, 4), DType::F32, &Device::Cpu)?;
/// let slopes = alibi_slopes(2);
/// let options =
///     Attention { mask: Mask::causal(), bias: Bias::Alibi(&slopes), ..Attention::default() };
/// assert_eq!(attention(&x, &x, &x, &options)?.output.dims(), [1, 2, 3, 4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Attention<'a> {
    /// The factor `τ` of the products; `1/√d` where `None`.
    pub scale: Option<f64>,
    /// Which keys a query sees.
    pub mask: Mask<'a>,
    /// What is added to the scaled products.
    pub bias: Bias<'a>,
    /// Position vectors that are added to the keys and values.
    pub relative: Relative<'a>,
    /// The probability `p` with which a weight is dropped, and the stream that decides it. What is kept is divided by `1 - p`.
    /// Weight `(b, head, i, j)` takes the stream's 32-bit number `((b · h + head) · n_q + i) · n_k + j` (four a block) and is
    /// dropped where that lies below `p · 2^32`, whatever the tiles or threads.
    pub dropout: Option<(f64, Philox)>,
}

/// Which keys a query sees: those that all three conditions allow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// Query `i` sees keys `j <= i + δ`.
    pub causal: bool,
    /// The number of valid keys of each batch row, `(b)`; all where `None`.
    pub key_lengths: Option<&'a [usize]>,
    /// `(left, right)`: query `i` sees keys in `[i + δ - left, i + δ + right]`; a side that is `None` is open.
    pub window: Option<(Option<usize>, Option<usize>)>,
}

/// What is added to the scaled products.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// `(1 or b, 1 or h, n_q, n_k)`; -inf hides a key. Gets a gradient.
    Full(&'a Tensor),
    /// ALiBi (Press et al. 2021): `-m_h |i + δ - j|` with a slope `m_h` for each head, see [`alibi_slopes`].
    Alibi(&'a [f64]),
    /// `(h, n_q + n_k - 1)`: entry `j - i + n_q - 1` of the head's row, as T5's bias (Raffel et al. 2019) once its buckets are looked
    /// up. Gets a gradient.
    Distance(&'a Tensor),
}

/// Position vectors by distance.
#[derive(Debug, Clone, Copy, Default)]
pub enum Relative<'a> {
    /// None.
    #[default]
    None,
    /// Music Transformer (Huang et al. 2018): `E_r (1 or h, L, d)`. Query `i` and key `j` at distance `t = i + δ - j` get
    /// `q_i·e_{L-1-t}`, so the last row is distance 0; distances of `L` and more get nothing. Needs a causal mask.
    Music(&'a Tensor),
    /// Shaw et al. 2018: vectors of the distance `clip(j - i - δ, -k, k) + k`, for all heads, added to keys and values.
    Shaw {
        /// `(2k + 1, d)`.
        keys: &'a Tensor,
        /// `(2k + 1, d_v)`.
        values: Option<&'a Tensor>,
    },
}

/// The result of [`attention`].
#[derive(Debug, Clone)]
pub struct Attended {
    /// `(b, h, n_q, d_v)`.
    pub output: Tensor,
    /// `ln Σ_j exp(s_ij)`, `(b, h, n_q)`: with it, results over parts of the keys can be merged. Has a gradient.
    pub log_sum_exp: Tensor,
}

impl Mask<'_> {
    /// Causal, without padding or window.
    pub fn causal() -> Self {
        Self { causal: true, ..Self::default() }
    }

    /// The keys that query `i` of batch row `batch` sees: always one range, whose ends do not fall as `i` grows.
    fn keys(&self, batch: usize, i: usize, n_q: usize, n_k: usize) -> Range<usize> {
        let mut end = match self.key_lengths {
            Some(lengths) => lengths[batch].min(n_k),
            None => n_k,
        };
        // Shifted by `n_q`, positions are not negative: `i + δ + n_q = i + n_k`.
        let here = i + n_k;
        let mut start = 0;
        if self.causal {
            end = end.min((here + 1).saturating_sub(n_q));
        }
        if let Some((left, right)) = self.window {
            if let Some(right) = right {
                end = end.min(here.saturating_add(right).saturating_add(1).saturating_sub(n_q));
            }
            if let Some(left) = left {
                start = here.saturating_sub(n_q.saturating_add(left));
            }
        }
        start.min(end)..end
    }
}

/// Attention of `q (b, h, n_q, d)` over `k (b, h_kv, n_k, d)` and `v (b, h_kv, n_k, d_v)`. Query head `a` reads key-value head
/// `a / (h / h_kv)` (grouped queries; `h_kv = 1` is multi-query attention).
///
/// # Errors
/// When shapes, types or options do not fit, naming them.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attention<'_>) -> Result<Attended> {
    let sizes = Sizes::new(q, k, Some(v))?;
    sizes.check(q, options)?;
    let operands = cpu::operands(q, k, v, options);
    #[cfg(cuda_path)]
    if cuda::takes(&sizes, &operands) {
        return cuda::attention(sizes, &operands, options);
    }
    if fused::takes(&operands) {
        cpu::attention(sizes, &operands, options)
    } else {
        plain::attention(q, k, v, options)
    }
}

/// The weights `p (b, h, n_q, n_k)` of [`attention`], without dropout. Memory is quadratic: this is for looking at.
///
/// # Errors
/// As [`attention`].
pub fn attention_weights(q: &Tensor, k: &Tensor, options: &Attention<'_>) -> Result<Tensor> {
    Sizes::new(q, k, None)?.check(q, options)?;
    plain::attention_weights(q, k, options)
}

/// ALiBi's slopes: `2^{-8 k / n}`, k = 1 … n, for a power of two; else those of the power `p` below, and every second one
/// of `2p`.
///
/// ```
/// assert_eq!(mnemic_kernels::attention::alibi_slopes(8)[..3], [0.5, 0.25, 0.125]);
/// ```
pub fn alibi_slopes(num_heads: usize) -> Vec<f64> {
    let of_power = |n: usize| (1..=n).map(move |k| (-8. * k as f64 / n as f64).exp2());
    let Some(log) = num_heads.checked_ilog2() else { return vec![] };
    let power = 1usize << log;
    of_power(power).chain(of_power(2 * power).step_by(2)).take(num_heads).collect()
}

/// The sizes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    b: usize,
    h: usize,
    h_kv: usize,
    n_q: usize,
    n_k: usize,
    d: usize,
    /// 0 where there are no values.
    d_v: usize,
}

const OP: &str = "attention";

impl Sizes {
    fn new(q: &Tensor, k: &Tensor, v: Option<&Tensor>) -> Result<Self> {
        let value_dims = v.unwrap_or(k).dims();
        let (&[b, h, n_q, d], &[b_k, h_kv, n_k, d_k], &[b_v, h_v, n_v, d_v]) =
            (q.dims(), k.dims(), value_dims)
        else {
            bail!(
                "{OP}: expected q (b, h, n_q, d), k (b, h_kv, n_k, d) and v (b, h_kv, n_k, d_v), got {:?}, {:?} and \
                 {value_dims:?}",
                q.dims(),
                k.dims()
            )
        };
        if (b_k, d_k) != (b, d) || (b_v, h_v, n_v) != (b, h_kv, n_k) {
            bail!(
                "{OP}: q {:?}, k {:?} and v {value_dims:?} do not fit together: expected (b, h, n_q, d), (b, h_kv, n_k, d) \
                 and (b, h_kv, n_k, d_v)",
                q.dims(),
                k.dims()
            );
        }
        if h_kv == 0 || !h.is_multiple_of(h_kv) {
            bail!("{OP}: {h} query heads are not a multiple of {h_kv} key-value heads");
        }
        if h == 0 || d == 0 || d_v == 0 {
            bail!("{OP}: heads and widths must not be 0, got {h} heads, widths {d} and {d_v}");
        }
        let d_v = if v.is_some() { d_v } else { 0 };
        same_type("k", k, q)?;
        if let Some(v) = v {
            same_type("v", v, q)?;
        }
        Ok(Self { b, h, h_kv, n_q, n_k, d, d_v })
    }

    /// Checks the options against the sizes.
    fn check(&self, q: &Tensor, options: &Attention<'_>) -> Result<()> {
        if let Some(scale) = options.scale
            && !scale.is_finite()
        {
            bail!("{OP}: the scale must be finite, got {scale}");
        }
        if let Some((p, _)) = options.dropout
            && !(0. ..=1.).contains(&p)
        {
            bail!("{OP}: dropout must lie in [0, 1], got {p}");
        }
        self.check_lengths(&options.mask)?;
        self.check_bias(q, options.bias)?;
        self.check_relative(q, options)
    }

    fn check_lengths(&self, mask: &Mask<'_>) -> Result<()> {
        let Some(lengths) = mask.key_lengths else { return Ok(()) };
        if lengths.len() != self.b {
            bail!("{OP}: {} key lengths for a batch of {}", lengths.len(), self.b);
        }
        match lengths.iter().find(|&&length| length > self.n_k) {
            Some(long) => bail!("{OP}: key length {long}, but there are {} keys", self.n_k),
            None => Ok(()),
        }
    }

    fn check_bias(&self, q: &Tensor, bias: Bias<'_>) -> Result<()> {
        let Self { b, h, n_q, n_k, .. } = *self;
        match bias {
            Bias::None => Ok(()),
            Bias::Full(bias) => {
                let fits = matches!(bias.dims(), &[b_1, h_1, m, n]
                    if (b_1 == b || b_1 == 1) && (h_1 == h || h_1 == 1) && (m, n) == (n_q, n_k));
                if !fits {
                    bail!(
                        "{OP}: expected a bias (1 or {b}, 1 or {h}, {n_q}, {n_k}), got {:?}",
                        bias.dims()
                    );
                }
                same_type("the bias", bias, q)
            }
            Bias::Alibi(slopes) if slopes.len() != h => {
                bail!("{OP}: {} slopes for {h} heads", slopes.len())
            }
            Bias::Alibi(slopes) => match slopes.iter().find(|m| !m.is_finite()) {
                Some(m) => bail!("{OP}: slopes must be finite, got {m}"),
                None => Ok(()),
            },
            Bias::Distance(table) => {
                let expected = [h, (n_q + n_k).saturating_sub(1)];
                if table.dims() != expected {
                    bail!(
                        "{OP}: expected a table of distances {expected:?}, got {:?}",
                        table.dims()
                    );
                }
                same_type("the table of distances", table, q)
            }
        }
    }

    fn check_relative(&self, q: &Tensor, options: &Attention<'_>) -> Result<()> {
        let Self { h, d, d_v, .. } = *self;
        match options.relative {
            Relative::None => Ok(()),
            Relative::Music(table) => {
                if !options.mask.causal {
                    bail!("{OP}: Relative::Music needs a causal mask");
                }
                if !matches!(table.dims(), &[heads, l, w] if (heads == h || heads == 1) && l > 0 && w == d)
                {
                    bail!(
                        "{OP}: expected relative vectors (1 or {h}, L, {d}), got {:?}",
                        table.dims()
                    );
                }
                same_type("the relative vectors", table, q)
            }
            Relative::Shaw { keys, values } => {
                let &[rows, width] = keys.dims() else {
                    bail!("{OP}: expected relative keys (2k + 1, {d}), got {:?}", keys.dims())
                };
                if rows % 2 == 0 || width != d {
                    bail!("{OP}: expected relative keys (2k + 1, {d}), got {:?}", keys.dims());
                }
                same_type("the relative keys", keys, q)?;
                let Some(values) = values.filter(|_| d_v > 0) else { return Ok(()) };
                if values.dims() != [rows, d_v] {
                    bail!(
                        "{OP}: expected relative values ({rows}, {d_v}), got {:?}",
                        values.dims()
                    );
                }
                same_type("the relative values", values, q)
            }
        }
    }
}

fn same_type(name: &str, t: &Tensor, q: &Tensor) -> Result<()> {
    let float = matches!(q.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
    if !float || t.dtype() != q.dtype() || !t.device().same_device(q.device()) {
        bail!(
            "{OP}: expected floats of one type and device, but q is {:?} on {:?}, {name} {:?} on {:?}",
            q.dtype(),
            q.device().location(),
            t.dtype(),
            t.device().location()
        );
    }
    Ok(())
}

/// The factor of the products.
fn scale(options: &Attention<'_>, d: usize) -> f64 {
    options.scale.unwrap_or(1. / (d as f64).sqrt())
}
