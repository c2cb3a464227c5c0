//! Attention of heads whose queries, keys and values are there already: what all attention layers share.
//!
//! Letters: b batch, h heads, `h_kv` key-value heads, `n_q` queries, `n_k` keys, d width of a head.

use candle_core::{D, DType, Result, Tensor, bail};
use mnemic_kernels::attention::{Attention, Bias, Mask, Relative, attention, attention_weights};

use crate::Context;

const OP: &str = "multi-head attention";

/// Which keys a query sees, and what is added to the scores. The default: every key, nothing.
///
/// ```
/// use mnemic_layers::{AttentionOptions, Mask};
/// let lengths = [3, 5]; // padded rows
/// let mask = Mask { causal: true, key_lengths: Some(&lengths), window: None };
/// let options = AttentionOptions { mask, ..AttentionOptions::default() };
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Causal masking, the lengths of padded rows, a sliding window.
    pub mask: Mask<'a>,
    /// u8 `(b, n_k)`: 1 where a key may be attended to, 0 at padding (PyTorch's `key_padding_mask`
    /// is the opposite). Together with `mask`; a query that sees no key gets a sum of zeros.
    /// Padding on the right is as cheap as `mask.key_lengths`; other masks are laid out as a bias
    /// `(b, 1, n_q, n_k)`.
    pub key_mask: Option<&'a Tensor>,
    /// What is added to the scaled scores: any tensor `(1 or b, 1 or h, n_q, n_k)`, where -inf
    /// forbids, or a function of the distance.
    pub bias: Bias<'a>,
    /// Relative position vectors.
    pub relative: Relative<'a>,
}

impl<'a> AttentionOptions<'a> {
    /// Query `i` sees keys up to itself.
    pub fn causal() -> Self {
        Self { mask: Mask::causal(), ..Self::default() }
    }

    /// Row `i` has `lengths[i]` keys, the rest is padding.
    pub fn padded(lengths: &'a [usize]) -> Self {
        let mask = Mask { key_lengths: Some(lengths), ..Mask::default() };
        Self { mask, ..Self::default() }
    }
}

/// `head_i = softmax(τ q_i k_iᵀ + mask + bias) v_i` for all heads at once, the heads' outputs side by side.
///
/// For layers with projections of their own; [`MultiHeadAttention`](crate::MultiHeadAttention) is the usual one. There may be fewer
/// key-value heads than query heads, and more keys than queries (a cache): then the last query sits on the last key.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{AttentionOptions, Context, Heads, split_heads};
/// let xs = Tensor::ones((2, 5, 8), DType::F32, &Device::Cpu)?; // (b, n, h d)
/// let q = split_heads(&xs, 4)?; // (b, h, n, d)
/// let kv = split_heads(&xs.narrow(2, 0, 4)?, 2)?; // two key-value heads
/// let ctx = Context::eval().watching();
/// let ys = Heads::new(None, 0.).forward(&q, &kv, &kv, &AttentionOptions::causal(), &ctx)?;
/// assert_eq!(ys.dims(), [2, 5, 8]);
/// assert_eq!(ctx.take_trace()[0].value.dims(), [2, 4, 5, 5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    scale: Option<f64>,
    dropout: f64,
    watch: (&'static str, usize),
}

impl Heads {
    /// With the factor `τ` of the products (`1/√d` where `None`) and the probability of dropout on the weights.
    pub fn new(scale: Option<f64>, dropout: f64) -> Self {
        Self { scale, dropout, watch: ("attention", 0) }
    }

    /// Records the weights under this name and layer number (`attention` and 0 otherwise).
    pub fn watched_as(self, name: &'static str, layer: usize) -> Self {
        Self { watch: (name, layer), ..self }
    }

