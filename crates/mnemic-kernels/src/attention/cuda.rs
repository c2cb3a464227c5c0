//! The CUDA path, for all options and widths up to 128. Wider heads and f64 go to the plain twin.
//!
//! Scores never stand in memory, but for two things: a gradient of a bias is summed from all `dS`, and products with relative vectors,
//! `(b, h, n_q, places)`, are made by cuBLAS, from which the kernels gather.

use candle_core::{DType, Result, Tensor, bail};

use super::{Attended, Attention, Bias, OP, Relative, Sizes, scale};
use crate::cuda::{DeviceOp, Launch, Pass, apply, empty, empty_like, numbers, suffix, zeros};
use crate::rng::Philox;

/// The widest heads that there are kernels for.
const WIDEST: usize = 128;
/// Rows of a block.
const ROWS: usize = 64;
/// From so many blocks of twice the rows on there is work for a large device: they read less. Few under test, where both occur.
const MANY: usize = if cfg!(test) { 3 } else { 192 };
const THREADS: usize = 128;

pub(super) fn takes(sizes: &Sizes, operands: &[&Tensor]) -> bool {
    sizes.d.max(sizes.d_v) <= WIDEST && crate::cuda::takes(operands)
}

pub(super) fn attention(
    sizes: Sizes,
    operands: &[&Tensor],
    options: &Attention<'_>,
) -> Result<Attended> {
    let (mut left, mut right) = options.mask.window.unwrap_or((None, None));
    if options.mask.causal {
        right = Some(0);
    }
    let most = sizes.n_q + sizes.n_k;
    left = left.map(|n| n.min(most));
    right = right.map(|n| n.min(most));
    let op = AttentionOp {
        sizes,
        scale: scale(options, sizes.d),
        lengths: options.mask.key_lengths.map(<[usize]>::to_vec),
        reach: (left, right),
        bias: match options.bias {
            Bias::None => BiasKind::None,
            Bias::Full(_) => BiasKind::Full,
            Bias::Alibi(slopes) => BiasKind::Alibi(slopes.to_vec()),
            Bias::Distance(_) => BiasKind::Distance,
        },
        relative: match options.relative {
            Relative::None => RelativeKind::None,
            Relative::Music(_) => RelativeKind::Music,
            Relative::Shaw { values, .. } => RelativeKind::Shaw { values: values.is_some() },
        },
        dropout: options.dropout.filter(|(p, _)| *p > 0.),
    };
    let mut results = apply(op, operands)?.into_iter();
    match (results.next(), results.next()) {
        (Some(output), Some(log_sum_exp)) => Ok(Attended { output, log_sum_exp }),
        _ => bail!("{OP}: internal error: results are missing"),
    }
}

enum BiasKind {
    None,
    Full,
    Alibi(Vec<f64>),
    Distance,
}

#[derive(Clone, Copy, PartialEq)]
enum RelativeKind {
    None,
    Music,
    Shaw { values: bool },
}

struct AttentionOp {
    sizes: Sizes,
    scale: f64,
    lengths: Option<Vec<usize>>,
    /// How far a query sees to the left and right.
    reach: (Option<usize>, Option<usize>),
    bias: BiasKind,
    relative: RelativeKind,
    dropout: Option<(f64, Philox)>,
}

/// What kernels are given beside queries, keys and values.
struct Terms<'a> {
    lengths: Option<Tensor>,
    slopes: Option<Tensor>,
    bias: Option<&'a Tensor>,
    relative_keys: Option<&'a Tensor>,
    relative_values: Option<&'a Tensor>,
    /// Products of queries with relative keys, `(b, h, n_q, places)`.
    products: Option<Tensor>,
    /// Products of the output's gradient with relative values.
    value_products: Option<Tensor>,
    places: usize,
    aligned: bool,
}

impl AttentionOp {
    /// Whether there is more than a mask. The kernels for that take maxima of bare products.
    fn rich(&self) -> bool {
        self.scale < 1e-30
            || !matches!(self.bias, BiasKind::None)
            || self.relative != RelativeKind::None
            || self.dropout.is_some()
    }

    /// The kernels' width.
    fn width(&self) -> usize {
        self.sizes.d.max(self.sizes.d_v).next_power_of_two().max(32)
    }

