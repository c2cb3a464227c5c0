//! Normalisation over the last axes: LayerNorm and RMSNorm.

use candle_core::{Module, Result, Shape, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::normalization::{layer_norm, rms_norm};

/// What a [`LayerNorm`] has; PyTorch's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNormConfig {
    /// Added to the variance.
    pub eps: f64,
    /// Whether there is a gain `weight`.
    pub weight: bool,
    /// Whether there is an offset `bias`; it needs a gain.
    pub bias: bool,
}

impl Default for LayerNormConfig {
    fn default() -> Self {
        Self { eps: 1e-5, weight: true, bias: true }
    }
}

/// Layer normalisation (Ba et al. 2016, eq. 3-4), as PyTorch's `nn.LayerNorm`:
/// `y = (x - μ) / sqrt(σ² + ε) ∘ weight + bias`, where `μ` and `σ²` are the mean and the (biased)
/// variance over the axes of `normalized_shape`, the last ones of the input.
///
/// Parameters `weight`, which starts at 1, and `bias`, which starts at 0, of that shape. Unlike
/// candle's layer it passes gradients on in every form.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use mnemic_layers::{LayerNorm, LayerNormConfig, ParamStore};
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F64, &Device::Cpu);
/// let config = LayerNormConfig { eps: 0., ..LayerNormConfig::default() };
/// let norm = LayerNorm::new(2, config, vb.pp("norm"))?;
/// let xs = Tensor::new(&[[3f64, 4.], [-1., 5.]], &Device::Cpu)?;
/// assert_eq!(norm.forward(&xs)?.to_vec2::<f64>()?, [[-1., 1.], [-1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LayerNorm {
    normalized_shape: Shape,
    eps: f64,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl LayerNorm {
    /// A norm over the last axes, of this shape.
    ///
    /// # Errors
    /// When the shape has no axis or an empty one, `eps` is negative, there is a bias without a
    /// weight, or a parameter exists with another shape or type.
    pub fn new(
        normalized_shape: impl Into<Shape>,
        config: LayerNormConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let shape = checked("layer norm", normalized_shape, config.eps)?;
        if config.bias && !config.weight {
            bail!("layer norm: a bias needs a weight");
        }
        let get = |wanted: bool, name, value| {
            wanted.then(|| vb.get_with_hints(shape.clone(), name, Init::Const(value))).transpose()
        };
        let (weight, bias) = (get(config.weight, "weight", 1.)?, get(config.bias, "bias", 0.)?);
        Ok(Self { normalized_shape: shape, eps: config.eps, weight, bias })
    }

    /// The gain.
    pub fn weight(&self) -> Option<&Tensor> {
        self.weight.as_ref()
    }

    /// The offset.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for LayerNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        over_last_axes("layer norm", xs, &self.normalized_shape, |xs| {
            let flat = |p: &Option<Tensor>| p.as_ref().map(Tensor::flatten_all).transpose();
            let (weight, bias) = (flat(&self.weight)?, flat(&self.bias)?);
            layer_norm(xs, weight.as_ref(), bias.as_ref(), self.eps)
        })
    }
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019, eq. 4), as PyTorch's `nn.RMSNorm`:
/// `y = x / sqrt(mean(x²) + ε) ∘ weight`.
///
/// Parameter `weight`, which starts at 1. Unlike candle's layer it passes gradients on.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use mnemic_layers::{ParamStore, RmsNorm};
/// let store = ParamStore::new(0);
/// let norm = RmsNorm::new(2, 0., store.builder(DType::F64, &Device::Cpu))?;
/// let ys = norm.forward(&Tensor::new(&[[1f64, 7.]], &Device::Cpu)?)?.to_vec2::<f64>()?;
/// assert!((ys[0][0] - 0.2).abs() < 1e-15 && (ys[0][1] - 1.4).abs() < 1e-15);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RmsNorm {
    normalized_shape: Shape,
    eps: f64,
    weight: Tensor,
}

impl RmsNorm {
    /// A norm over the last axes, of this shape.
    ///
    /// # Errors
    /// When the shape has no axis or an empty one, `eps` is negative, or `weight` exists with
    /// another shape or type.
    pub fn new(normalized_shape: impl Into<Shape>, eps: f64, vb: VarBuilder<'_>) -> Result<Self> {
        let shape = checked("rms norm", normalized_shape, eps)?;
        let weight = vb.get_with_hints(shape.clone(), "weight", Init::Const(1.))?;
        Ok(Self { normalized_shape: shape, eps, weight })
    }

    /// The gain.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

impl Module for RmsNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        over_last_axes("rms norm", xs, &self.normalized_shape, |xs| {
            rms_norm(xs, Some(&self.weight.flatten_all()?), self.eps)
        })
    }
}

fn checked(op: &str, shape: impl Into<Shape>, eps: f64) -> Result<Shape> {
    let shape = shape.into();
    if shape.rank() == 0 || shape.elem_count() == 0 {
        bail!("{op}: expected a shape of positive sizes, got {:?}", shape.dims());
    }
    // Written so that NaN is refused too.
    if !(0. ..f64::INFINITY).contains(&eps) {
        bail!("{op}: eps must be finite and not negative, got {eps}");
    }
    Ok(shape)
}

/// Applies `f`, which works on the last axis, over all axes of `shape`, flattened to one.
fn over_last_axes(
    op: &str,
    xs: &Tensor,
    shape: &Shape,
    f: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if !xs.dims().ends_with(shape.dims()) {
        bail!("{op}: expected an input that ends in {:?}, got {:?}", shape.dims(), xs.dims());
    }
    if shape.rank() == 1 {
        return f(xs);
    }
    let rows = xs.elem_count() / shape.elem_count();
    f(&xs.reshape((rows, shape.elem_count()))?)?.reshape(xs.shape())
}
