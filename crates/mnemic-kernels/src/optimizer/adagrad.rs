//! Adagrad.

use candle_core::{Result, Tensor};

use super::rule::{Float, Rule, apply};
use super::{Gradient, check_step, plain};

/// Adagrad (Duchi et al. 2011).
///
/// `s += g^2`, `p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::optimizer::Adagrad;
/// let w = Var::new(&[1f64], &Device::Cpu)?;
/// let sum = w.zeros_like()?;
/// Adagrad::new(0.5).step(1, &w, &Tensor::new(&[3f64], &Device::Cpu)?, &sum)?;
/// assert!((w.to_vec1::<f64>()?[0] - 0.5).abs() < 1e-9);
/// assert_eq!(sum.to_vec1::<f64>()?, [9.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the learning rate.
    pub lr_decay: f64,
    /// Added to the root.
    pub eps: f64,
    /// Added to the gradient as `weight_decay * p`.
    pub weight_decay: f64,
}

impl Adagrad {
    /// PyTorch's settings: epsilon 1e-10 and nothing else.
    pub fn new(lr: f64) -> Self {
        Self { lr, lr_decay: 0., eps: 1e-10, weight_decay: 0. }
    }

    /// Step `t`, counting from 1. `sum` starts at zeros or at a small constant.
    ///
    /// # Errors
    /// A step 0; tensors that do not fit the parameter (see [the module](super)).
    pub fn step<'a>(
        &self,
        t: u64,
        param: &Tensor,
        grad: impl Into<Gradient<'a>>,
        sum: &Tensor,
    ) -> Result<()> {
        check_step("adagrad", t)?;
        apply(&AdagradRule { c: *self, t }, param, grad.into(), [sum])
    }
}

struct AdagradRule {
    c: Adagrad,
    t: u64,
}

impl Rule<3, 1> for AdagradRule {
    const NAME: &'static str = "adagrad";
    const KERNEL: &'static str = "adagrad";
    const STATES: [&'static str; 1] = ["sum"];

    fn constants(&self) -> [f64; 3] {
        let Adagrad { lr, lr_decay, eps, weight_decay } = self.c;
        [lr / (1. + (self.t - 1) as f64 * lr_decay), weight_decay, eps]
    }

    #[inline(always)]
    fn update<T: Float>(&self, [lr, decay, eps]: [T; 3], p: T, g: T, [s]: [T; 1]) -> (T, [T; 1]) {
        let g = g + decay * p;
        let s = s + g * g;
        (p - lr * g / (s.root() + eps), [s])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [s]: [&Tensor; 1]) -> Result<Vec<Tensor>> {
        plain::adagrad(&self.c, self.t, p, g, s)
    }
}