    /// Whether blocks take twice the rows, in half precision and up to a width: then each number of a tile that is read from
    /// shared memory serves two products.
    fn tall(&self, dtype: DType, widest: usize, heads: usize, rows: usize) -> bool {
        let plain = !self.rich() && dtype != DType::F32 && self.width() <= widest;
        plain && heads * rows.div_ceil(2 * ROWS) >= MANY
    }

    /// The name of a kernel, and the bytes of shared memory for `own` rows and two pairs of tiles to walk over.
    fn kernel(&self, name: &str, dtype: DType, own: usize) -> Result<(String, usize)> {
        let width = self.width();
        let rich = if self.rich() { "rich_" } else { "" };
        let single = dtype == DType::F32;
        let columns = if single && width == 128 { 32 } else { 64 };
        let stride = width + if single { 4 } else { 8 };
        let bytes = (own + 4 * columns) * stride * dtype.size_in_bytes();
        // Behind them two pairs of statistics of the columns.
        let bytes = bytes + 4 * columns * size_of::<f32>();
        Ok((format!("attention_{name}_{rich}{}_{width}", suffix(dtype)?), bytes))
    }

    fn terms<'a>(&self, inputs: &'a [Tensor], d_output: Option<&Tensor>) -> Result<Terms<'a>> {
        let q = &inputs[0];
        let mut more = inputs[3..].iter();
        let bias = match self.bias {
            BiasKind::Full | BiasKind::Distance => more.next(),
            _ => None,
        };
        let (relative_keys, relative_values) = (more.next(), more.next());
        let places = match (self.relative, relative_keys) {
            (RelativeKind::Music, Some(t)) => t.dim(1)?,
            (_, Some(t)) => t.dim(0)?,
            _ => 0,
        };
        let slopes = match &self.bias {
            BiasKind::Alibi(slopes) => {
                // As bits: such lists are kept on the device.
                let bits: Vec<usize> =
                    slopes.iter().map(|&m| (m as f32).to_bits() as usize).collect();
                Some(numbers(&bits, q.device())?)
            }
            _ => None,
        };
        let products = relative_keys.map(|keys| self.onto(q, keys)).transpose()?;
        let value_products = match (relative_values, d_output) {
            (Some(values), Some(d_output)) => Some(self.onto(d_output, values)?),
            _ => None,
        };
        Ok(Terms {
            lengths: self.lengths.as_ref().map(|l| numbers(l, q.device())).transpose()?,
            slopes,
            bias,
            relative_keys,
            relative_values,
            products,
            value_products,
            places,
            aligned: aligned(&inputs[..3])
                && d_output.is_none_or(|d| aligned(std::slice::from_ref(d))),
        })
    }

    /// Rows `(b, h, n_q, d)` times all relative vectors, `(places, d)` or `(1 or h, places, d)`: `(b, h, n_q, places)`.
    fn onto(&self, rows: &Tensor, vectors: &Tensor) -> Result<Tensor> {
        let Sizes { b, h, n_q, .. } = self.sizes;
        let d = rows.dim(3)?;
        match vectors.dims() {
            &[heads, places, _] if heads > 1 => {
                let rows = by_head(rows)?;
                let all = rows.matmul(&vectors.transpose(1, 2)?)?;
                all.reshape((h, b, n_q, places))?.transpose(0, 1)?.contiguous()
            }
            dims => {
                let places = dims[dims.len() - 2];
                let vectors = vectors.reshape((places, d))?;
                let all = rows.reshape((b * h * n_q, d))?.matmul(&vectors.t()?)?;
                all.reshape((b, h, n_q, places))
            }
        }
    }

    /// The backward pass of [`AttentionOp::onto`]: the gradients of the rows and of the vectors.
    fn back(
        &self,
        d_products: &Tensor,
        rows: &Tensor,
        vectors: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let Sizes { b, h, n_q, .. } = self.sizes;
        let d = rows.dim(3)?;
        match vectors.dims() {
            &[heads, ..] if vectors.rank() == 3 && heads > 1 => {
                let d_products = by_head(d_products)?;
                let d_rows = d_products.matmul(vectors)?.reshape((h, b, n_q, d))?;
                let d_vectors = d_products.transpose(1, 2)?.matmul(&by_head(rows)?)?;
                Ok((d_rows.transpose(0, 1)?.contiguous()?, d_vectors))
            }
            dims => {
                let places = dims[dims.len() - 2];
                let d_products = d_products.reshape((b * h * n_q, places))?;
                let d_rows = d_products.matmul(&vectors.reshape((places, d))?)?;
                let d_vectors = d_products.t()?.matmul(&rows.reshape((b * h * n_q, d))?)?;
                Ok((d_rows.reshape((b, h, n_q, d))?, d_vectors.reshape(vectors.shape())?))
            }
        }
    }

    /// Adds the parameters that all kernels have.
    fn parameters<'a>(&self, launch: Launch<'a>, terms: &'a Terms<'_>) -> Result<Launch<'a>> {
        let Sizes { h, h_kv, n_q, n_k, d, d_v, .. } = self.sizes;
        let (left, right) = self.reach;
        let launch = launch.optional(terms.lengths.as_ref());
        let launch = launch.int(n_q)?.int(n_k)?.int(d)?.int(d_v)?.int(h)?.int(h / h_kv)?;
        let launch = launch.int(left.map_or(0, |n| n + 1))?.int(right.map_or(0, |n| n + 1))?;
        let launch = launch.float(self.scale).flag(terms.aligned);
        let full = terms.bias.filter(|_| matches!(self.bias, BiasKind::Full));
        let distances = terms.bias.filter(|_| matches!(self.bias, BiasKind::Distance));
        let (bias_b, bias_h) = match full {
            Some(bias) => (bias.dim(0)?, bias.dim(1)?),
            None => (1, 1),
        };
        let launch = launch.optional(full).int(bias_b)?.int(bias_h)?;
        let launch = launch.optional(terms.slopes.as_ref()).optional(distances);
        let launch = launch.optional(terms.products.as_ref());
        let launch = launch.optional(terms.value_products.as_ref());
        let relative = match self.relative {
            RelativeKind::None => 0,
            RelativeKind::Music => 1,
            RelativeKind::Shaw { .. } => 2,
        };
        let launch = launch.int(relative)?.int(terms.places)?;
        let (p, rng) = self.dropout.unwrap_or((0., Philox::new(0, 0)));
        let (seed, stream) = rng.keys();
        let kept = if p < 1. { 1. / (1. - p) } else { 0. };
        let threshold = (p * 4_294_967_296.0) as u64;
        Ok(launch.long(seed).long(stream).long(threshold).float(kept))
    }

    /// The gradient of the bias from `dS (b, h, n_q, n_k)`.
    fn bias_gradient(&self, d_scores: Tensor, bias: &Tensor) -> Result<Tensor> {
        let Sizes { b, h, n_q, n_k, .. } = self.sizes;
        let gradient = if matches!(self.bias, BiasKind::Distance) {
            let table = empty(bias.shape(), DType::F32, bias.device())?;
            let blocks = h * (n_q + n_k - 1).div_ceil(32);
            let launch = Launch::new("attention_backward", "attention_diagonals");
            let launch = launch.grid(blocks, 1, 1).block(256).tensor(&d_scores).tensor(&table);
            launch.int(b)?.int(h)?.int(n_q)?.int(n_k)?.run(bias.device())?;
            table
        } else {
            let mut sum = d_scores;
            for axis in 0..2 {
                if bias.dim(axis)? < sum.dim(axis)? {
                    sum = sum.sum_keepdim(axis)?;
                }
            }
            sum
        };
        gradient.to_dtype(bias.dtype())
    }
}

