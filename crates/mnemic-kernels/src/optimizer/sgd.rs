//! Gradient descent.

use candle_core::{Result, Tensor, bail};

use super::rule::{Float, Rule, apply};
use super::{Gradient, check_step, plain};

/// Gradient descent, with or without momentum.
///
/// With `g = gradient + weight_decay * p`: without momentum `p -= lr * g`; with momentum
/// `b = momentum * b + (1 - dampening) * g` (`b = g` in step 1), then `p -= lr * b`, or with Nesterov
/// `p -= lr * (g + momentum * b)`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::optimizer::Sgd;
/// let w = Var::new(&[2f64], &Device::Cpu)?;
/// Sgd::new(0.25).step(1, &w, &Tensor::new(&[4f64], &Device::Cpu)?, None)?;
/// assert_eq!(w.to_vec1::<f64>()?, [1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 for none.
    pub momentum: f64,
    /// Dampening of the gradient in the momentum.
    pub dampening: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Added to the gradient as `weight_decay * p`.
    pub weight_decay: f64,
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new(lr: f64) -> Self {
        Self { lr, momentum: 0., dampening: 0., nesterov: false, weight_decay: 0. }
    }

    /// Step `t`, counting from 1. Momentum needs its buffer; what it holds before step 1 does not matter.
    ///
    /// # Errors
    /// Momentum without buffer; tensors that do not fit the parameter (see [the module](super)).
    pub fn step<'a>(
        &self,
        t: u64,
        param: &Tensor,
        grad: impl Into<Gradient<'a>>,
        momentum_buffer: Option<&Tensor>,
    ) -> Result<()> {
        check_step("sgd", t)?;
        let (c, grad) = (*self, grad.into());
        let Some(buffer) = momentum_buffer else {
            if self.momentum != 0. {
                bail!("sgd: momentum {} needs a momentum_buffer", self.momentum);
            }
            return apply(&Descent(c), param, grad, []);
        };
        match (t == 1, self.nesterov) {
            (false, false) => apply(&Momentum::<false, false>(c), param, grad, [buffer]),
            (false, true) => apply(&Momentum::<false, true>(c), param, grad, [buffer]),
            (true, false) => apply(&Momentum::<true, false>(c), param, grad, [buffer]),
            (true, true) => apply(&Momentum::<true, true>(c), param, grad, [buffer]),
        }
    }
}

struct Descent(Sgd);

impl Rule<2, 0> for Descent {
    const NAME: &'static str = "sgd";
    const KERNEL: &'static str = "sgd";
    const STATES: [&'static str; 0] = [];

    fn constants(&self) -> [f64; 2] {
        [self.0.lr, self.0.weight_decay]
    }

    #[inline(always)]
    fn update<T: Float>(&self, [lr, decay]: [T; 2], p: T, g: T, _: [T; 0]) -> (T, [T; 0]) {
        (p - lr * (g + decay * p), [])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, _: [&Tensor; 0]) -> Result<Vec<Tensor>> {
        plain::sgd(&self.0, 1, p, g, None)
    }
}

/// The choices are constants: branches in the loop would cost its vectors.
struct Momentum<const FIRST: bool, const NESTEROV: bool>(Sgd);

impl<const FIRST: bool, const NESTEROV: bool> Rule<4, 1> for Momentum<FIRST, NESTEROV> {
    const NAME: &'static str = "sgd";
    const KERNEL: &'static str = match (FIRST, NESTEROV) {
        (false, false) => "momentum",
        (false, true) => "nesterov",
        (true, false) => "momentum_first",
        (true, true) => "nesterov_first",
    };
    const STATES: [&'static str; 1] = ["momentum_buffer"];

    fn constants(&self) -> [f64; 4] {
        [self.0.lr, self.0.weight_decay, self.0.momentum, 1. - self.0.dampening]
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 4], p: T, g: T, [buffer]: [T; 1]) -> (T, [T; 1]) {
        let [lr, decay, momentum, take] = c;
        let g = g + decay * p;
        // The first step starts the buffer at the gradient, undampened.
        let buffer = if FIRST { g } else { momentum * buffer + take * g };
        let d = if NESTEROV { g + momentum * buffer } else { buffer };
        (p - lr * d, [buffer])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [buffer]: [&Tensor; 1]) -> Result<Vec<Tensor>> {
        // Any step after the first is as good as another.
        plain::sgd(&self.0, if FIRST { 1 } else { 2 }, p, g, Some(buffer))
    }
}
