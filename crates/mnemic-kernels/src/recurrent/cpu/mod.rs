//! The fused CPU path: one operation a sequence, forward and backward.
//!
//! Inside, time comes first and rows are sorted by length, so that the rows still being read are a prefix ([`plan`]). The
//! input products of all steps are made in one go before the scan, and the weight gradients after it. In the time loop stand
//! only products with packed recurrent weights and vectorised gates; nothing is allocated there. Rows are independent of each
//! other, so threads share out the batch; a row's arithmetic is the same however it is shared out.

mod cells;
mod one;
mod plan;
mod scan;
mod steps;

use candle_core::{Result, Tensor, bail};

use super::{LstmScan, Nonlinearity, Reset, Scan, Steps, Weights};
use crate::fused;
use cells::{AttentionGruCell, Cell, GruCell, LstmCell, RnnCell};
use plan::Plan;
use scan::ScanOp;

/// Whether the fused path can take these operands.
pub(super) fn takes(xs: &Tensor) -> bool {
    fused::takes(&[xs]) && xs.elem_count() > 0
}

/// Hidden and cell state after a step, from its products and the cell state before.
pub(super) fn lstm_step(products: [&Tensor; 2], cell: &Tensor) -> Result<(Tensor, Tensor)> {
    let operands = [products[0], products[1], cell];
    match <[Tensor; 2]>::try_from(fused::apply(one::LstmStepOp, &operands)?) {
        Ok([hidden, cell]) => Ok((hidden, cell)),
        Err(results) => bail!("lstm_step: internal error: {} results", results.len()),
    }
}

/// What the steps read.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// Inputs `(b, t, d)`, to be multiplied with `w_ih (g h, d)` and added to `b_ih (g h)`.
    Raw { xs: &'a Tensor, w_ih: &'a Tensor, b_ih: Option<&'a Tensor> },
    /// Input products `(b, t, g h)`.
    Projected(&'a Tensor),
}

impl<'a> Input<'a> {
    pub(super) fn raw(xs: &'a Tensor, weights: &'a Weights) -> Self {
        Input::Raw { xs, w_ih: &weights.w_ih, b_ih: weights.b_ih.as_ref() }
    }
}

/// The operands of a scan.
struct Call<'a> {
    input: Input<'a>,
    w_hh: &'a Tensor,
    b_hh: Option<&'a Tensor>,
    states: &'a [Option<&'a Tensor>],
    gates: Option<&'a Tensor>,
    peepholes: Option<&'a Tensor>,
    steps: Steps<'a>,
}

/// Where each operand stands in the list that the operation is given.
#[derive(Debug, Default)]
struct Places {
    /// The inputs or their products.
    x: usize,
    w_ih: Option<usize>,
    b_ih: Option<usize>,
    w_hh: usize,
    b_hh: Option<usize>,
    states: Vec<Option<usize>>,
    gates: Option<usize>,
    peepholes: Option<usize>,
}

/// Applies the operation: outputs `(b, t, h)` and final states `(b, h)`.
fn scan<C: Cell>(cell: C, call: Call<'_>) -> Result<(Tensor, Vec<Tensor>)> {
    let mut inputs: Vec<&Tensor> = Vec::with_capacity(8);
    fn place<'t>(inputs: &mut Vec<&'t Tensor>, t: Option<&'t Tensor>) -> Option<usize> {
        t.map(|t| {
            inputs.push(t);
            inputs.len() - 1
        })
    }
    let (x, w_ih, b_ih) = match call.input {
        Input::Raw { xs, w_ih, b_ih } => (xs, Some(w_ih), b_ih),
        Input::Projected(x) => (x, None, None),
    };
    let (b, t, _) = x.dims3()?;
    let (_, h) = call.w_hh.dims2()?;
    inputs.push(x);
    let mut places = Places {
        x: 0,
        w_ih: place(&mut inputs, w_ih),
        b_ih: place(&mut inputs, b_ih),
        ..Places::default()
    };
    inputs.push(call.w_hh);
    places.w_hh = inputs.len() - 1;
    places.b_hh = place(&mut inputs, call.b_hh);
    for state in call.states {
        if let Some(state) = state
            && state.dims() != [b, h]
        {
            bail!("expected a ({b}, {h}) initial state, got {:?}", state.dims());
        }
        let at = place(&mut inputs, *state);
        places.states.push(at);
    }
    places.gates = place(&mut inputs, call.gates);
    places.peepholes = place(&mut inputs, call.peepholes);
    let plan = Plan::new(b, t, call.steps.lengths, call.steps.reverse);
    let mut results = fused::apply(ScanOp { cell, plan, places, h }, &inputs)?.into_iter();
    match results.next() {
        Some(output) => Ok((output, results.collect())),
        None => bail!("recurrent scan: internal error: no result"),
    }
}

fn single(cell: impl Cell, call: Call<'_>) -> Result<Scan> {
    let (output, states) = scan(cell, call)?;
    Ok(Scan { output, state: states[0].clone() })
}

pub(super) fn rnn(
    xs: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    nonlinearity: Nonlinearity,
    steps: Steps<'_>,
) -> Result<Scan> {
    let input = Input::raw(xs, weights);
    single(RnnCell(nonlinearity), call(input, &[h0], None, weights, steps))
}

pub(super) fn lstm(
    xs: &Tensor,
    state0: Option<(&Tensor, &Tensor)>,
    weights: &Weights,
    peepholes: Option<&Tensor>,
    steps: Steps<'_>,
) -> Result<LstmScan> {
    let states = &[state0.map(|s| s.0), state0.map(|s| s.1)];
    let call = Call { peepholes, ..call(Input::raw(xs, weights), states, None, weights, steps) };
    let (output, states) = scan(LstmCell, call)?;
    Ok(LstmScan { output, hidden: states[0].clone(), cell: states[1].clone() })
}

pub(super) fn gru(
    xs: &Tensor,
    gates: Option<&Tensor>,
    h0: Option<&Tensor>,
    weights: &Weights,
    reset: Reset,
    steps: Steps<'_>,
) -> Result<Scan> {
    let states = &[h0];
    let call = call(Input::raw(xs, weights), states, gates, weights, steps);
    match (gates, reset) {
        (None, Reset::After) => single(GruCell::<false, false>, call),
        (None, Reset::Before) => single(GruCell::<false, true>, call),
        (Some(_), Reset::After) => single(GruCell::<true, false>, call),
        (Some(_), Reset::Before) => single(GruCell::<true, true>, call),
    }
}

pub(super) fn attention_gru(
    input: Input<'_>,
    gates: &Tensor,
    h0: Option<&Tensor>,
    (w_hh, b_hh): (&Tensor, Option<&Tensor>),
    steps: Steps<'_>,
) -> Result<Scan> {
    let states = &[h0];
    let gates = Some(gates);
    single(AttentionGruCell, Call { input, w_hh, b_hh, states, gates, peepholes: None, steps })
}

fn call<'a>(
    input: Input<'a>,
    states: &'a [Option<&'a Tensor>],
    gates: Option<&'a Tensor>,
    weights: &'a Weights,
    steps: Steps<'a>,
) -> Call<'a> {
    let (w_hh, b_hh) = (&weights.w_hh, weights.b_hh.as_ref());
    Call { input, w_hh, b_hh, states, gates, peepholes: None, steps }
}
