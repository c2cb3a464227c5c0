//! The affine map with a chosen initial weight.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::linear::Panels;

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
    panels: Option<Panels>,
}

impl Linear {
    /// The map of a `weight` `(out, in)` and a `bias` `(out)` that exist already, such as tied ones.
    /// Shapes that do not fit are an error of `forward`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, panels: None }
    }

    /// The same map, faster, most of all for a few dozen rows, as in answering: on the CPU, a weight that no gradient goes to is laid out once more in the
    /// order in which products read it ([`Panels`]). Other weights stay as they are.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn for_inference(self) -> Result<Self> {
        let panels = if is_frozen(&self.weight) { Panels::new(&self.weight)? } else { None };
        Ok(Self { panels, ..self })
    }

    /// One map in place of several of the same input, outputs side by side, laid out for inference; `None` where a gradient goes to a
    /// weight, or only some have a bias.
    pub(crate) fn joined_for_inference(maps: &[&Self]) -> Result<Option<Self>> {
        let biases: Vec<&Tensor> = maps.iter().filter_map(|map| map.bias()).collect();
        let all = [0, maps.len()].contains(&biases.len());
        if !all || biases.iter().any(|b| b.track_op()) || !maps.iter().all(|m| is_frozen(&m.weight))
        {
            return Ok(None);
        }
        let weights: Vec<&Tensor> = maps.iter().map(|map| &map.weight).collect();
        let bias = match biases.is_empty() {
            true => None,
            false => Some(Tensor::cat(&biases, 0)?),
        };
        Self::new(Tensor::cat(&weights, 0)?, bias).for_inference().map(Some)
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

/// A matrix in the CPU's memory without a gradient. One that is a view of fewer numbers, as where only shapes are asked for, is none.
fn is_frozen(weight: &Tensor) -> bool {
    weight.rank() == 2 && weight.device().is_cpu() && weight.is_contiguous() && !weight.track_op()
}

impl Module for Linear {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.panels {
            Some(panels) => panels.forward(xs, self.bias.as_ref()),
            None => mnemic_kernels::linear::linear(xs, &self.weight, self.bias.as_ref()),
        }
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use mnemic_testing::{assert_close, waves};

    use super::*;

    #[test]
    fn inference_changes_no_result_and_no_trained_weight() {
        let weight = waves(&[5, 7], 1., 1., DType::F32);
        let bias = waves(&[5], 2., 1., DType::F32);
        let xs = waves(&[2, 3, 7], 3., 1., DType::F32);
        let map = Linear::new(weight.clone(), Some(bias.clone()));
        let expected = map.forward(&xs).unwrap();
        let fast = map.for_inference().unwrap();
        assert!(fast.panels.is_some());
        assert_eq!(fast.weight().dims(), [5, 7]);
        assert_close("laid out", &fast.forward(&xs).unwrap(), &expected, 1e-6, 1e-6);

        let var = Var::from_tensor(&weight).unwrap();
        let trained = Linear::new(var.as_tensor().clone(), None).for_inference().unwrap();
        assert!(trained.panels.is_none() && trained.weight().is_variable());
        assert!(Linear::joined_for_inference(&[&trained, &trained]).unwrap().is_none());
        // Only a shape: no memory is taken.
        let shape = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
        let shape = shape.broadcast_as((1 << 20, 1 << 20)).unwrap();
        let map = Linear::new(shape, None).for_inference().unwrap();
        assert_eq!(map.weight().stride(), [0, 0]);

        let map = Linear::new(weight, Some(bias));
        let joined = Linear::joined_for_inference(&[&map, &map]).unwrap().unwrap();
        let both = joined.forward(&xs).unwrap();
        for part in 0..2 {
            let part = both.narrow(2, part * 5, 5).unwrap();
            assert_close("joined", &part, &expected, 1e-6, 1e-6);
        }
    }
}
