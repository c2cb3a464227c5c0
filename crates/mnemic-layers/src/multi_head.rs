//! Multi-head attention (Vaswani et al. 2017, section 3.2) with PyTorch's parameters.
//!
//! Letters: b batch, `n_q` queries, `n_k` keys, e the model's width, h heads, d = e / h.

use candle_core::{D, DType, Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::attention::{Attention, Bias, Mask, Relative, attention, attention_weights};
use mnemic_kernels::time_steps::unbind;

use crate::init::xavier_uniform;
use crate::{Context, Linear, linear};

/// The sizes of a [`MultiHeadAttention`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiHeadConfig {
    /// Width `e` of the queries and of the output.
    pub embed_dim: usize,
    /// Number `h` of heads; it divides `embed_dim`.
    pub num_heads: usize,
    /// Width of the keys; `embed_dim` where `None`.
    pub kdim: Option<usize>,
    /// Width of the values; `embed_dim` where `None`.
    pub vdim: Option<usize>,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Probability of dropout on the attention weights, in training.
    pub dropout: f64,
    /// The factor of the products `q·k`; `1/√d` where `None`.
    pub scale: Option<f64>,
}

impl MultiHeadConfig {
    /// Keys and values as wide as the queries, biases, no dropout, scale `1/√d`.
    pub fn new(embed_dim: usize, num_heads: usize) -> Self {
        Self { embed_dim, num_heads, kdim: None, vdim: None, bias: true, dropout: 0., scale: None }
    }

    fn key_size(&self) -> usize {
        self.kdim.unwrap_or(self.embed_dim)
    }

    fn value_size(&self) -> usize {
        self.vdim.unwrap_or(self.embed_dim)
    }

    fn validate(&self) -> Result<()> {
        let Self { embed_dim, num_heads, dropout, .. } = *self;
        for (name, size) in [
            ("embed_dim", embed_dim),
            ("num_heads", num_heads),
            ("kdim", self.key_size()),
            ("vdim", self.value_size()),
        ] {
            if size == 0 {
                bail!("{OP}: {name} must be positive");
            }
        }
        if !embed_dim.is_multiple_of(num_heads) {
            bail!("{OP}: embed_dim {embed_dim} is not a multiple of num_heads {num_heads}");
        }
        if !(0. ..=1.).contains(&dropout) {
            bail!("{OP}: dropout must lie in [0, 1], got {dropout}");
        }
        Ok(())
    }
}

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

/// `MultiHead(Q, K, V) = [head_1; …; head_h] W_Oᵀ + b_O` with
/// `head_i = softmax(q_i k_iᵀ / √d + mask) v_i`, where `q_i`, `k_i` and `v_i` are the `i`-th slices
/// of width d of `Q W_Qᵀ + b_Q`, `K W_Kᵀ + b_K` and `V W_Vᵀ + b_V`.
///
/// Parameters, as PyTorch's `nn.MultiheadAttention`: `in_proj_weight (3e, e)`, the rows of `W_Q`,
/// `W_K` and `W_V`, or `q_proj_weight (e, e)`, `k_proj_weight (e, kdim)` and
/// `v_proj_weight (e, vdim)` where `kdim` or `vdim` differs from `e`; `in_proj_bias (3e)`;
/// `out_proj.weight (e, e)` and `out_proj.bias (e)`. Weights start Xavier uniform, as in PyTorch's
/// `nn.Transformer`, and biases at 0.
///
/// The weights of every head, `(b, h, n_q, n_k)` and before dropout, are recorded as `attention`
/// when the context is watching (see [`MultiHeadAttention::watched_as`]).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{AttentionOptions, Context, MultiHeadAttention, MultiHeadConfig, ParamStore};
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let layer = MultiHeadAttention::new(MultiHeadConfig::new(8, 2), vb.pp("self_attn"))?;
///
/// let xs = Tensor::ones((3, 5, 8), DType::F32, &Device::Cpu)?; // (b, t, e)
/// let ctx = Context::eval().watching();
/// let ys = layer.forward(&xs, &xs, &xs, &AttentionOptions::padded(&[5, 4, 1]), &ctx)?;
/// assert_eq!(ys.dims(), [3, 5, 8]);
///
/// let weights = ctx.take_trace().remove(0).value; // (b, h, n_q, n_k)
/// assert_eq!(weights.dims(), [3, 2, 5, 5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MultiHeadAttention {
    config: MultiHeadConfig,
    projections: Projections,
    out_proj: Linear,
    watch: (&'static str, usize),
}

