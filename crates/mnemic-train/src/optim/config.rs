//! The optimisers' settings.

use serde::{Deserialize, Serialize};

use crate::error::{Result, check};

/// Which optimiser, with its settings; in a recipe `name = "adam"` and the fields of [`Adam`].
///
/// ```
/// use mnemic_train::optim::{Adam, OptimizerConfig};
/// let config: OptimizerConfig = serde_json::from_str(r#"{"name": "adam", "lr": 0.001}"#)?;
/// assert_eq!(config, OptimizerConfig::Adam(Adam::new(0.001)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent, with or without momentum.
    Sgd(Sgd),
    /// Adam (Kingma and Ba 2015); weight decay is added to the gradient.
    Adam(Adam),
    /// Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019).
    #[serde(rename = "adamw")]
    AdamW(Adam),
    /// Adagrad (Duchi et al. 2011).
    Adagrad(Adagrad),
    /// RMSProp (Tieleman and Hinton 2012) as in PyTorch: epsilon outside the root.
    #[serde(rename = "rmsprop")]
    RmsProp(RmsProp),
    /// RMSProp as in Graves 2013 ("Generating sequences with recurrent neural networks", eq. 38 to 41).
    #[serde(rename = "rmsprop-graves")]
    RmsPropGraves(RmsPropGraves),
}

/// Which parameters weight decay applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Spares vectors and scalars (biases, gains) and parameters whose name contains `embedding`.
    #[default]
    Weights,
    /// Spares vectors and scalars only.
    Matrices,
    /// Applies to every parameter, as PyTorch does.
    All,
}

impl Decay {
    /// Whether a parameter is decayed.
    pub fn applies(self, name: &str, rank: usize) -> bool {
        match self {
            Self::All => true,
            Self::Matrices => rank > 1,
            Self::Weights => rank > 1 && !name.to_ascii_lowercase().contains("embedding"),
        }
    }
}

/// Settings of [`OptimizerConfig::Sgd`].
///
/// With gradient g: `v = momentum * v + (1 - dampening) * g` (at first `v = g`), then `p -= lr * v`, or with Nesterov
/// `p -= lr * (g + momentum * v)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 for none.
    #[serde(default)]
    pub momentum: f64,
    /// Dampening of the gradient in the momentum.
    #[serde(default)]
    pub dampening: f64,
    /// Nesterov's momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Added to the gradient: `weight_decay * p`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Which parameters are decayed.
    #[serde(default)]
    pub decay: Decay,
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new(lr: f64) -> Self {
        let decay = Decay::default();
        Self { lr, momentum: 0., dampening: 0., nesterov: false, weight_decay: 0., decay }
    }
}

/// Settings of [`OptimizerConfig::Adam`] and [`OptimizerConfig::AdamW`].
///
/// `m = b1 * m + (1 - b1) * g`, `v = b2 * v + (1 - b2) * g^2`,
/// `p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the root.
    #[serde(default = "eps_8")]
    pub eps: f64,
    /// Adam: added to the gradient as `weight_decay * p`. AdamW: `p *= 1 - lr * weight_decay` before the step.
    #[serde(default)]
    pub weight_decay: f64,
    /// Divides by the largest v so far (Reddi et al. 2018).
    #[serde(default)]
    pub amsgrad: bool,
    /// Which parameters are decayed.
    #[serde(default)]
    pub decay: Decay,
}

impl Adam {
    /// The paper's settings: betas 0.9 and 0.999, epsilon 1e-8, no decay.
    pub fn new(lr: f64) -> Self {
        let (betas, eps) = (default_betas(), eps_8());
        Self { lr, betas, eps, weight_decay: 0., amsgrad: false, decay: Decay::default() }
    }
}

/// Settings of [`OptimizerConfig::Adagrad`].
///
/// `s += g^2`, `p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the learning rate.
    #[serde(default)]
    pub lr_decay: f64,
    /// Added to the root.
    #[serde(default = "eps_10")]
    pub eps: f64,
    /// Added to the gradient: `weight_decay * p`.
    #[serde(default)]
    pub weight_decay: f64,
    /// The first value of s.
    #[serde(default)]
    pub initial_accumulator: f64,
    /// Which parameters are decayed.
    #[serde(default)]
    pub decay: Decay,
}

impl Adagrad {
    /// PyTorch's settings: epsilon 1e-10 and nothing else.
    pub fn new(lr: f64) -> Self {
        let (eps, decay) = (eps_10(), Decay::default());
        Self { lr, lr_decay: 0., eps, weight_decay: 0., initial_accumulator: 0., decay }
    }
}

