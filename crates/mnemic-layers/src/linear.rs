//! The affine map with a chosen initial weight.

use candle_core::Result;
use candle_nn::{Init, Linear, VarBuilder};

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
