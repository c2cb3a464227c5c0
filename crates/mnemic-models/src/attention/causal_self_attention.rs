//! One block of causal attention over all that was read (Vaswani et al. 2017, arXiv 1706.03762, section 3.2): what a tree of summaries is measured
//! against, since it sees every vector itself, at a cost of `t` for each step.
//!
//! Leaves `e_t = LN(W_e [x_t; …] + b_e)`; `C_t` is attention of `W_q e_t` over `W_k e_i` and `W_v e_i` for `i <= t`; scores `y_t = W_y [C_t; e_t] + b`. Leaves and output are
//! those of the [hierarchical attention encoder](super::hierarchical_attention).
//!
//! Watched: `attention (b, h, t)` of each step that is wanted.
//!
//! Parameters: `embedding (d, conv_width i)` and `norm`, of leaves; `query`, `key` and `value (d, d)`, without biases; `output (o, 2d)`.
//!
//! Differences from the paper: a single sub-layer, without a feed-forward one; no positions; the residual is beside the attention's output instead of
//! added to it.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{
    AttentionOptions, Bias, Context, Heads, Linear, concat, gather_steps, init, linear, split_heads,
};
use serde::{Deserialize, Serialize};

use super::leaves::Leaves;
use crate::sequence::{SequenceModel, check_inputs, wanted_steps};

/// The sizes of a [`CausalSelfAttention`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the inputs.
    pub input_size: usize,
    /// Width of the outputs.
    pub output_size: usize,
    /// Width d.
    pub hidden_size: usize,
    /// Heads.
    pub num_heads: usize,
    /// Inputs that a leaf is made of, the last ones.
    pub conv_width: usize,
}

impl Config {
    /// Two heads of 32, leaves of one input.
    pub fn block(input_size: usize, output_size: usize) -> Self {
        Self { input_size, output_size, hidden_size: 64, num_heads: 2, conv_width: 1 }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// When one makes no sense, naming it.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [
            ("input_size", self.input_size),
            ("output_size", self.output_size),
            ("hidden_size", self.hidden_size),
            ("num_heads", self.num_heads),
            ("conv_width", self.conv_width),
        ] {
            if size == 0 {
                bail!("causal self-attention config: {name} must be positive");
            }
        }
        let (d, h) = (self.hidden_size, self.num_heads);
        if !d.is_multiple_of(h) {
            bail!("causal self-attention config: hidden_size {d} is not a multiple of {h} heads");
        }
        Ok(())
    }
}

