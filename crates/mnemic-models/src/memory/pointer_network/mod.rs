//! Pointer network: O. Vinyals, M. Fortunato, N. Jaitly, "Pointer Networks", arXiv 1506.03134 (2015).
//!
//! An encoder LSTM reads the points `x_1, …, x_n` to states `e_1, …, e_n`; a decoder LSTM starts from the encoder's last state and reads a learned start
//! symbol, then at each step the point that was chosen last: `d_i`. Its answer is where it points (equation 3):
//!
//! `u_ij = vᵀ tanh(W_1 e_j + W_2 d_i)`, `p(C_i = j | C_1, …, C_{i-1}, x) = softmax_j(u_i)`, `j = 0, …, n`.
//!
//! Position 0 is a learned vector `e_0`: pointing at it ends the answer. The same parameters serve any number of points. The loss is `-Σ_i log p(C_i)`.
//!
//! Letters: b batch, n points of the longest row, d input_size, h hidden_size, m steps of the longest answer, its end included, w width of the beam.
//!
//! Parameters: `encoder` and `decoder` (an [`Lstm`] each), `pointer` (a [`Pointer`]), `start (d, 1)`, `end (h, 1)`.
//!
//! Differences from the paper: the encoder reads the points alone, without a start symbol before them, and the position that ends an answer is a vector of its own
//! (the paper leaves open how they come in). A search that may only take valid steps keeps the probabilities of the free one.

mod config;
mod decode;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::losses::{CrossEntropy, IGNORE, Reduction, cross_entropy};
use mnemic_layers::{
    Context, Linear, Lstm, Pointer, RecurrentConfig, RecurrentInit, concat, gather_steps, init,
    unbind,
};
use serde_json::{Map, Value};

use crate::pretrained::{ARCHITECTURES, PretrainedModel};

pub use config::Config;
pub use decode::{Decoding, Hypothesis, Rule};

/// Rows of points, padded.
#[derive(Debug, Clone)]
pub struct PointBatch {
    /// The points, `(b, n, d)`.
    pub points: Tensor,
    /// The number of points of each row, at least 1.
    pub lengths: Vec<usize>,
}

impl PointBatch {
    /// Pads rows of points of `d` numbers each.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use mnemic_models::memory::pointer_network::PointBatch;
    /// let rows = [vec![[0.1, 0.2], [0.3, 0.4]], vec![[0.5, 0.6]]];
    /// let batch = PointBatch::from_rows(&rows, DType::F32, &Device::Cpu)?;
    /// assert_eq!((batch.points.dims(), &batch.lengths[..]), (&[2, 2, 2][..], &[2, 1][..]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there is no row.
    pub fn from_rows<const D: usize>(
        rows: &[Vec<[f64; D]>],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let Some(&n) = lengths.iter().max() else { bail!("{}: no rows of points", config::NAME) };
        let mut values = Vec::with_capacity(rows.len() * n * D);
        for row in rows {
            values.extend(row.iter().flatten());
            values.resize(values.len() + (n - row.len()) * D, 0.);
        }
        let points = Tensor::from_vec(values, (rows.len(), n, D), &Device::Cpu)?;
        Ok(Self { points: points.to_dtype(dtype)?.to_device(device)?, lengths })
    }
}

/// What was read of a batch: all that decoding needs.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `W_1 e_j` of the end and the points, `(b, n + 1, h)`.
    pub keys: Tensor,
    /// u8 `(b, n + 1)`: 1 at the end and at the points of a row.
    pub mask: Tensor,
    /// Hidden and cell state after the last point of each row, `(1, b, h)` each.
    pub state: (Tensor, Tensor),
}

/// The network.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::memory::pointer_network::{Config, PointBatch, PointerNetwork};
/// use mnemic_models::{Context, ParamStore};
/// let config = Config { hidden_size: 16, ..Config::ptr_net() };
/// let store = ParamStore::new(0);
/// let model = PointerNetwork::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let rows = [vec![[0.1, 0.2], [0.8, 0.4], [0.3, 0.9]], vec![[0.5, 0.6], [0.1, 0.7]]];
/// let batch = PointBatch::from_rows(&rows, DType::F32, &Device::Cpu)?;
/// let answers = [vec![1, 2, 3, 1], vec![1, 2, 1]]; // points are counted from 1
/// let log_p = model.forward(&batch, &answers, &Context::eval())?;
/// assert_eq!(log_p.dims(), [2, 5, 4]); // position 0 ends an answer
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PointerNetwork {
    config: Config,
    encoder: Lstm,
    decoder: Lstm,
    pointer: Pointer,
    start: Linear,
    end: Linear,
}

impl PointerNetwork {
    /// A network with parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let Config { input_size: d, hidden_size: h, init_range } = *config;
        let init = init::uniform(init_range);
        let lstm = |name: &str| {
            let sizes = RecurrentConfig::new(d, h);
            Lstm::with_init(sizes, RecurrentInit::drawn(init), vb.pp(name))
        };
        let symbol = |name: &str, size: usize| {
            Ok::<_, candle_core::Error>(Linear::new(
                vb.get_with_hints((size, 1), name, init)?,
                None,
            ))
        };
        Ok(Self {
            config: config.clone(),
            encoder: lstm("encoder")?,
            decoder: lstm("decoder")?,
            pointer: Pointer::new(h, init, vb.pp("pointer"))?,
            start: symbol("start", d)?,
            end: symbol("end", h)?,
        })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the points.
    ///
    /// # Errors
    /// When the shapes or lengths do not fit, naming them.
    pub fn encode(&self, batch: &PointBatch, ctx: &Context) -> Result<Encoded> {
        let (b, n) = self.check(batch)?;
        let h = self.config.hidden_size;
        let read = self.encoder.forward(&batch.points, None, Some(&batch.lengths), ctx)?;
        // The end stands before the states: side by side in rows of all their numbers.
        let states = read.output.reshape((b, n * h))?;
        let positions = concat(&[repeat(&self.end, b)?, states])?.reshape((b, n + 1, h))?;
        let mut mask = vec![0u8; b * (n + 1)];
        for (row, &length) in mask.chunks_exact_mut(n + 1).zip(&batch.lengths) {
            row[..=length].fill(1);
        }
        Ok(Encoded {
            keys: self.pointer.keys(&positions)?,
            mask: Tensor::from_vec(mask, (b, n + 1), batch.points.device())?,
            state: (read.hidden, read.cell),
        })
    }

