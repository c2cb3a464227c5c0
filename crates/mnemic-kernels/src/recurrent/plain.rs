//! The recurrences of the papers, step by step in ordinary candle operations: the reference for every faster path.

use candle_core::{Result, Tensor};

use super::{LstmScan, Nonlinearity, Reset, Scan, Steps, Weights};

/// Runs `step(state, i, m)` over the steps in reading order; `i` is the time step. Keeps the old state where a row has ended
/// and zeroes its output. The first tensor of the state is the output.
struct Loop<'a> {
    xs: &'a Tensor,
    steps: Steps<'a>,
}

impl Loop<'_> {
    fn run<const S: usize>(
        &self,
        mut state: [Tensor; S],
        mut step: impl FnMut(&[Tensor; S], usize) -> Result<[Tensor; S]>,
    ) -> Result<(Tensor, [Tensor; S])> {
        let (b, t, _) = self.xs.dims3()?;
        let mut outputs: Vec<Option<Tensor>> = vec![None; t];
        for k in 0..t {
            let i = if self.steps.reverse { t - 1 - k } else { k };
            let next = step(&state, i)?;
            let mask = self.mask(i)?; // (b, 1)
            let mut kept = Vec::with_capacity(S);
            for (new, old) in next.iter().zip(&state) {
                kept.push(match &mask {
                    Some(m) => m.broadcast_as(new.shape())?.where_cond(new, old)?,
                    None => new.clone(),
                });
            }
            state = kept.try_into().map_err(|_| candle_core::Error::msg("state size"))?;
            outputs[i] = Some(match &mask {
                Some(m) => m
                    .broadcast_as(state[0].shape())?
                    .where_cond(&state[0], &state[0].zeros_like()?)?,
                None => state[0].clone(),
            });
        }
        let outputs: Vec<Tensor> = outputs.into_iter().flatten().collect();
        let output = if outputs.is_empty() {
            let h = state[0].dim(1)?;
            Tensor::zeros((b, 0, h), state[0].dtype(), state[0].device())?
        } else {
            Tensor::stack(&outputs, 1)?
        };
        Ok((output, state))
    }

    /// 1 where step `i` is valid, `(b, 1)`; `None` where it is for all rows.
    fn mask(&self, i: usize) -> Result<Option<Tensor>> {
        let Some(lengths) = self.steps.lengths else { return Ok(None) };
        if lengths.iter().all(|&l| i < l) {
            return Ok(None);
        }
        let mask: Vec<u8> = lengths.iter().map(|&l| u8::from(i < l)).collect();
        Ok(Some(Tensor::from_vec(mask, (lengths.len(), 1), self.xs.device())?))
    }
}

fn affine(xs: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ys = match xs.dims() {
        [b, t, d] => xs.reshape((b * t, *d))?.matmul(&w.t()?)?.reshape((*b, *t, w.dim(0)?))?,
        _ => xs.matmul(&w.t()?)?,
    };
    match bias {
        Some(bias) => ys.broadcast_add(bias),
        None => Ok(ys),
    }
}

fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    // 1/2 (1 + tanh(x/2)): no overflow on either side.
    ((xs * 0.5)?.tanh()? + 1.)? * 0.5
}

fn initial(h0: Option<&Tensor>, xs: &Tensor, weights: &Weights) -> Result<Tensor> {
    match h0 {
        Some(h) => Ok(h.clone()),
        None => Tensor::zeros((xs.dim(0)?, weights.w_hh.dim(1)?), xs.dtype(), xs.device()),
    }
}

/// All input products at once, split by time step: `t` tensors `(b, g h)`.
fn inputs(xs: &Tensor, weights: &Weights) -> Result<Vec<Tensor>> {
    let xw = affine(xs, &weights.w_ih, weights.b_ih.as_ref())?; // (b, t, g h)
    (0..xs.dim(1)?).map(|i| xw.narrow(1, i, 1)?.squeeze(1)).collect()
}

/// Plain twin of [`super::rnn`].
pub fn rnn(
    xs: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    nonlinearity: Nonlinearity,
    steps: Steps<'_>,
) -> Result<Scan> {
    let xw = inputs(xs, weights)?;
    let (output, [state]) = Loop { xs, steps }.run([initial(h0, xs, weights)?], |[h], i| {
        let a = (&xw[i] + affine(h, &weights.w_hh, weights.b_hh.as_ref())?)?;
        Ok([match nonlinearity {
            Nonlinearity::Tanh => a.tanh()?,
            Nonlinearity::Relu => a.relu()?,
        }])
    })?;
    Ok(Scan { output, state })
}