    /// The output `(b, n_q, h d_v)` of `q (b, h, n_q, d)`, `k (b, h_kv, n_k, d)` and `v (b, h_kv, n_k, d_v)`. The weights, before
    /// dropout, are recorded when the context is watching.
    ///
    /// # Errors
    /// When the shapes or options do not fit, naming them.
    pub fn forward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let (b, h, n_q, _) = q.dims4()?;
        let (_, _, n_k, d_v) = v.dims4()?;
        let keys = KeyMask::new(options, q, n_k)?;
        let mut attended = Attention {
            scale: self.scale,
            mask: Mask {
                key_lengths: keys.lengths.as_deref().or(options.mask.key_lengths),
                ..options.mask
            },
            bias: keys.bias.as_ref().map_or(options.bias, Bias::Full),
            relative: options.relative,
            dropout: None,
        };
        let (name, layer) = self.watch;
        ctx.watch(name, layer, || attention_weights(&q.detach(), &k.detach(), &attended))?;
        if self.dropout > 0. {
            attended.dropout = ctx.rng().map(|rng| (self.dropout, rng));
        }
        let heads = attention(q, k, v, &attended)?.output; // (b, h, n_q, d_v)
        heads.transpose(1, 2)?.reshape((b, n_q, h * d_v))
    }
}

/// `xs (b, n, h d)` as heads, `(b, h, n, d)`: a view.
///
/// # Errors
/// When `h` does not divide the width.
pub fn split_heads(xs: &Tensor, h: usize) -> Result<Tensor> {
    let (b, n, e) = xs.dims3()?;
    if h == 0 || !e.is_multiple_of(h) {
        bail!("{OP}: width {e} is not a multiple of {h} heads");
    }
    xs.reshape((b, n, h, e / h))?.transpose(1, 2)
}

/// What `key_mask` becomes: lengths where all padding is on the right, else a bias.
#[derive(Default)]
struct KeyMask {
    lengths: Option<Vec<usize>>,
    bias: Option<Tensor>,
}

impl KeyMask {
    /// The mask for queries `q (b, h, n_q, d)` and `n_k` keys, joined with the other options.
    fn new(options: &AttentionOptions<'_>, q: &Tensor, n_k: usize) -> Result<Self> {
        let Some(mask) = options.key_mask else { return Ok(Self::default()) };
        let (b, _, n_q, _) = q.dims4()?;
        if mask.dims() != [b, n_k] || mask.dtype() != DType::U8 {
            let got = (mask.dims(), mask.dtype());
            bail!("{OP}: expected the key mask ({b}, {n_k}) of U8, got {got:?}");
        }
        let rows = mask.to_vec2::<u8>()?;
        let ends = rows.iter().map(|row| row.iter().take_while(|&&m| m != 0).count());
        let mut lengths: Vec<usize> = ends.collect();
        let on_the_right = |(row, &end): (&Vec<u8>, &usize)| row[end..].iter().all(|&m| m == 0);
        if !rows.iter().zip(&lengths).all(on_the_right) {
            return Ok(Self { bias: Some(hide(mask, options.bias, q, n_q)?), lengths: None });
        }
        if let Some(given) = options.mask.key_lengths {
            if given.len() != b {
                bail!("{OP}: {} key lengths for a batch of {b}", given.len());
            }
            lengths.iter_mut().zip(given).for_each(|(length, &other)| *length = other.min(*length));
        }
        Ok(Self { lengths: Some(lengths), bias: None })
    }
}

/// `bias` with -inf where `mask (b, n_k)` is 0.
fn hide(mask: &Tensor, bias: Bias<'_>, q: &Tensor, n_q: usize) -> Result<Tensor> {
    let (b, n_k) = mask.dims2()?;
    let zeros = Tensor::zeros((b, n_k), q.dtype(), q.device())?;
    let hidden = (&zeros + f64::NEG_INFINITY)?;
    let hidden = mask.where_cond(&zeros, &hidden)?.reshape((b, 1, 1, n_k))?;
    match bias {
        Bias::None => hidden.broadcast_as((b, 1, n_q, n_k))?.contiguous(),
        Bias::Full(bias) if bias.rank() == 4 && bias.dim(D::Minus1)? == n_k => {
            bias.broadcast_add(&hidden)
        }
        Bias::Full(bias) => {
            bail!("{OP}: expected a bias (b, h, n_q, {n_k}), got {:?}", bias.dims())
        }
        _ => bail!("{OP}: a key mask with gaps goes with no bias or a full one only"),
    }
}
