//! Adam and its relatives.

use candle_core::{Result, Tensor};

use super::rule::{Float, Rule, apply};
use super::{Gradient, check_step, plain};

/// Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) where `decoupled`.
///
/// `m = b1 * m + (1 - b1) * g`, `v = b2 * v + (1 - b2) * g^2`,
/// `p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`. AMSGrad (Reddi et al. 2018), chosen by giving the
/// third state, divides by the largest v so far.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::optimizer::{Adam, AdamState};
/// let w = Var::new(&[1f64, 1.], &Device::Cpu)?;
/// let (m, v) = (w.zeros_like()?, w.zeros_like()?);
/// let state = AdamState { exp_avg: &m, exp_avg_sq: &v, max_exp_avg_sq: None };
/// Adam::new(0.1).step(1, &w, &Tensor::new(&[20f64, -3.], &Device::Cpu)?, state)?;
/// let w = w.to_vec1::<f64>()?;
/// assert!((w[0] - 0.9).abs() < 1e-8 && (w[1] - 1.1).abs() < 1e-8);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root.
    pub eps: f64,
    /// Added to the gradient as `weight_decay * p`; where `decoupled`, `p *= 1 - lr * weight_decay` before the step.
    pub weight_decay: f64,
    /// Whether weight decay goes apart from the gradient (AdamW).
    pub decoupled: bool,
}

/// The states of [`Adam`]; zeros before the first step. The names are PyTorch's.
#[derive(Debug, Clone, Copy)]
pub struct AdamState<'a> {
    /// The running mean m of the gradient.
    pub exp_avg: &'a Tensor,
    /// The running mean v of the squared gradient.
    pub exp_avg_sq: &'a Tensor,
    /// The largest v so far; `None` without AMSGrad.
    pub max_exp_avg_sq: Option<&'a Tensor>,
}

impl Adam {
    /// The paper's settings: betas 0.9 and 0.999, epsilon 1e-8, no decay.
    pub fn new(lr: f64) -> Self {
        Self { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0., decoupled: false }
    }

    /// Step `t`, counting from 1.
    ///
    /// # Errors
    /// A step 0; tensors that do not fit the parameter (see [the module](super)).
    pub fn step<'a>(
        &self,
        t: u64,
        param: &Tensor,
        grad: impl Into<Gradient<'a>>,
        state: AdamState<'_>,
    ) -> Result<()> {
        check_step("adam", t)?;
        let (rule, grad) = (AdamRule { c: *self, t }, grad.into());
        let (m, v) = (state.exp_avg, state.exp_avg_sq);
        match state.max_exp_avg_sq {
            None => apply::<8, 2, _>(&rule, param, grad, [m, v]),
            Some(top) => apply::<8, 3, _>(&rule, param, grad, [m, v, top]),
        }
    }
}

struct AdamRule {
    c: Adam,
    t: u64,
}

impl AdamRule {
    fn factors(&self) -> [f64; 8] {
        let Adam { lr, betas: [b1, b2], eps, weight_decay, decoupled } = self.c;
        let t = self.t as f64;
        let size = lr / (1. - b1.powf(t));
        let root = (1. - b2.powf(t)).sqrt();
        let (shrink, l2) =
            if decoupled { (1. - lr * weight_decay, 0.) } else { (1., weight_decay) };
        [shrink, l2, 1. - b1, b2, 1. - b2, size, root, eps]
    }

    /// The shrunken parameter and the new moments.
    #[inline(always)]
    fn moments<T: Float>([shrink, l2, take1, keep2, take2, ..]: [T; 8], x: [T; 4]) -> [T; 3] {
        let [p, g, m, v] = x;
        let p = p * shrink;
        let g = g + l2 * p;
        [p, m + take1 * (g - m), keep2 * v + take2 * g * g]
    }

    #[inline(always)]
    fn change<T: Float>([.., size, root, eps]: [T; 8], m: T, v: T) -> T {
        size * m / (v.root() / root + eps)
    }
}

impl Rule<8, 2> for AdamRule {
    const NAME: &'static str = "adam";
    const KERNEL: &'static str = "adam";
    const STATES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    fn constants(&self) -> [f64; 8] {
        self.factors()
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 8], p: T, g: T, [m, v]: [T; 2]) -> (T, [T; 2]) {
        let [p, m, v] = Self::moments(c, [p, g, m, v]);
        (p - Self::change(c, m, v), [m, v])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [m, v]: [&Tensor; 2]) -> Result<Vec<Tensor>> {
        let state = AdamState { exp_avg: m, exp_avg_sq: v, max_exp_avg_sq: None };
        plain::adam(&self.c, self.t, p, g, state)
    }
}

impl Rule<8, 3> for AdamRule {
    const NAME: &'static str = "adam";
    const KERNEL: &'static str = "amsgrad";
    const STATES: [&'static str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

    fn constants(&self) -> [f64; 8] {
        self.factors()
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 8], p: T, g: T, [m, v, top]: [T; 3]) -> (T, [T; 3]) {
        let [p, m, v] = Self::moments(c, [p, g, m, v]);
        let top = top.greater(v);
        (p - Self::change(c, m, top), [m, v, top])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [m, v, top]: [&Tensor; 3]) -> Result<Vec<Tensor>> {
        let state = AdamState { exp_avg: m, exp_avg_sq: v, max_exp_avg_sq: Some(top) };
        plain::adam(&self.c, self.t, p, g, state)
    }
}