/// The network.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::attention::causal_self_attention::{CausalSelfAttention, Config};
/// use mnemic_models::{Context, ParamStore, SequenceModel};
/// let store = ParamStore::new(0);
/// let model =
///     CausalSelfAttention::new(&Config::block(9, 5), store.builder(DType::F32, &Device::Cpu))?;
/// let inputs = Tensor::zeros((2, 30, 9), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&inputs, None, &Context::eval())?.dims(), [2, 30, 5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CausalSelfAttention {
    config: Config,
    leaves: Leaves,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl CausalSelfAttention {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let Config { input_size: i, output_size: o, hidden_size: d, .. } = *config;
        let map = |name: &str| linear(d, d, false, init::xavier_uniform(d, d), vb.pp(name));
        Ok(Self {
            config: config.clone(),
            leaves: Leaves::new(i, d, config.conv_width, &vb)?,
            query: map("query")?,
            key: map("key")?,
            value: map("value")?,
            output: linear(2 * d, o, true, init::xavier_uniform(2 * d, o), vb.pp("output"))?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl SequenceModel for CausalSelfAttention {
    fn input_size(&self) -> usize {
        self.config.input_size
    }

    fn output_size(&self) -> usize {
        self.config.output_size
    }

    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor> {
        let (b, t) = check_inputs("causal self-attention", inputs, self.config.input_size)?;
        let wanted = wanted_steps(wanted, t)?;
        let leaves = self.leaves.forward(inputs)?;
        let steps: Vec<usize> = (0..t).filter(|&step| wanted[step]).collect();
        let own = match steps.len() == t {
            true => leaves.clone(),
            false => gather_steps(&leaves, &vec![steps.clone(); b])?,
        };
        let heads = |xs: &Tensor| split_heads(xs, self.config.num_heads);
        let (q, k) = (heads(&self.query.forward(&own)?)?, heads(&self.key.forward(&leaves)?)?);
        let v = heads(&self.value.forward(&leaves)?)?;
        let contexts = attend([&q, &k, &v], &steps, ctx)?;
        self.output.forward(&concat(&[contexts, own])?)
    }
}

/// Attention of the queries of `steps` over all keys up to their own: `(b, q, d)`.
fn attend([q, k, v]: [&Tensor; 3], steps: &[usize], ctx: &Context) -> Result<Tensor> {
    let (t, n) = (k.dim(2)?, steps.len());
    let inner = if ctx.is_watching() { Context::eval().watching() } else { Context::eval() };
    let heads = Heads::new(None, 0.);
    let contexts = if n == t {
        heads.forward(q, k, v, &AttentionOptions::causal(), &inner)?
    } else {
        let seen =
            |&step: &usize| (0..t).map(move |i| if i <= step { 0f32 } else { f32::NEG_INFINITY });
        let bias: Vec<f32> = steps.iter().flat_map(seen).collect();
        let bias = Tensor::from_vec(bias, (1, 1, n, t), q.device())?.to_dtype(q.dtype())?;
        let options = AttentionOptions { bias: Bias::Full(&bias), ..AttentionOptions::default() };
        heads.forward(q, k, v, &options, &inner)?
    };
    for weights in inner.take_trace() {
        for (i, &step) in steps.iter().enumerate() {
            ctx.watch("attention", step, || weights.value.narrow(2, i, 1)?.squeeze(2))?;
        }
    }
    Ok(contexts)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use mnemic_layers::ParamStore;
    use mnemic_testing::{assert_close, waves};

    use super::*;
    use crate::testing::{check_differences, without_gradient};

    fn model() -> (CausalSelfAttention, ParamStore) {
        let config = Config { hidden_size: 6, conv_width: 2, ..Config::block(3, 2) };
        let store = ParamStore::new(1);
        (CausalSelfAttention::new(&config, store.builder(DType::F64, &Device::Cpu)).unwrap(), store)
    }

    #[test]
    fn wanted_steps_are_those_of_the_whole_and_of_a_shorter_sequence() {
        let (model, _) = model();
        let inputs = waves(&[2, 5, 3], 1., 1., DType::F64);
        let ctx = Context::eval();
        let whole = model.forward(&inputs, None, &ctx).unwrap();
        let wanted = [false, true, false, true, false];
        let some = model.forward(&inputs, Some(&wanted), &ctx).unwrap();
        for (i, step) in [1, 3].into_iter().enumerate() {
            let expected = whole.narrow(1, step, 1).unwrap();
            assert_close("step", &some.narrow(1, i, 1).unwrap(), &expected, 1e-12, 1e-12);
            let first = model.forward(&inputs.narrow(1, 0, step + 1).unwrap(), None, &ctx).unwrap();
            assert_close("cut", &first.narrow(1, step, 1).unwrap(), &expected, 1e-12, 1e-12);
        }
        let watching = Context::eval().watching();
        model.forward(&inputs, Some(&wanted), &watching).unwrap();
        let trace = watching.take_trace();
        assert_eq!((trace.len(), trace[1].step, trace[1].value.dims()), (2, 3, &[2, 2, 5][..]));
        let row = model.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
        assert_close("row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
    }

    #[test]
    fn gradients_reach_everything_and_agree_with_differences() {
        let (model, store) = model();
        let inputs = waves(&[2, 5, 3], 1., 1., DType::F64);
        let loss = || {
            model
                .forward(&inputs, Some(&[false, true, true, false, true]), &Context::eval())?
                .sqr()?
                .sum_all()
        };
        assert_eq!(without_gradient(&store, &loss().unwrap()), Vec::<String>::new());
        for (name, _) in store.vars() {
            check_differences(&store, &name, 4, loss);
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let config = Config { num_heads: 5, ..Config::block(3, 2) };
        assert!(config.validate().unwrap_err().to_string().contains("5 heads"));
        let (model, _) = model();
        let inputs = waves(&[2, 5, 4], 1., 1., DType::F64);
        let error = model.forward(&inputs, None, &Context::eval()).unwrap_err().to_string();
        assert!(error.contains("(b, t, 3)"), "{error}");
    }
}
