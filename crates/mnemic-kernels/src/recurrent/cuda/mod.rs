//! The CUDA path: the input products of all steps as one product, the scan as one launch, and after the backward scan one product for
//! each gradient of weights. [`path`] says which kernels do the scan.
//!
//! Operands in 64 bits, empty ones and those on different devices go to the plain twin.

mod path;
mod scan;
mod steps;

use candle_core::{Result, Tensor, bail};

use super::{LstmScan, Nonlinearity, Reset, Scan, Steps, Weights};
use crate::cuda;
#[cfg(test)]
pub(super) use path::forced;
use scan::{Kind, Places, ScanOp};

/// The operands of a scan.
pub(super) struct Operands<'a> {
    /// Inputs `(b, t, d)`, or without `w_ih` their products `(b, t, g h)`.
    pub(super) x: &'a Tensor,
    pub(super) w_ih: Option<&'a Tensor>,
    pub(super) b_ih: Option<&'a Tensor>,
    pub(super) w_hh: &'a Tensor,
    pub(super) b_hh: Option<&'a Tensor>,
    pub(super) states: [Option<&'a Tensor>; 2],
    pub(super) gates: Option<&'a Tensor>,
    pub(super) peepholes: Option<&'a Tensor>,
}

impl<'a> Operands<'a> {
    pub(super) fn new(xs: &'a Tensor, h0: Option<&'a Tensor>, weights: &'a Weights) -> Self {
        Operands {
            x: xs,
            w_ih: Some(&weights.w_ih),
            b_ih: weights.b_ih.as_ref(),
            w_hh: &weights.w_hh,
            b_hh: weights.b_hh.as_ref(),
            states: [h0, None],
            gates: None,
            peepholes: None,
        }
    }

    /// All of them, and where each stands.
    fn list(&self) -> (Vec<&'a Tensor>, Places) {
        let mut all = vec![self.x, self.w_hh];
        let mut place = |t: Option<&'a Tensor>| {
            t.map(|t| {
                all.push(t);
                all.len() - 1
            })
        };
        let places = Places {
            w_ih: place(self.w_ih),
            b_ih: place(self.b_ih),
            b_hh: place(self.b_hh),
            states: self.states.map(&mut place),
            gates: place(self.gates),
            peepholes: place(self.peepholes),
        };
        (all, places)
    }

    /// Whether the kernels can take them.
    pub(super) fn fit(&self) -> bool {
        cuda::takes(&self.list().0)
    }

    /// Outputs `(b, t, h)` and final states `(b, h)`.
    fn scan(self, kind: Kind, steps: Steps<'_>) -> Result<Vec<Tensor>> {
        let ((b, t, _), h) = (self.x.dims3()?, self.w_hh.dim(1)?);
        for state in self.states.iter().flatten() {
            if state.dims() != [b, h] {
                bail!("expected a ({b}, {h}) initial state, got {:?}", state.dims());
            }
        }
        // Full lengths are none.
        let lengths = steps.lengths.filter(|l| l.iter().any(|&l| l < t)).map(<[usize]>::to_vec);
        let (inputs, places) = self.list();
        cuda::apply(ScanOp { kind, places, lengths, reverse: steps.reverse }, &inputs)
    }

    fn single(self, kind: Kind, steps: Steps<'_>) -> Result<Scan> {
        match <[Tensor; 2]>::try_from(self.scan(kind, steps)?) {
            Ok([output, state]) => Ok(Scan { output, state }),
            Err(all) => bail!("recurrent scan: internal error: {} results", all.len()),
        }
    }

    pub(super) fn rnn(self, nonlinearity: Nonlinearity, steps: Steps<'_>) -> Result<Scan> {
        self.single(Kind::Rnn(nonlinearity), steps)
    }

    pub(super) fn lstm(self, steps: Steps<'_>) -> Result<LstmScan> {
        match <[Tensor; 3]>::try_from(self.scan(Kind::Lstm, steps)?) {
            Ok([output, hidden, cell]) => Ok(LstmScan { output, hidden, cell }),
            Err(all) => bail!("lstm: internal error: {} results", all.len()),
        }
    }

    pub(super) fn gru(self, reset: Reset, steps: Steps<'_>) -> Result<Scan> {
        self.single(Kind::Gru(reset), steps)
    }

    pub(super) fn attention_gru(self, steps: Steps<'_>) -> Result<Scan> {
        self.single(Kind::Attention, steps)
    }
}