/// Plain twin of [`super::lstm`], and with `peepholes` of [`super::peephole_lstm`].
pub fn lstm(
    xs: &Tensor,
    state0: Option<(&Tensor, &Tensor)>,
    weights: &Weights,
    peepholes: Option<&Tensor>,
    steps: Steps<'_>,
) -> Result<LstmScan> {
    let xw = inputs(xs, weights)?;
    let start =
        [initial(state0.map(|s| s.0), xs, weights)?, initial(state0.map(|s| s.1), xs, weights)?];
    let (output, [hidden, cell]) = Loop { xs, steps }.run(start, |[h, c], i| {
        let a = (&xw[i] + affine(h, &weights.w_hh, weights.b_hh.as_ref())?)?; // (b, 4h)
        let a = a.chunk(4, 1)?;
        let gate = |q: usize, p: usize, c: &Tensor| match peepholes {
            Some(all) => sigmoid(&(&a[q] + c.broadcast_mul(&all.get(p)?)?)?),
            None => sigmoid(&a[q]),
        };
        let c = ((gate(1, 1, c)? * c)? + (gate(0, 0, c)? * a[2].tanh()?)?)?;
        let h = (gate(3, 2, &c)? * c.tanh()?)?;
        Ok([h, c])
    })?;
    Ok(LstmScan { output, hidden, cell })
}

/// Plain twin of [`super::gru`], and with `gates` of [`super::gated_gru`].
pub fn gru(
    xs: &Tensor,
    gates: Option<&Tensor>,
    h0: Option<&Tensor>,
    weights: &Weights,
    reset: Reset,
    steps: Steps<'_>,
) -> Result<Scan> {
    let xw = inputs(xs, weights)?;
    let size = weights.w_hh.dim(1)?;
    let (u_rz, u_n) =
        (weights.w_hh.narrow(0, 0, 2 * size)?, weights.w_hh.narrow(0, 2 * size, size)?);
    let b_rz = weights.b_hh.as_ref().map(|b| b.narrow(0, 0, 2 * size)).transpose()?;
    let b_n = weights.b_hh.as_ref().map(|b| b.narrow(0, 2 * size, size)).transpose()?;
    let (output, [state]) = Loop { xs, steps }.run([initial(h0, xs, weights)?], |[h], i| {
        let x = xw[i].chunk(3, 1)?;
        let a = affine(h, &u_rz, b_rz.as_ref())?.chunk(2, 1)?;
        let r = sigmoid(&(&x[0] + &a[0])?)?;
        let z = sigmoid(&(&x[1] + &a[1])?)?;
        let hidden = match reset {
            Reset::After => (&r * affine(h, &u_n, b_n.as_ref())?)?,
            Reset::Before => affine(&(&r * h)?, &u_n, b_n.as_ref())?,
        };
        let n = (&x[2] + hidden)?.tanh()?;
        // (1 - z) n + z h = n + z (h - n)
        let new = (&n + (&z * (h - &n)?)?)?;
        Ok([match gates {
            Some(g) => blend(g, i, &new, h)?,
            None => new,
        }])
    })?;
    Ok(Scan { output, state })
}

/// Plain twin of [`super::attention_gru`].
pub fn attention_gru(
    xs: &Tensor,
    gates: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<Scan> {
    let inputs = affine(xs, &weights.w_ih, weights.b_ih.as_ref())?;
    attention_gru_projected(&inputs, gates, h0, &weights.w_hh, weights.b_hh.as_ref(), steps)
}

/// Plain twin of [`super::attention_gru_projected`].
pub fn attention_gru_projected(
    inputs: &Tensor,
    gates: &Tensor,
    h0: Option<&Tensor>,
    w_hh: &Tensor,
    b_hh: Option<&Tensor>,
    steps: Steps<'_>,
) -> Result<Scan> {
    let (b, _, width) = inputs.dims3()?;
    let start = match h0 {
        Some(h) => h.clone(),
        None => Tensor::zeros((b, width / 2), inputs.dtype(), inputs.device())?,
    };
    let (output, [state]) = Loop { xs: inputs, steps }.run([start], |[h], i| {
        let x = inputs.narrow(1, i, 1)?.squeeze(1)?.chunk(2, 1)?;
        let a = affine(h, w_hh, b_hh)?.chunk(2, 1)?;
        let r = sigmoid(&(&x[0] + &a[0])?)?;
        let n = (&x[1] + (r * &a[1])?)?.tanh()?;
        Ok([blend(gates, i, &n, h)?])
    })?;
    Ok(Scan { output, state })
}

/// `g_i new + (1 - g_i) old` with the gate of step `i`.
fn blend(gates: &Tensor, i: usize, new: &Tensor, old: &Tensor) -> Result<Tensor> {
    let g = gates.narrow(1, i, 1)?; // (b, 1)
    old + (new - old)?.broadcast_mul(&g)?
}