impl DeviceOp for AttentionOp {
    const NAME: &'static str = OP;
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], grad: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let Sizes { b, h, n_q, d_v, .. } = self.sizes;
        let [q, k, v, ..] = inputs else { bail!("{OP}: internal error: operands are missing") };
        let (dtype, device) = (q.dtype(), q.device());
        let terms = self.terms(inputs, None)?;
        let output = empty((b, h, n_q, d_v), dtype, device)?;
        let log_sum_exp = empty((b, h, n_q), dtype, device)?;
        let exact = match grad && dtype != DType::F32 {
            true => Some(empty((b, h, n_q), DType::F32, device)?),
            false => None,
        };
        // What is not written was not seen.
        let weights = match self.relative {
            RelativeKind::Shaw { values: true } => {
                Some(Tensor::full(f32::NEG_INFINITY, (b, h, n_q, terms.places), device)?)
            }
            _ => None,
        };
        let tall = self.tall(dtype, 128, b * h, n_q);
        let (name, rows) = if tall { ("forward_tall", 2 * ROWS) } else { ("forward", ROWS) };
        let (name, shared) = self.kernel(name, dtype, rows)?;
        let launch = Launch::new("attention_forward", name).shared(shared).block(THREADS);
        let launch = launch.grid(b * h * n_q.div_ceil(rows), 1, 1).tensor(q).tensor(k).tensor(v);
        let launch = launch.tensor(&output).tensor(&log_sum_exp);
        let launch = launch.optional(exact.as_ref()).optional(weights.as_ref());
        self.parameters(launch, &terms)?.run(device)?;
        let output = match (weights, terms.relative_values) {
            (Some(weights), Some(values)) => {
                let weights = weights.to_dtype(dtype)?.reshape((b * h * n_q, terms.places))?;
                (output + weights.matmul(values)?.reshape((b, h, n_q, d_v))?)?
            }
            _ => output,
        };
        Ok((vec![output, log_sum_exp], exact.into_iter().collect()))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let ([q, ..], [output, ..]) = (pass.inputs, pass.outputs) else {
            bail!("{OP}: internal error: operands are missing")
        };
        let dtype = q.dtype();
        let d_output = match &pass.grads[0] {
            Some(grad) => grad.clone(),
            None => zeros(output.shape(), dtype, output.device())?,
        };
        let terms = self.terms(pass.inputs, Some(&d_output))?;
        let wanted = |i: usize| pass.wanted.get(i).copied().unwrap_or(false);
        let extras = self.extras(&pass, &terms)?;
        let (mut d_q, deltas) = self.queries(&pass, &terms, &d_output, &extras)?;
        let mut gradients = vec![None; pass.inputs.len()];
        if wanted(1) || wanted(2) {
            let (d_k, d_v) = self.keys(&pass, &terms, &d_output, &deltas)?;
            (gradients[1], gradients[2]) = (Some(d_k), Some(d_v));
        }
        let Extras { d_scores, d_products, weights } = extras;
        if let (Some(d_scores), Some(bias)) = (d_scores, terms.bias) {
            gradients[3] = Some(self.bias_gradient(d_scores, bias)?);
        }
        let first = terms.first_relative();
        if let (Some(d_products), Some(keys)) = (d_products, terms.relative_keys) {
            let (more, d_keys) = self.back(&d_products.to_dtype(dtype)?, q, keys)?;
            d_q = (d_q + more)?;
            gradients[first] = Some(d_keys);
        }
        if let (Some(weights), Some(values)) = (weights, terms.relative_values) {
            let rows = d_output.elem_count() / values.dim(1)?;
            let weights = weights.to_dtype(dtype)?.reshape((rows, terms.places))?;
            let d_output = d_output.reshape((rows, values.dim(1)?))?;
            gradients[first + 1] = Some(weights.t()?.matmul(&d_output)?);
        }
        gradients[0] = Some(d_q);
        Ok(gradients)
    }
}

