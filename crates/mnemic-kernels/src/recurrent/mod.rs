//! Recurrent scans over whole sequences: RNN, LSTM, GRU, gated GRU and attention GRU, one layer and direction a call.
//!
//! Letters: b batch, t time, d input width, h hidden size. Weights are laid out as in PyTorch: `w_ih (g h, d)`, `w_hh (g h, h)`, biases
//! `(g h)`, with the gates in PyTorch's order (LSTM i f g o; GRU r z n). Inputs are batch-first `(b, t, d)`.
//!
//! Rows may end early: outputs after a row's length are zero, its state is frozen there, and nothing at those places has an
//! effect or gets a gradient. With `reverse`, each row is read from its own last valid step to its first, and outputs stand at
//! the step that they were made for.

mod cpu;
#[cfg(cuda_path)]
mod cuda;
pub mod plain;

use candle_core::{Result, Tensor, bail};

use crate::linear::linear;
/// The weights of one layer and direction.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Input weights, `(g h, d)`.
    pub w_ih: Tensor,
    /// Recurrent weights, `(g h, h)`.
    pub w_hh: Tensor,
    /// Input bias, `(g h)`.
    pub b_ih: Option<Tensor>,
    /// Recurrent bias, `(g h)`; inside the reset gate's product for the new gate of a GRU.
    pub b_hh: Option<Tensor>,
}

/// Which steps are read and in which order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steps<'a> {
    /// The number of valid steps of each row; all steps where `None`.
    pub lengths: Option<&'a [usize]>,
    /// Read from the last valid step to the first.
    pub reverse: bool,
}

/// The result of a scan.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The state after each step, `(b, t, h)`; zero after a row's end.
    pub output: Tensor,
    /// The state after the last step read, `(b, h)`.
    pub state: Tensor,
}

/// The result of an LSTM scan.
#[derive(Debug, Clone)]
pub struct LstmScan {
    /// The hidden state after each step, `(b, t, h)`; zero after a row's end.
    pub output: Tensor,
    /// The hidden state after the last step read, `(b, h)`.
    pub hidden: Tensor,
    /// The cell state after the last step read, `(b, h)`.
    pub cell: Tensor,
}

/// The non-linearity of a simple RNN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonlinearity {
    /// Hyperbolic tangent.
    Tanh,
    /// `max(0, x)`.
    Relu,
}

/// Where a GRU applies its reset gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reset {
    /// `n = tanh(W_n x + b + r ∘ (U_n h + c))`: PyTorch, cuDNN, DMN.
    #[default]
    After,
    /// `n = tanh(W_n x + b + U_n (r ∘ h) + c)`: Cho et al. 2014.
    Before,
}

/// Elman's RNN: `h_t = φ(W x_t + b + U h_{t-1} + c)`. `h0` is `(b, h)`, zero where `None`.
///
/// # Errors
/// When shapes or lengths do not fit, naming them. The same holds for every function here.
pub fn rnn(
    xs: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    nonlinearity: Nonlinearity,
    steps: Steps<'_>,
) -> Result<Scan> {
    check("rnn", 1, xs, weights, steps)?;
    if cpu::takes(xs) {
        return cpu::rnn(xs, h0, weights, nonlinearity, steps);
    }
    #[cfg(cuda_path)]
    {
        let operands = cuda::Operands::new(xs, h0, weights);
        if operands.fit() {
            return operands.rnn(nonlinearity, steps);
        }
    }
    plain::rnn(xs, h0, weights, nonlinearity, steps)
}