/// The maps of queries, keys and values.
#[derive(Debug, Clone)]
enum Projections {
    /// One weight `(3e, e)`.
    Packed(Linear),
    /// One map each.
    Separate { q: Linear, k: Linear, v: Linear },
}

const OP: &str = "multi-head attention";

impl MultiHeadAttention {
    /// A layer with parameters from `vb`.
    ///
    /// # Errors
    /// When a size is 0, `num_heads` does not divide `embed_dim`, `dropout` is no probability, or a
    /// parameter exists with another shape or type.
    pub fn new(config: MultiHeadConfig, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (e, kdim, vdim) = (config.embed_dim, config.key_size(), config.value_size());
        let weight =
            |name, out, width| vb.get_with_hints((out, width), name, xavier_uniform(width, out));
        let bias = match config.bias {
            true => Some(vb.get_with_hints(3 * e, "in_proj_bias", Init::Const(0.))?),
            false => None,
        };
        let projections = if (kdim, vdim) == (e, e) {
            Projections::Packed(Linear::new(weight("in_proj_weight", 3 * e, e)?, bias))
        } else {
            let part = |name, i: usize, width| {
                let bias = bias.as_ref().map(|b| b.narrow(0, i * e, e)).transpose()?;
                Ok::<_, candle_core::Error>(Linear::new(weight(name, e, width)?, bias))
            };
            Projections::Separate {
                q: part("q_proj_weight", 0, e)?,
                k: part("k_proj_weight", 1, kdim)?,
                v: part("v_proj_weight", 2, vdim)?,
            }
        };
        let out_proj = linear(e, e, config.bias, xavier_uniform(e, e), vb.pp("out_proj"))?;
        Ok(Self { config, projections, out_proj, watch: ("attention", 0) })
    }

    /// A layer of maps that exist already, such as those of a checkpoint with other names: weights
    /// `q (e, e)`, `k (e, kdim)`, `v (e, vdim)`, `out (e, e)`, each with or without a bias.
    ///
    /// # Errors
    /// When the configuration is not valid (see [`MultiHeadAttention::new`]) or a weight has
    /// another shape.
    pub fn from_projections(
        config: MultiHeadConfig,
        [q, k, v]: [Linear; 3],
        out: Linear,
    ) -> Result<Self> {
        config.validate()?;
        let e = config.embed_dim;
        for (name, map, width) in [
            ("query", &q, e),
            ("key", &k, config.key_size()),
            ("value", &v, config.value_size()),
            ("output", &out, e),
        ] {
            if map.weight().dims() != [e, width] {
                let got = map.weight().dims();
                bail!("{OP}: expected the {name} weight ({e}, {width}), got {got:?}");
            }
        }
        let projections = Projections::Separate { q, k, v };
        Ok(Self { config, projections, out_proj: out, watch: ("attention", 0) })
    }

    /// Records its weights under this name and layer number (`attention` and 0 otherwise).
    pub fn watched_as(self, name: &'static str, layer: usize) -> Self {
        Self { watch: (name, layer), ..self }
    }

    /// The sizes.
    pub fn config(&self) -> &MultiHeadConfig {
        &self.config
    }

