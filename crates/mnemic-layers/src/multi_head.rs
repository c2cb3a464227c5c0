//! Multi-head attention (Vaswani et al. 2017, section 3.2) with PyTorch's parameters.
//!
//! Letters: b batch, `n_q` queries, `n_k` keys, e the model's width, h heads, d = e / h.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::time_steps::unbind;

use crate::heads::split_heads;
use crate::init::xavier_uniform;
use crate::{AttentionOptions, Context, Heads, Linear, linear};

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

    fn heads(&self) -> Heads {
        Heads::new(self.scale, self.dropout)
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
    heads: Heads,
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
        Ok(Self { config, projections, out_proj, heads: config.heads() })
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
        Ok(Self { config, projections, out_proj: out, heads: config.heads() })
    }

    /// Records its weights under this name and layer number (`attention` and 0 otherwise).
    pub fn watched_as(self, name: &'static str, layer: usize) -> Self {
        Self { heads: self.heads.watched_as(name, layer), ..self }
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
        let [q, k, v] = self.project(query, key, value)?; // (b, h, n, d)
        let heads = self.heads.forward(&q, &k, &v, options, ctx)?; // (b, n_q, e)
        self.out_proj.forward(&heads)
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

/// `(b, n, N h d)` to N parts `(b, h, n, d)`. Their gradients are laid into one buffer.
fn split_parts<const N: usize>(xs: &Tensor, h: usize) -> Result<[Tensor; N]> {
    let (b, n, width) = xs.dims3()?;
    let xs = xs.reshape((b, n, N, h, width / (N * h)))?;
    match unbind(&xs.permute((0, 2, 3, 1, 4))?)?.try_into() {
        Ok(parts) => Ok(parts), // from (b, N, h, n, d)
        Err(parts) => bail!("{OP}: internal error: {} parts, expected {N}", Vec::len(&parts)),
    }
}