/// LSTM (Gers et al. 2000, gates i f g o): `c_t = f ∘ c_{t-1} + i ∘ g`, `h_t = o ∘ tanh(c_t)`. `state0` is `(h_0, c_0)`, `(b, h)` each.
pub fn lstm(
    xs: &Tensor,
    state0: Option<(&Tensor, &Tensor)>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<LstmScan> {
    check("lstm", 4, xs, weights, steps)?;
    if cpu::takes(xs) {
        return cpu::lstm(xs, state0, weights, None, steps);
    }
    #[cfg(cuda_path)]
    {
        let states = [state0.map(|s| s.0), state0.map(|s| s.1)];
        let operands = cuda::Operands { states, ..cuda::Operands::new(xs, None, weights) };
        if operands.fit() {
            return operands.lstm(steps);
        }
    }
    plain::lstm(xs, state0, weights, None, steps)
}

/// One step of [`lstm`] on `xs (b, d)`, for machines that must have a step's result before the next input: hidden and cell state `(b, h)` from those before (zeros
/// where `None`). The products are [`linear`], so that [`backward`](crate::backward()) makes the weights' gradients of
/// all steps in one go.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::recurrent::{Weights, lstm_step};
/// let zeros = |dims: (usize, usize)| Tensor::zeros(dims, DType::F32, &Device::Cpu);
/// let weights = Weights { w_ih: zeros((12, 2))?, w_hh: zeros((12, 3))?, b_ih: None, b_hh: None };
/// let (hidden, cell) = lstm_step(&zeros((5, 2))?, None, &weights)?;
/// assert_eq!((hidden.dims(), cell.dims()), (&[5, 3][..], &[5, 3][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit.
pub fn lstm_step(
    xs: &Tensor,
    state: Option<(&Tensor, &Tensor)>,
    weights: &Weights,
) -> Result<(Tensor, Tensor)> {
    let sequence = xs.unsqueeze(1)?;
    check("lstm_step", 4, &sequence, weights, Steps::default())?;
    if !cpu::takes(xs) {
        let scan = lstm(&sequence, state, weights, Steps::default())?;
        return Ok((scan.hidden, scan.cell));
    }
    let (b, h) = (xs.dim(0)?, weights.w_hh.dim(1)?);
    let zeros = match state {
        Some(_) => None,
        None => Some(Tensor::zeros((b, h), xs.dtype(), xs.device())?),
    };
    let Some((hidden, cell)) = state.or(zeros.as_ref().map(|z| (z, z))) else {
        bail!("lstm_step: internal error: no state")
    };
    if hidden.dims() != [b, h] || cell.dims() != [b, h] {
        bail!(
            "lstm_step: expected states [{b}, {h}], got {:?} and {:?}",
            hidden.dims(),
            cell.dims()
        );
    }
    let inputs = linear(xs, &weights.w_ih, weights.b_ih.as_ref())?;
    let recurrent = linear(hidden, &weights.w_hh, weights.b_hh.as_ref())?;
    cpu::lstm_step([&inputs, &recurrent], cell)
}

/// LSTM with peepholes (Gers et al. 2002): `peepholes (3, h)` holds the diagonal weights `p_i`, `p_f` and `p_o`; i and f read `p ∘ c_{t-1}`
/// beside their products, o reads `p_o ∘ c_t`.
pub fn peephole_lstm(
    xs: &Tensor,
    state0: Option<(&Tensor, &Tensor)>,
    weights: &Weights,
    peepholes: &Tensor,
    steps: Steps<'_>,
) -> Result<LstmScan> {
    check("peephole_lstm", 4, xs, weights, steps)?;
    let h = weights.w_hh.dim(1)?;
    if peepholes.dims() != [3, h] {
        bail!("peephole_lstm: expected peepholes (3, {h}), got {:?}", peepholes.dims());
    }
    if cpu::takes(xs) {
        return cpu::lstm(xs, state0, weights, Some(peepholes), steps);
    }
    #[cfg(cuda_path)]
    {
        let states = [state0.map(|s| s.0), state0.map(|s| s.1)];
        let operands = cuda::Operands::new(xs, None, weights);
        let operands = cuda::Operands { states, peepholes: Some(peepholes), ..operands };
        if operands.fit() {
            return operands.lstm(steps);
        }
    }
    plain::lstm(xs, state0, weights, Some(peepholes), steps)
}

/// GRU (gates r z n): `h_t = (1 - z) ∘ n + z ∘ h_{t-1}`, with the reset gate where `reset` says.
pub fn gru(
    xs: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    reset: Reset,
    steps: Steps<'_>,
) -> Result<Scan> {
    check("gru", 3, xs, weights, steps)?;
    if cpu::takes(xs) {
        return cpu::gru(xs, None, h0, weights, reset, steps);
    }
    #[cfg(cuda_path)]
    {
        let operands = cuda::Operands::new(xs, h0, weights);
        if operands.fit() {
            return operands.gru(reset, steps);
        }
    }
    plain::gru(xs, None, h0, weights, reset, steps)
}

/// The gated GRU of DMN (Kumar et al. 2015, section 2.3): `h_t = g_t GRU(x_t, h_{t-1}) + (1 - g_t) h_{t-1}` with a scalar gate a
/// step, `gates (b, t)`. A gate of 0 skips the step.
pub fn gated_gru(
    xs: &Tensor,
    gates: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<Scan> {
    check("gated_gru", 3, xs, weights, steps)?;
    check_gates("gated_gru", xs, gates)?;
    if cpu::takes(xs) {
        return cpu::gru(xs, Some(gates), h0, weights, Reset::After, steps);
    }
    #[cfg(cuda_path)]
    {
        let gates = Some(gates);
        let operands = cuda::Operands { gates, ..cuda::Operands::new(xs, h0, weights) };
        if operands.fit() {
            return operands.gru(Reset::After, steps);
        }
    }
    plain::gru(xs, Some(gates), h0, weights, Reset::After, steps)
}

/// The attention GRU of DMN+ (Xiong et al. 2016, section 3.3): the update gate is the scalar attention `g_t`,
/// `r = σ(W_r x + b_r + U_r h + c_r)`, `n = tanh(W_n x + b_n + r ∘ (U_n h + c_n))`, `h_t = g_t n + (1 - g_t) h_{t-1}`. Gates r n: weights
/// are `(2h, ·)`; `gates` is `(b, t)`.
pub fn attention_gru(
    xs: &Tensor,
    gates: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<Scan> {
    check("attention_gru", 2, xs, weights, steps)?;
    check_gates("attention_gru", xs, gates)?;
    if cpu::takes(xs) {
        let input = cpu::Input::raw(xs, weights);
        let w = (&weights.w_hh, weights.b_hh.as_ref());
        return cpu::attention_gru(input, gates, h0, w, steps);
    }
    #[cfg(cuda_path)]
    {
        let gates = Some(gates);
        let operands = cuda::Operands { gates, ..cuda::Operands::new(xs, h0, weights) };
        if operands.fit() {
            return operands.attention_gru(steps);
        }
    }
    plain::attention_gru(xs, gates, h0, weights, steps)
}

/// [`attention_gru`] over input products `W x + b` `(b, t, 2h)` that are there already, since several passes share them; `w_hh (2h, h)`,
/// `b_hh (2h)`.
pub fn attention_gru_projected(
    inputs: &Tensor,
    gates: &Tensor,
    h0: Option<&Tensor>,
    w_hh: &Tensor,
    b_hh: Option<&Tensor>,
    steps: Steps<'_>,
) -> Result<Scan> {
    let op = "attention_gru_projected";
    let (_, _, width) = inputs.dims3()?;
    if w_hh.rank() != 2 || width != 2 * w_hh.dim(1)? || w_hh.dim(0)? != width {
        bail!("{op}: expected w_hh ({width}, {}), got {:?}", width / 2, w_hh.dims());
    }
    check_bias(op, "b_hh", b_hh, width)?;
    check_lengths(op, inputs, steps)?;
    check_gates(op, inputs, gates)?;
    if cpu::takes(inputs) {
        return cpu::attention_gru(cpu::Input::Projected(inputs), gates, h0, (w_hh, b_hh), steps);
    }
    #[cfg(cuda_path)]
    {
        let operands = cuda::Operands {
            x: inputs,
            w_ih: None,
            b_ih: None,
            w_hh,
            b_hh,
            states: [h0, None],
            gates: Some(gates),
            peepholes: None,
        };
        if operands.fit() {
            return operands.attention_gru(steps);
        }
    }
    plain::attention_gru_projected(inputs, gates, h0, w_hh, b_hh, steps)
}

fn check_gates(op: &str, xs: &Tensor, gates: &Tensor) -> Result<()> {
    let (b, t, _) = xs.dims3()?;
    if gates.dims() != [b, t] {
        bail!("{op}: expected ({b}, {t}) gates, got {:?}", gates.dims());
    }
    Ok(())
}

fn check(op: &str, gates: usize, xs: &Tensor, weights: &Weights, steps: Steps<'_>) -> Result<()> {
    let (_, _, d) = xs.dims3()?;
    let (rows, h) = weights.w_hh.dims2()?;
    if h == 0 {
        bail!("{op}: the hidden size must be positive");
    }
    if rows != gates * h {
        bail!("{op}: expected w_hh ({gates} h, h), got ({rows}, {h})");
    }
    if weights.w_ih.dims() != [rows, d] {
        bail!("{op}: expected w_ih ({rows}, {d}), got {:?}", weights.w_ih.dims());
    }
    check_bias(op, "b_ih", weights.b_ih.as_ref(), rows)?;
    check_bias(op, "b_hh", weights.b_hh.as_ref(), rows)?;
    check_lengths(op, xs, steps)
}

fn check_bias(op: &str, name: &str, bias: Option<&Tensor>, rows: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.dims() != [rows] => {
            bail!("{op}: expected {name} ({rows}), got {:?}", bias.dims())
        }
        _ => Ok(()),
    }
}

fn check_lengths(op: &str, xs: &Tensor, steps: Steps<'_>) -> Result<()> {
    let (b, t, _) = xs.dims3()?;
    if let Some(lengths) = steps.lengths {
        if lengths.len() != b {
            bail!("{op}: {} lengths for a batch of {b}", lengths.len());
        }
        if let Some(bad) = lengths.iter().find(|&&l| l > t) {
            bail!("{op}: length {bad} exceeds the {t} steps");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