    /// Attention of `query (b, n_q, e)` over `key (b, n_k, kdim)` and `value (b, n_k, vdim)`:
    /// `(b, n_q, e)`. Where the three, or key and value, are the same tensor, they are projected by
    /// one product. Outputs at padded queries are finite but mean nothing.
    ///
    /// # Errors
    /// When the shapes or options do not fit, naming them.
    pub fn forward(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        self.check(query, key, value)?;
        let (b, n_q, e) = query.dims3()?;
        let [q, k, v] = self.project(query, key, value)?; // (b, h, n, d)
        let keys = KeyMask::new(options, &q, key.dim(1)?)?;
        let mut attended = Attention {
            scale: self.config.scale,
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
        if self.config.dropout > 0. {
            attended.dropout = ctx.rng().map(|rng| (self.config.dropout, rng));
        }
        let heads = attention(&q, &k, &v, &attended)?.output; // (b, h, n_q, d)
        self.out_proj.forward(&heads.transpose(1, 2)?.reshape((b, n_q, e))?)
    }

    fn check(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<()> {
        let MultiHeadConfig { embed_dim: e, .. } = self.config;
        let (kdim, vdim) = (self.config.key_size(), self.config.value_size());
        let fits = match (query.dims(), key.dims(), value.dims()) {
            (&[b_q, _, w_q], &[b_k, n_k, w_k], &[b_v, n_v, w_v]) => {
                (b_k, b_v, n_v) == (b_q, b_q, n_k) && (w_q, w_k, w_v) == (e, kdim, vdim)
            }
            _ => false,
        };
        if !fits {
            bail!(
                "{OP}: expected query (b, n_q, {e}), key (b, n_k, {kdim}), value (b, n_k, {vdim}), \
                 got {:?}, {:?} and {:?}",
                query.dims(),
                key.dims(),
                value.dims()
            );
        }
        Ok(())
    }

    /// Queries, keys and values of the heads, `(b, h, n, d)` each.
    fn project(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<[Tensor; 3]> {
        let h = self.config.num_heads;
        let one = |map: &Linear, xs| split_heads(&map.forward(xs)?, h);
        let packed = match &self.projections {
            Projections::Separate { q, k, v } => {
                return Ok([one(q, query)?, one(k, key)?, one(v, value)?]);
            }
            Projections::Packed(packed) => packed,
        };
        if key.id() != value.id() {
            let part = |i, xs| one(&self.rows(packed, i, 1)?, xs);
            return Ok([part(0, query)?, part(1, key)?, part(2, value)?]);
        }
        if query.id() == key.id() {
            return split_parts(&packed.forward(query)?, h);
        }
        let [k, v] = split_parts(&self.rows(packed, 1, 2)?.forward(key)?, h)?;
        Ok([one(&self.rows(packed, 0, 1)?, query)?, k, v])
    }

    /// `count` of the three maps that are packed, from the one numbered `start`.
    fn rows(&self, packed: &Linear, start: usize, count: usize) -> Result<Linear> {
        let e = self.config.embed_dim;
        let narrow = |t: &Tensor| t.narrow(0, start * e, count * e);
        Ok(Linear::new(narrow(packed.weight())?, packed.bias().map(narrow).transpose()?))
    }
}

/// `(b, n, h d)` to `(b, h, n, d)`, a view.
fn split_heads(xs: &Tensor, h: usize) -> Result<Tensor> {
    let (b, n, e) = xs.dims3()?;
    xs.reshape((b, n, h, e / h))?.transpose(1, 2)
}

/// `(b, n, N h d)` to N parts `(b, h, n, d)`. Their gradients are laid into one buffer.
fn split_parts<const N: usize>(xs: &Tensor, h: usize) -> Result<[Tensor; N]> {
    let (b, n, width) = xs.dims3()?;
    let xs = xs.reshape((b, n, N, h, width / (N * h)))?;
    match unbind(&xs.permute((0, 2, 3, 1, 4))?)?.try_into() {
        Ok(parts) => Ok(parts), // from (b, N, h, n, d)
        Err(parts) => bail!("{OP}: internal error: {} parts, expected {N}", Vec::len(&parts)),
    }
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