/// Settings of [`OptimizerConfig::RmsProp`].
///
/// `s = alpha * s + (1 - alpha) * g^2`, `d = g / (sqrt(s) + eps)`; centred: `s - m^2` in place of `s`, where m is the
/// running mean of g; `p -= lr * d`, or with momentum `b = momentum * b + d`, `p -= lr * b`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay rate of the running means.
    #[serde(default = "alpha_99")]
    pub alpha: f64,
    /// Added to the root.
    #[serde(default = "eps_8")]
    pub eps: f64,
    /// Momentum; 0 for none.
    #[serde(default)]
    pub momentum: f64,
    /// Divides by the standard deviation rather than the root mean square.
    #[serde(default)]
    pub centered: bool,
    /// Added to the gradient: `weight_decay * p`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Which parameters are decayed.
    #[serde(default)]
    pub decay: Decay,
}

impl RmsProp {
    /// PyTorch's settings: alpha 0.99, epsilon 1e-8.
    pub fn new(lr: f64) -> Self {
        let (alpha, eps, decay) = (alpha_99(), eps_8(), Decay::default());
        Self { lr, alpha, eps, momentum: 0., centered: false, weight_decay: 0., decay }
    }
}

/// Settings of [`OptimizerConfig::RmsPropGraves`].
///
/// `n = alpha * n + (1 - alpha) * g^2`, `m = alpha * m + (1 - alpha) * g`,
/// `d = momentum * d - lr * g / sqrt(n - m^2 + eps)`, `p += d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsPropGraves {
    /// Learning rate; 1e-4 in the paper.
    pub lr: f64,
    /// Decay rate of the running means; 0.95 in the paper.
    #[serde(default = "graves_alpha")]
    pub alpha: f64,
    /// Momentum; 0.9 in the paper.
    #[serde(default = "graves_momentum")]
    pub momentum: f64,
    /// Added inside the root; 1e-4 in the paper.
    #[serde(default = "graves_eps")]
    pub eps: f64,
    /// Added to the gradient: `weight_decay * p`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Which parameters are decayed.
    #[serde(default)]
    pub decay: Decay,
}

impl RmsPropGraves {
    /// The paper's settings but for the learning rate.
    pub fn new(lr: f64) -> Self {
        let (alpha, momentum, eps) = (graves_alpha(), graves_momentum(), graves_eps());
        Self { lr, alpha, momentum, eps, weight_decay: 0., decay: Decay::default() }
    }
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn eps_8() -> f64 {
    1e-8
}
fn eps_10() -> f64 {
    1e-10
}
fn alpha_99() -> f64 {
    0.99
}
fn graves_alpha() -> f64 {
    0.95
}
fn graves_momentum() -> f64 {
    0.9
}
fn graves_eps() -> f64 {
    1e-4
}

impl OptimizerConfig {
    /// The base learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd(c) => c.lr,
            Self::Adam(c) | Self::AdamW(c) => c.lr,
            Self::Adagrad(c) => c.lr,
            Self::RmsProp(c) => c.lr,
            Self::RmsPropGraves(c) => c.lr,
        }
    }

    /// Weight decay and what it applies to.
    pub fn decay(&self) -> (f64, Decay) {
        match self {
            Self::Sgd(c) => (c.weight_decay, c.decay),
            Self::Adam(c) | Self::AdamW(c) => (c.weight_decay, c.decay),
            Self::Adagrad(c) => (c.weight_decay, c.decay),
            Self::RmsProp(c) => (c.weight_decay, c.decay),
            Self::RmsPropGraves(c) => (c.weight_decay, c.decay),
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Names the field (`optimizer.betas[0]`), the value and what was expected.
    pub fn validate(&self) -> Result<()> {
        let positive = |field: &str, x: f64| {
            check(&format!("optimizer.{field}"), x, x >= 0., "a number of at least 0")
        };
        let rate = |field: &str, x: f64| {
            let ok = (0. ..1.).contains(&x);
            check(&format!("optimizer.{field}"), x, ok, "a number of at least 0 and below 1")
        };
        positive("lr", self.lr())?;
        positive("weight_decay", self.decay().0)?;
        match self {
            Self::Sgd(c) => {
                positive("momentum", c.momentum)?;
                if c.nesterov {
                    let ok = c.momentum > 0.;
                    check("optimizer.momentum", c.momentum, ok, "a momentum for nesterov")?;
                    let ok = c.dampening == 0.;
                    check("optimizer.dampening", c.dampening, ok, "0 with nesterov")?;
                }
                check("optimizer.dampening", c.dampening, true, "a number")
            }
            Self::Adam(c) | Self::AdamW(c) => {
                rate("betas[0]", c.betas[0])?;
                rate("betas[1]", c.betas[1])?;
                positive("eps", c.eps)
            }
            Self::Adagrad(c) => {
                positive("lr_decay", c.lr_decay)?;
                positive("initial_accumulator", c.initial_accumulator)?;
                positive("eps", c.eps)
            }
            Self::RmsProp(c) => {
                rate("alpha", c.alpha)?;
                positive("momentum", c.momentum)?;
                positive("eps", c.eps)
            }
            Self::RmsPropGraves(c) => {
                rate("alpha", c.alpha)?;
                positive("momentum", c.momentum)?;
                positive("eps", c.eps)
            }
        }
    }
}