/// What the backward pass writes beside the gradients of queries, keys and values, in f32 and zero at first: of the scores,
/// `(b, h, n_q, n_k)`, of the products with relative keys, and the weights of relative values, `(b, h, n_q, places)`.
struct Extras {
    d_scores: Option<Tensor>,
    d_products: Option<Tensor>,
    weights: Option<Tensor>,
}

impl AttentionOp {
    fn extras(&self, pass: &Pass<'_>, terms: &Terms<'_>) -> Result<Extras> {
        let Sizes { b, h, n_q, n_k, .. } = self.sizes;
        let wanted = |i: usize| pass.wanted.get(i).copied().unwrap_or(false);
        let first = terms.first_relative();
        let table = |on: bool, width: usize| {
            let shape = (b, h, n_q, width);
            on.then(|| zeros(shape, DType::F32, pass.inputs[0].device())).transpose()
        };
        let keys = terms.relative_keys.is_some() && (wanted(0) || wanted(first));
        let values = terms.relative_values.is_some() && wanted(first + 1);
        Ok(Extras {
            d_scores: table(terms.bias.is_some() && wanted(3), n_k)?,
            d_products: table(keys, terms.places)?,
            weights: table(values, terms.places)?,
        })
    }

    /// The gradient of the queries, and the sums `D` of all rows for [`AttentionOp::keys`].
    fn queries(
        &self,
        pass: &Pass<'_>,
        terms: &Terms<'_>,
        d_output: &Tensor,
        extras: &Extras,
    ) -> Result<(Tensor, Tensor)> {
        let Sizes { b, h, n_q, .. } = self.sizes;
        let q = &pass.inputs[0];
        let d_q = empty_like(q)?;
        let deltas = empty((b, h, n_q), DType::F32, q.device())?;
        let tall = self.tall(q.dtype(), 64, b * h, n_q);
        let (name, rows) = if tall { ("queries_tall", 2 * ROWS) } else { ("queries", ROWS) };
        let (name, shared) = self.kernel(name, q.dtype(), 2 * rows)?;
        let launch = Launch::new("attention_backward", name).shared(shared).block(THREADS);
        let launch = launch.grid(b * h * n_q.div_ceil(rows), 1, 1);
        let launch = launch.tensor(q).tensor(&pass.inputs[1]).tensor(&pass.inputs[2]);
        let launch = launch.tensor(&pass.outputs[0]).tensor(d_output);
        let launch = launch.optional(pass.grads[1].as_ref()).tensor(exact(pass));
        let launch = launch.tensor(&deltas).tensor(&d_q).optional(extras.d_scores.as_ref());
        let launch = launch.optional(extras.d_products.as_ref());
        self.parameters(launch.optional(extras.weights.as_ref()), terms)?.run(q.device())?;
        Ok((d_q, deltas))
    }