    /// `log p(C_i)`, `(b, m, n + 1)`, of every position at every step of these answers (points from 1, without the end), the right points being read
    /// (teacher forcing). Padding has `-inf`; steps after a row's end mean nothing.
    ///
    /// Watched: `pointer_weights`, `(b, n + 1)` at each step.
    ///
    /// # Errors
    /// When the shapes do not fit, or an answer points where there is no point.
    pub fn forward(
        &self,
        batch: &PointBatch,
        answers: &[Vec<u32>],
        ctx: &Context,
    ) -> Result<Tensor> {
        let encoded = self.encode(batch, ctx)?;
        let inputs = self.chosen(batch, answers)?;
        let steps: Vec<usize> = answers.iter().map(|answer| answer.len() + 1).collect();
        let (hidden, cell) = (&encoded.state.0, &encoded.state.1);
        let states = self.decoder.forward(&inputs, Some((hidden, cell)), Some(&steps), ctx)?;
        let log_p =
            self.pointer.log_probabilities(&states.output, &encoded.keys, Some(&encoded.mask))?;
        if ctx.is_watching() {
            for (step, weights) in unbind(&log_p.detach().exp()?)?.into_iter().enumerate() {
                ctx.watch("pointer_weights", step, || Ok(weights))?;
            }
        }
        Ok(log_p)
    }

    /// What the decoder reads, `(b, m, d)`: the start, then the points of the answers.
    fn chosen(&self, batch: &PointBatch, answers: &[Vec<u32>]) -> Result<Tensor> {
        let b = batch.lengths.len();
        if answers.len() != b {
            bail!("{}: {} answers for a batch of {b}", config::NAME, answers.len());
        }
        for (answer, &n) in answers.iter().zip(&batch.lengths) {
            if let Some(bad) = answer.iter().find(|&&j| j == 0 || j as usize > n) {
                bail!("{}: an answer points at {bad}, expected 1 to {n}", config::NAME);
            }
        }
        let start = repeat(&self.start, b)?;
        let most = answers.iter().map(Vec::len).max().unwrap_or(0);
        let d = self.config.input_size;
        if most == 0 {
            return start.reshape((b, 1, d));
        }
        let indices: Vec<Vec<usize>> =
            answers.iter().map(|a| a.iter().map(|&j| j as usize - 1).collect()).collect();
        let points = gather_steps(&batch.points, &indices)?.reshape((b, most * d))?;
        concat(&[start, points])?.reshape((b, most + 1, d))
    }

    fn check(&self, batch: &PointBatch) -> Result<(usize, usize)> {
        let (dims, d) = (batch.points.dims(), self.config.input_size);
        let &[b, n, width] = dims else {
            bail!("{}: expected points (b, n, {d}), got {dims:?}", config::NAME)
        };
        if width != d {
            bail!("{}: expected points (b, n, {d}), got {dims:?}", config::NAME);
        }
        let lengths = &batch.lengths;
        if lengths.len() != b || lengths.iter().any(|l| !(1..=n).contains(l)) {
            bail!("{}: expected {b} lengths from 1 to {n}, got {lengths:?}", config::NAME);
        }
        Ok((b, n))
    }
}

/// The loss `-Σ_i log p(C_i)` of the answers and their ends, summed over the batch, of [`PointerNetwork::forward`]'s `log_p (b, m, n + 1)`.
///
/// # Errors
/// When the answers are not those that `log_p` was made for.
pub fn pointer_loss(log_p: &Tensor, answers: &[Vec<u32>]) -> Result<Tensor> {
    let (b, m, positions) = log_p.dims3()?;
    if answers.len() != b || answers.iter().any(|answer| answer.len() >= m) {
        bail!("pointer loss: {} answers do not fit {:?}", answers.len(), log_p.dims());
    }
    let target = |answer: &Vec<u32>, step: usize| match step.cmp(&answer.len()) {
        std::cmp::Ordering::Less => i64::from(answer[step]),
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => IGNORE,
    };
    let targets: Vec<i64> =
        answers.iter().flat_map(|answer| (0..m).map(move |step| target(answer, step))).collect();
    let options = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
    // The log-softmax of log-probabilities is what they are.
    cross_entropy(&log_p.reshape((b * m, positions))?, &targets, &options)
}

/// A learned symbol for every row, `(b, size)`. A product with ones repeats it, and passes its gradient on without candle's broadcast.
fn repeat(symbol: &Linear, b: usize) -> Result<Tensor> {
    let weight = symbol.weight();
    symbol.forward(&Tensor::ones((b, 1), weight.dtype(), weight.device())?)
}

impl PretrainedModel for PointerNetwork {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> crate::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> crate::Result<Map<String, Value>> {
        let mut keys = config.keys()?;
        keys.insert(ARCHITECTURES.into(), vec!["PointerNetwork"].into());
        Ok(keys)
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> crate::Result<Self> {
        Ok(Self::new(config, vb)?)
    }
}
