//! Features of facts beside a vector of their row, as the attention of dynamic memory networks scores them (Kumar et al. 2015,
//! section 2.3; Xiong et al. 2016, eq. 8).

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;

use candle_core::{Result, Tensor, bail};

pub(crate) use cpu::{FeatureGradient, Features};

use crate::fused;

/// `[f ∘ v ; |f - v|]` of every fact: facts `(b, n, h)` and vectors `(b, h)` to `(b, n, 2h)`. The derivative of `|x|` at 0 is 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::interaction::interaction;
/// let facts = Tensor::new(&[[[1f32, 2.], [3., 4.]]], &Device::Cpu)?;
/// let z = interaction(&facts, &Tensor::new(&[[2f32, 3.]], &Device::Cpu)?)?;
/// assert_eq!(z.to_vec3::<f32>()?, [[[2., 6., 1., 1.], [6., 12., 1., 1.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn interaction(facts: &Tensor, vectors: &Tensor) -> Result<Tensor> {
    let (b, _, h) = facts.dims3()?;
    if vectors.dims() != [b, h] {
        bail!("interaction: expected vectors ({b}, {h}), got {:?}", vectors.dims());
    }
    if fused::takes(&[facts, vectors]) && facts.elem_count() > 0 {
        return fused::apply1(cpu::InteractionOp, &[facts, vectors]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[facts, vectors]) {
        return crate::cuda::apply1(cuda::InteractionOp, &[facts, vectors]);
    }
    plain::interaction(facts, vectors)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};
    use mnemic_testing::{assert_close, check_gradients, waves};

    use super::*;

    #[test]
    fn fused_equals_plain() {
        for (b, n, h) in [(1, 1, 1), (3, 5, 7), (2, 63, 65), (0, 2, 3), (2, 0, 3), (40, 20, 80)] {
            for dtype in [DType::F32, DType::F64] {
                let facts = waves(&[n, b, h], 1., 2., dtype).transpose(0, 1).unwrap();
                let vectors = waves(&[b, h], 2., 2., dtype);
                let fast = interaction(&facts, &vectors).unwrap();
                let slow = plain::interaction(&facts, &vectors).unwrap();
                assert_close("interaction", &fast, &slow, 0., 0.);
            }
        }
    }

    #[cfg(cuda_path)]
    #[test]
    fn cuda() {
        use crate::cuda::tests::{agree, agree_in_half};
        for (b, n, h) in [(1, 1, 1), (3, 5, 7), (2, 63, 65), (4, 20, 80)] {
            // No number equals another in half precision: there candle's slope of |x| is 1.
            let vectors = waves(&[b, h], 2., 1., DType::F32);
            let vectors = (vectors.sign().unwrap() * 3. + vectors).unwrap();
            let x = [waves(&[b, n, h], 1., 2., DType::F32), vectors];
            let test = format!("interaction::cuda {b} {n} {h}");
            let fast = |x: &[Tensor]| Ok(vec![interaction(&x[0], &x[1])?]);
            let slow = |x: &[Tensor]| Ok(vec![plain::interaction(&x[0], &x[1])?]);
            agree(&test, &x, fast, slow);
            agree_in_half(&test, 1, &x, fast, slow);
        }
    }

    #[test]
    fn gradients() {
        let probe = waves(&[2, 3, 8], 4., 1., DType::F64);
        let (facts, vectors) =
            (waves(&[2, 3, 4], 1., 1., DType::F64), waves(&[2, 4], 2.5, 1., DType::F64));
        check_gradients(&[("facts", facts), ("vectors", vectors)], 1e-7, |x| {
            interaction(&x[0], &x[1])?.mul(&probe)?.sum_all()
        });
    }

    #[test]
    fn wrong_shapes_are_named() {
        let facts = Tensor::zeros((2, 3, 4), DType::F32, &candle_core::Device::Cpu).unwrap();
        let error = interaction(&facts, &facts.narrow(1, 0, 1).unwrap()).unwrap_err().to_string();
        assert!(error.contains("expected vectors (2, 4)"), "{error}");
    }
}