    /// The gradients of keys and values.
    fn keys(
        &self,
        pass: &Pass<'_>,
        terms: &Terms<'_>,
        d_output: &Tensor,
        deltas: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let Sizes { b, h_kv, n_k, .. } = self.sizes;
        let (q, k, v) = (&pass.inputs[0], &pass.inputs[1], &pass.inputs[2]);
        let (d_k, d_v) = (empty_like(k)?, empty_like(v)?);
        let tall = self.tall(q.dtype(), 64, b * h_kv, n_k);
        let (name, rows) = if tall { ("keys_tall", 2 * ROWS) } else { ("keys", ROWS) };
        let (name, shared) = self.kernel(name, q.dtype(), 2 * rows)?;
        let launch = Launch::new("attention_backward", name).shared(shared).block(THREADS);
        let launch = launch.grid(b * h_kv * n_k.div_ceil(rows), 1, 1);
        let launch = launch.tensor(q).tensor(k).tensor(v).tensor(d_output);
        let launch = launch.tensor(exact(pass)).tensor(deltas).tensor(&d_k).tensor(&d_v);
        self.parameters(launch, terms)?.run(q.device())?;
        Ok((d_k, d_v))
    }
}

impl Terms<'_> {
    /// Where the relative keys stand among the operands.
    fn first_relative(&self) -> usize {
        3 + usize::from(self.bias.is_some())
    }
}

/// The logarithms of the sums in f32.
fn exact<'a>(pass: &Pass<'a>) -> &'a Tensor {
    pass.saved.first().unwrap_or(&pass.outputs[1])
}

/// `(b, h, n, d)` as `(h, b n, d)`.
fn by_head(t: &Tensor) -> Result<Tensor> {
    let (b, h, n, d) = t.dims4()?;
    t.transpose(0, 1)?.contiguous()?.reshape((h, b * n, d))
}

/// Whether all rows begin at multiples of 16 bytes.
fn aligned(tensors: &[Tensor]) -> bool {
    let on = |t: &Tensor, n: usize| (n * t.dtype().size_in_bytes()).is_multiple_of(16);
    tensors.iter().all(|t| {
        on(t, t.layout().start_offset()) && t.dims().last().is_some_and(|&width| on(t, width))
    })
}
