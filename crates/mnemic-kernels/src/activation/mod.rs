//! Element-wise functions with their backward pass: hyperbolic tangent.

mod cpu;
pub mod plain;

use candle_core::{Result, Tensor};

/// `tanh(x)`, any shape. Its backward pass is `g (1 - y²)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let y = mnemic_kernels::activation::tanh(&Tensor::new(&[0f32, 20., -20.], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 1., -1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn tanh(xs: &Tensor) -> Result<Tensor> {
    if cpu::takes(xs) {
        return xs.contiguous()?.apply_op1(cpu::TanhOp);
    }
    plain::tanh(xs)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};
    use mnemic_testing::{assert_close, check_gradients, waves};

    use super::*;

    #[test]
    fn fused_equals_plain() {
        for n in [0, 1, 63, 65, 1000] {
            for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
                let xs = waves(&[2, n], 1., 4., dtype).t().unwrap();
                let (fast, slow) = (tanh(&xs).unwrap(), plain::tanh(&xs).unwrap());
                assert_close("tanh", &fast, &slow, tolerance, tolerance);
            }
        }
    }

    #[test]
    fn gradients() {
        let probe = waves(&[3, 4], 2., 1., DType::F64);
        check_gradients(&[("x", waves(&[3, 4], 1., 2., DType::F64))], 1e-8, |x| {
            tanh(&x[0])?.mul(&probe)?.sum_all()
        });
        let x = Var::new(&[1e4f32, -1e4, 1e-40], &Device::Cpu).unwrap();
        let grads = tanh(&x).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0., 0., 1.]);
    }

    #[test]
    fn hostile_values() {
        let xs = Tensor::new(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], &Device::Cpu).unwrap();
        let ys = tanh(&xs).unwrap().to_vec1::<f32>().unwrap();
        assert!(ys[0].is_nan() && ys[1..] == [1., -1.]);
    }
}
