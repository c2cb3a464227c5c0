//! RMSProp in two forms.

use candle_core::{Result, Tensor, bail};

use super::rule::{Float, Rule, apply};
use super::{Gradient, plain};

/// RMSProp (Tieleman and Hinton 2012) as in PyTorch: epsilon outside the root.
///
/// `s = alpha * s + (1 - alpha) * g^2`, `d = g / (sqrt(s) + eps)`; centred: `s - m^2` in place of `s`, where m is the
/// running mean of g; `p -= lr * d`, or with momentum `b = momentum * b + d`, `p -= lr * b`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::optimizer::{RmsProp, RmsPropState};
/// let w = Var::new(&[1f64], &Device::Cpu)?;
/// let square = w.zeros_like()?;
/// let state = RmsPropState { square_avg: &square, grad_avg: None, momentum_buffer: None };
/// RmsProp::new(0.05).step(&w, &Tensor::new(&[3f64], &Device::Cpu)?, state)?;
/// assert!((w.to_vec1::<f64>()?[0] - 0.5).abs() < 1e-6); // g / sqrt(0.01 g^2) = 10
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay rate of the running means.
    pub alpha: f64,
    /// Added to the root.
    pub eps: f64,
    /// Momentum; 0 for none.
    pub momentum: f64,
    /// Added to the gradient as `weight_decay * p`.
    pub weight_decay: f64,
}

/// The states of [`RmsProp`]; zeros before the first step. The names are PyTorch's.
#[derive(Debug, Clone, Copy)]
pub struct RmsPropState<'a> {
    /// The running mean of the squared gradient.
    pub square_avg: &'a Tensor,
    /// The running mean of the gradient; `Some` makes it centred.
    pub grad_avg: Option<&'a Tensor>,
    /// The sum of changes; `Some` where there is momentum.
    pub momentum_buffer: Option<&'a Tensor>,
}

impl RmsProp {
    /// PyTorch's settings: alpha 0.99, epsilon 1e-8.
    pub fn new(lr: f64) -> Self {
        Self { lr, alpha: 0.99, eps: 1e-8, momentum: 0., weight_decay: 0. }
    }

    /// One step.
    ///
    /// # Errors
    /// Momentum without buffer; tensors that do not fit the parameter (see [the module](super)).
    pub fn step<'a>(
        &self,
        param: &Tensor,
        grad: impl Into<Gradient<'a>>,
        state: RmsPropState<'_>,
    ) -> Result<()> {
        let (s, grad) = (state.square_avg, grad.into());
        match (state.grad_avg, state.momentum_buffer) {
            (_, None) if self.momentum != 0. => {
                bail!("rmsprop: momentum {} needs a momentum_buffer", self.momentum)
            }
            (None, None) => apply::<6, 1, _>(&Plain(*self), param, grad, [s]),
            (None, Some(b)) => apply::<6, 2, _>(&WithMomentum(*self), param, grad, [s, b]),
            (Some(m), None) => apply::<6, 2, _>(&Centered(*self), param, grad, [s, m]),
            (Some(m), Some(b)) => apply::<6, 3, _>(&Centered(*self), param, grad, [s, m, b]),
        }
    }

    fn factors(&self) -> [f64; 6] {
        [self.weight_decay, self.alpha, 1. - self.alpha, self.lr, self.eps, self.momentum]
    }

    /// The gradient with decay, and the running means of its square and of itself.
    #[inline(always)]
    fn means<T: Float>([decay, keep, take, ..]: [T; 6], x: [T; 4]) -> [T; 3] {
        let [p, g, s, m] = x;
        let g = g + decay * p;
        [g, keep * s + take * g * g, m + take * (g - m)]
    }
}

struct Plain(RmsProp);
struct WithMomentum(RmsProp);
struct Centered(RmsProp);

impl Rule<6, 1> for Plain {
    const NAME: &'static str = "rmsprop";
    const KERNEL: &'static str = "rmsprop";
    const STATES: [&'static str; 1] = ["square_avg"];

    fn constants(&self) -> [f64; 6] {
        self.0.factors()
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 6], p: T, g: T, [s]: [T; 1]) -> (T, [T; 1]) {
        let [g, s, _] = RmsProp::means(c, [p, g, s, T::ZERO]);
        let [_, _, _, lr, eps, _] = c;
        (p - lr * (g / (s.root() + eps)), [s])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [s]: [&Tensor; 1]) -> Result<Vec<Tensor>> {
        let state = RmsPropState { square_avg: s, grad_avg: None, momentum_buffer: None };
        plain::rmsprop(&self.0, p, g, state)
    }
}

impl Rule<6, 2> for WithMomentum {
    const NAME: &'static str = "rmsprop";
    const KERNEL: &'static str = "rmsprop_momentum";
    const STATES: [&'static str; 2] = ["square_avg", "momentum_buffer"];

    fn constants(&self) -> [f64; 6] {
        self.0.factors()
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 6], p: T, g: T, [s, b]: [T; 2]) -> (T, [T; 2]) {
        let [g, s, _] = RmsProp::means(c, [p, g, s, T::ZERO]);
        let [_, _, _, lr, eps, momentum] = c;
        let b = momentum * b + g / (s.root() + eps);
        (p - lr * b, [s, b])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [s, b]: [&Tensor; 2]) -> Result<Vec<Tensor>> {
        let state = RmsPropState { square_avg: s, grad_avg: None, momentum_buffer: Some(b) };
        plain::rmsprop(&self.0, p, g, state)
    }
}

