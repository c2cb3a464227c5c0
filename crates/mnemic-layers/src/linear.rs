//! The affine map with a chosen initial weight.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// The affine map `y = x Wᵀ + b`, as PyTorch's `nn.Linear`; [`linear()`] makes one.
///
/// `forward` takes `(…, in)` to `(…, out)`. Product, bias and all gradients are one operation.
///
/// ```
/// use candle_core::{Device, Module, Tensor};
/// use mnemic_layers::Linear;
/// let weight = Tensor::new(&[[1f32, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?;
/// let layer = Linear::new(weight, None);
/// let xs = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// assert_eq!(layer.forward(&xs)?.to_vec2::<f32>()?, [[1., 2., 3.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// The map of a `weight` `(out, in)` and a `bias` `(out)` that exist already, such as tied ones.
    /// Shapes that do not fit are an error of `forward`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// `W`, `(out, in)`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `b`, `(out)`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Linear {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        mnemic_kernels::linear::linear(xs, &self.weight, self.bias.as_ref())
    }
}

/// An affine map `y = x Wᵀ + b`; parameters `weight (out, in)` and, with `bias`, `bias (out)`,
/// which starts at 0.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use mnemic_layers::{ParamStore, init, linear};
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let layer = linear(3, 2, true, init::xavier_uniform(3, 2), vb.pp("answer"))?;
/// assert_eq!(layer.forward(&Tensor::ones((4, 3), DType::F32, &Device::Cpu)?)?.dims(), [4, 2]);
/// assert_eq!(store.vars()[1].0, "answer.weight");
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the parameters exist with another shape or type.
pub fn linear(
    in_dim: usize,
    out_dim: usize,
    bias: bool,
    init: Init,
    vb: VarBuilder<'_>,
) -> Result<Linear> {
    let weight = vb.get_with_hints((out_dim, in_dim), "weight", init)?;
    let bias = match bias {
        true => Some(vb.get_with_hints(out_dim, "bias", Init::Const(0.))?),
        false => None,
    };
    Ok(Linear::new(weight, bias))
}
