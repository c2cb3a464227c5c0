//! One step of an LSTM whose products are given.

use candle_core::Result;

use super::cells::{Backward as CellBackward, Cell, Forward as CellForward, LstmCell};
use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, buffer};
use crate::simd;

/// Input products and recurrent products `(b, 4 h)` and cell states `(b, h)` to hidden and cell states `(b, h)`.
pub(super) struct LstmStepOp;

impl FusedOp for LstmStepOp {
    const NAME: &'static str = "lstm step";
    /// The gates, `(b, 4 h)`.
    type Saved<T: Real> = Vec<T>;

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, Vec<T>)> {
        let (b, h) = (x[2].dims[0], x[2].dims[1]);
        let mut gates = x[0].data.to_vec();
        let (mut hidden, mut cell) = (buffer(b * h), buffer(b * h));
        simd::level().dispatch(Step {
            gates: &mut gates,
            products: x[1].data,
            old: x[2].data,
            hidden: &mut hidden,
            cell: &mut cell,
            h,
        });
        Ok((vec![(hidden, vec![b, h]), (cell, vec![b, h])], gates))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Vec<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs;
        let (b, h) = (x[2].dims[0], x[2].dims[1]);
        let grad = |i: usize| match pass.grads[i] {
            Some(grad) => grad.data.to_vec(),
            None => vec![T::ZERO; b * h],
        };
        let (mut d_hidden, mut d_cell) = (grad(0), grad(1));
        let mut d_gates = buffer(b * 4 * h);
        simd::level().dispatch(StepBackward {
            gates: pass.saved,
            old: x[2].data,
            new: pass.outputs[1].data,
            d_hidden: &mut d_hidden,
            d_cell: &mut d_cell,
            d_gates: &mut d_gates,
            h,
        });
        let again = pass.wanted[1].then(|| d_gates.clone());
        Ok(vec![Some(d_gates), again, Some(d_cell)])
    }
}

struct Step<'a, T> {
    /// The input products, which become the gates.
    gates: &'a mut [T],
    products: &'a [T],
    old: &'a [T],
    hidden: &'a mut [T],
    cell: &'a mut [T],
    h: usize,
}

impl<T: Real> pulp::WithSimd for Step<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let h = self.h;
        let rows = self.gates.chunks_exact_mut(4 * h).zip(self.products.chunks_exact(4 * h));
        let states = self.hidden.chunks_exact_mut(h).zip(self.cell.chunks_exact_mut(h));
        for (((gates, products), (hidden, cell)), old) in
            rows.zip(states).zip(self.old.chunks_exact(h))
        {
            LstmCell.forward(CellForward {
                x: &mut fourths_mut(gates),
                a: &fourths(products),
                // The hidden state before is in the products.
                old: &[old, old],
                new: &mut [hidden, cell],
                gate: &[],
                peepholes: None,
                h,
            });
        }
    }
}

struct StepBackward<'a, T> {
    gates: &'a [T],
    old: &'a [T],
    new: &'a [T],
    d_hidden: &'a mut [T],
    d_cell: &'a mut [T],
    d_gates: &'a mut [T],
    h: usize,
}

impl<T: Real> pulp::WithSimd for StepBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let h = self.h;
        let gates = self.gates.chunks_exact(4 * h).zip(self.d_gates.chunks_exact_mut(4 * h));
        let grads = self.d_hidden.chunks_exact_mut(h).zip(self.d_cell.chunks_exact_mut(h));
        let states = self.old.chunks_exact(h).zip(self.new.chunks_exact(h));
        for (((gates, d_gates), (d_hidden, d_cell)), (old, new)) in gates.zip(grads).zip(states) {
            LstmCell.backward(CellBackward {
                x: &fourths(gates),
                u: &[],
                old: &[old, old],
                new: &[new, new],
                gate: &[],
                peepholes: None,
                h,
                d_state: &mut [d_hidden, d_cell],
                d_x: &mut fourths_mut(d_gates),
                d_u: &mut [],
                d_gate: &mut [],
            });
        }
    }
}

/// The gates of a row.
#[inline(always)]
fn fourths<T>(row: &[T]) -> [&[T]; 4] {
    let (a, b) = row.split_at(row.len() / 2);
    let ((i, f), (g, o)) = (a.split_at(a.len() / 2), b.split_at(b.len() / 2));
    [i, f, g, o]
}

#[inline(always)]
fn fourths_mut<T>(row: &mut [T]) -> [&mut [T]; 4] {
    let half = row.len() / 2;
    let (a, b) = row.split_at_mut(half);
    let ((i, f), (g, o)) = (a.split_at_mut(half / 2), b.split_at_mut(half / 2));
    [i, f, g, o]
}