impl Rule<6, 2> for Centered {
    const NAME: &'static str = "rmsprop";
    const KERNEL: &'static str = "rmsprop_centered";
    const STATES: [&'static str; 2] = ["square_avg", "grad_avg"];

    fn constants(&self) -> [f64; 6] {
        self.0.factors()
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 6], p: T, g: T, [s, m]: [T; 2]) -> (T, [T; 2]) {
        let [g, s, m] = RmsProp::means(c, [p, g, s, m]);
        let [_, _, _, lr, eps, _] = c;
        (p - lr * (g / ((s - m * m).root() + eps)), [s, m])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [s, m]: [&Tensor; 2]) -> Result<Vec<Tensor>> {
        let state = RmsPropState { square_avg: s, grad_avg: Some(m), momentum_buffer: None };
        plain::rmsprop(&self.0, p, g, state)
    }
}

impl Rule<6, 3> for Centered {
    const NAME: &'static str = "rmsprop";
    const KERNEL: &'static str = "rmsprop_centered_momentum";
    const STATES: [&'static str; 3] = ["square_avg", "grad_avg", "momentum_buffer"];

    fn constants(&self) -> [f64; 6] {
        self.0.factors()
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 6], p: T, g: T, [s, m, b]: [T; 3]) -> (T, [T; 3]) {
        let [g, s, m] = RmsProp::means(c, [p, g, s, m]);
        let [_, _, _, lr, eps, momentum] = c;
        let b = momentum * b + g / ((s - m * m).root() + eps);
        (p - lr * b, [s, m, b])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [s, m, b]: [&Tensor; 3]) -> Result<Vec<Tensor>> {
        let state = RmsPropState { square_avg: s, grad_avg: Some(m), momentum_buffer: Some(b) };
        plain::rmsprop(&self.0, p, g, state)
    }
}

/// RMSProp as in Graves 2013 ("Generating sequences with recurrent neural networks", eq. 38 to 41).
///
/// `n = alpha * n + (1 - alpha) * g^2`, `m = alpha * m + (1 - alpha) * g`,
/// `d = momentum * d - lr * g / sqrt(n - m^2 + eps)`, `p += d`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::optimizer::{RmsPropGraves, RmsPropGravesState};
/// let w = Var::new(&[1f64], &Device::Cpu)?;
/// let [n, m, d] = [w.zeros_like()?, w.zeros_like()?, w.zeros_like()?];
/// let state = RmsPropGravesState { square_avg: &n, grad_avg: &m, momentum_buffer: &d };
/// RmsPropGraves::new(0.1).step(&w, &Tensor::new(&[0f64], &Device::Cpu)?, state)?;
/// assert_eq!(w.to_vec1::<f64>()?, [1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsPropGraves {
    /// Learning rate; 1e-4 in the paper.
    pub lr: f64,
    /// Decay rate of the running means; 0.95 in the paper.
    pub alpha: f64,
    /// Momentum; 0.9 in the paper.
    pub momentum: f64,
    /// Added inside the root; 1e-4 in the paper.
    pub eps: f64,
    /// Added to the gradient as `weight_decay * p`.
    pub weight_decay: f64,
}

/// The states of [`RmsPropGraves`]; zeros before the first step.
#[derive(Debug, Clone, Copy)]
pub struct RmsPropGravesState<'a> {
    /// n, the running mean of the squared gradient.
    pub square_avg: &'a Tensor,
    /// m, the running mean of the gradient.
    pub grad_avg: &'a Tensor,
    /// d, the last change.
    pub momentum_buffer: &'a Tensor,
}

impl RmsPropGraves {
    /// The paper's settings but for the learning rate.
    pub fn new(lr: f64) -> Self {
        Self { lr, alpha: 0.95, momentum: 0.9, eps: 1e-4, weight_decay: 0. }
    }

    /// One step.
    ///
    /// # Errors
    /// Tensors that do not fit the parameter (see [the module](super)).
    pub fn step<'a>(
        &self,
        param: &Tensor,
        grad: impl Into<Gradient<'a>>,
        state: RmsPropGravesState<'_>,
    ) -> Result<()> {
        let RmsPropGravesState { square_avg, grad_avg, momentum_buffer } = state;
        apply(self, param, grad.into(), [square_avg, grad_avg, momentum_buffer])
    }
}

impl Rule<6, 3> for RmsPropGraves {
    const NAME: &'static str = "rmsprop-graves";
    const KERNEL: &'static str = "rmsprop_graves";
    const STATES: [&'static str; 3] = ["square_avg", "grad_avg", "momentum_buffer"];

    fn constants(&self) -> [f64; 6] {
        [self.weight_decay, self.alpha, 1. - self.alpha, self.lr, self.eps, self.momentum]
    }

    #[inline(always)]
    fn update<T: Float>(&self, c: [T; 6], p: T, g: T, [n, m, d]: [T; 3]) -> (T, [T; 3]) {
        let [decay, keep, take, lr, eps, momentum] = c;
        let g = g + decay * p;
        let n = keep * n + take * g * g;
        let m = keep * m + take * g;
        let d = momentum * d - lr * g / (n - m * m + eps).root();
        (p + d, [n, m, d])
    }

    fn plain(&self, p: &Tensor, g: &Tensor, [n, m, d]: [&Tensor; 3]) -> Result<Vec<Tensor>> {
        let state = RmsPropGravesState { square_avg: n, grad_avg: m, momentum_buffer: d };
        plain::rmsprop_graves(self, p, g, state)
    }
}
