//! The fused CPU path: one custom operation a sequence.
//!
//! The input product for all steps is made before the scan (by candle) and the weight gradient after it, each in one matrix
//! product. Inside the time loop stand only the recurrent product and the vectorised gates; nothing is allocated there. Rows are
//! independent of each other, so threads share out the batch.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;
use rayon::prelude::*;

use super::cells::{AttentionGruCell, Cell, GruCell, LstmCell, RnnCell};
use super::{LstmScan, Nonlinearity, Scan, Steps, Weights};
use crate::matmul::{Mat, matmul, parallelism};
use crate::real::{Real, slice, to_vec};

/// Whether the fused path can take these operands.
pub(super) fn takes(xs: &Tensor) -> bool {
    xs.device().is_cpu() && matches!(xs.dtype(), DType::F32 | DType::F64) && xs.elem_count() > 0
}

#[derive(Clone, Copy, Debug)]
struct Dims {
    b: usize,
    t: usize,
    h: usize,
}

/// A scan as a candle operation. Operands: input products `(b, t, g h)`; recurrent weights with the bias as last column,
/// `(g h, h + 1)`; initial states and gates side by side, `(b, s h + t)` (or `(b, s h)`, gates 1). Result, flat: outputs `(b, t, h)`,
/// then final states `(b, s h)`.
struct ScanOp<C> {
    cell: C,
    dims: Dims,
    gated: bool,
    lengths: Vec<usize>,
    reverse: bool,
    saved: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// What the forward pass keeps: states before each step `(b, t, s h)` and the cell's numbers `(b, t, k h)`.
struct Saved<T> {
    states: Vec<T>,
    cell: Vec<T>,
}

impl<C> ScanOp<C> {
    /// The time step read at position `k`.
    fn time(&self, k: usize) -> usize {
        if self.reverse { self.dims.t - 1 - k } else { k }
    }

    /// Rows a thread takes at a time. The split does not change a row's arithmetic.
    fn rows_per_task(&self, gates: usize) -> usize {
        let Dims { b, t, h } = self.dims;
        let work = b * t * gates * h * h;
        let threads = if work < 1 << 17 { 1 } else { rayon::current_num_threads().min(b) };
        b.div_ceil(threads.max(1)).max(1)
    }
}

/// One thread's rows of the forward pass.
struct Forward<'a, T> {
    first: usize,
    x: &'a [T],
    init: &'a [T],
    states: &'a mut [T],
    cell: &'a mut [T],
    output: &'a mut [T],
    last: &'a mut [T],
}

impl<C> ScanOp<C> {
    fn forward<T: Real>(&self, x: &[T], w: &[T], init: &[T]) -> (Vec<T>, Saved<T>)
    where
        C: Cell<T>,
    {
        let Dims { b, t, h } = self.dims;
        let (g, s) = (C::GATES, C::STATES);
        let width = init.len() / b;
        let mut states = vec![T::ZERO; b * t * s * h];
        let mut cell = vec![T::ZERO; b * t * C::SAVED * h];
        let mut result = vec![T::ZERO; b * t * h + b * s * h];
        // Recurrent weights transposed once, (h, g h): unit stride in the product's inner loop.
        let mut w_t = vec![T::ZERO; h * g * h];
        let mut bias = vec![T::ZERO; g * h];
        for (i, row) in w.chunks_exact(h + 1).enumerate() {
            for (j, v) in row[..h].iter().enumerate() {
                w_t[j * g * h + i] = *v;
            }
            bias[i] = row[h];
        }
        let rows = self.rows_per_task(g);
        let (output, last) = result.split_at_mut(b * t * h);
        let tasks: Vec<_> = states
            .chunks_mut(rows * t * s * h)
            .zip(cell.chunks_mut(rows * t * C::SAVED * h))
            .zip(output.chunks_mut(rows * t * h))
            .zip(last.chunks_mut(rows * s * h))
            .zip(x.chunks(rows * t * g * h))
            .zip(init.chunks(rows * width))
            .enumerate()
            .map(|(i, (((((states, cell), output), last), x), init))| Forward {
                first: i * rows,
                x,
                init,
                states,
                cell,
                output,
                last,
            })
            .collect();
        let (w_t, bias) = (w_t.as_slice(), bias.as_slice());
        for_each(tasks, |task| {
            pulp::Arch::new().dispatch(ForwardRows { op: self, task, w_t, bias, width });
        });
        (result, Saved { states, cell })
    }

    #[inline(always)]
    fn forward_rows<T: Real>(&self, task: Forward<'_, T>, w_t: &[T], bias: &[T], width: usize)
    where
        C: Cell<T>,
    {
        let Dims { t, h, .. } = self.dims;
        let (g, s, k_saved) = (C::GATES, C::STATES, C::SAVED);
        let Forward { first, x, init, states, cell, output, last } = task;
        let rows = last.len() / (s * h);
        let mut a = vec![T::ZERO; rows * g * h];
        for row in 0..rows {
            last[row * s * h..][..s * h].copy_from_slice(&init[row * width..][..s * h]);
        }
        for k in 0..t {
            let i = self.time(k);
            for row in a.chunks_exact_mut(g * h) {
                row.copy_from_slice(bias);
            }
            let lhs = Mat { data: &*last, row: s * h, col: 1 };
            let rhs = Mat { data: w_t, row: g * h, col: 1 };
            matmul((rows, g * h, h), &mut a, g * h, true, lhs, rhs, Parallelism::None);
            for row in 0..rows {
                let state = &mut last[row * s * h..][..s * h];
                let at = row * t + i;
                let old = &mut states[at * s * h..][..s * h];
                old.copy_from_slice(state);
                if i >= self.lengths[first + row] {
                    continue;
                }
                let gate = if self.gated { init[row * width + s * h + i] } else { T::ONE };
                self.cell.forward(
                    &x[at * g * h..][..g * h],
                    &a[row * g * h..][..g * h],
                    old,
                    gate,
                    state,
                    &mut cell[at * k_saved * h..][..k_saved * h],
                );
                output[at * h..][..h].copy_from_slice(&state[..h]);
            }
        }
    }
}

/// One thread's rows of the backward pass.
struct Backward<'a, T> {
    first: usize,
    init: &'a [T],
    states: &'a [T],
    cell: &'a [T],
    d_output: &'a [T],
    d_last: &'a [T],
    d_x: &'a mut [T],
    d_a: &'a mut [T],
    d_init: &'a mut [T],
}

/// Gradients of the three operands.
struct Gradients<T> {
    x: Vec<T>,
    w: Vec<T>,
    init: Vec<T>,
}

impl<C> ScanOp<C> {
    fn backward<T: Real>(&self, w: &[T], init: &[T], saved: &Saved<T>, d: &[T]) -> Gradients<T>
    where
        C: Cell<T>,
    {
        let Dims { b, t, h } = self.dims;
        let (g, s) = (C::GATES, C::STATES);
        let width = init.len() / b;
        let mut d_x = vec![T::ZERO; b * t * g * h];
        let mut d_a = vec![T::ZERO; b * t * g * h];
        let mut d_init = vec![T::ZERO; init.len()];
        let rows = self.rows_per_task(g);
        let (d_output, d_last) = d.split_at(b * t * h);
        let tasks: Vec<_> = d_x
            .chunks_mut(rows * t * g * h)
            .zip(d_a.chunks_mut(rows * t * g * h))
            .zip(d_init.chunks_mut(rows * width))
            .zip(init.chunks(rows * width))
            .zip(saved.states.chunks(rows * t * s * h))
            .zip(saved.cell.chunks(rows * t * C::SAVED * h))
            .zip(d_output.chunks(rows * t * h))
            .zip(d_last.chunks(rows * s * h))
            .enumerate()
            .map(|(i, (((((((d_x, d_a), d_init), init), states), cell), d_output), d_last))| {
                let first = i * rows;
                Backward { first, init, states, cell, d_output, d_last, d_x, d_a, d_init }
            })
            .collect();
        for_each(tasks, |task| {
            pulp::Arch::new().dispatch(BackwardRows { op: self, task, w, width });
        });
        let w = self.weight_gradient(&saved.states, &d_a, s, g);
        Gradients { x: d_x, w, init: d_init }
    }

    #[inline(always)]
    fn backward_rows<T: Real>(&self, task: Backward<'_, T>, w: &[T], width: usize)
    where
        C: Cell<T>,
    {
        let Dims { t, h, .. } = self.dims;
        let (g, s, k_saved) = (C::GATES, C::STATES, C::SAVED);
        let Backward { first, init, states, cell, d_output, d_last, d_x, d_a, d_init } = task;
        let rows = d_last.len() / (s * h);
        let mut d_state = d_last.to_vec();
        let mut d_new = vec![T::ZERO; s * h];
        for k in (0..t).rev() {
            let i = self.time(k);
            for row in 0..rows {
                if i >= self.lengths[first + row] {
                    continue;
                }
                let at = row * t + i;
                let d_old = &mut d_state[row * s * h..][..s * h];
                d_new.copy_from_slice(d_old);
                for (d, o) in d_new.iter_mut().zip(&d_output[at * h..][..h]) {
                    *d += *o;
                }
                let gate = if self.gated { init[row * width + s * h + i] } else { T::ONE };
                let d_gate = self.cell.backward(
                    &cell[at * k_saved * h..][..k_saved * h],
                    &states[at * s * h..][..s * h],
                    gate,
                    &d_new,
                    &mut d_x[at * g * h..][..g * h],
                    &mut d_a[at * g * h..][..g * h],
                    d_old,
                );
                if self.gated {
                    d_init[row * width + s * h + i] = d_gate;
                }
            }
            // Ended rows have zero d_a here, so the product leaves them as they are.
            let lhs = Mat { data: &d_a[i * g * h..], row: t * g * h, col: 1 };
            let rhs = Mat { data: w, row: h + 1, col: 1 };
            matmul((rows, h, g * h), &mut d_state, s * h, true, lhs, rhs, Parallelism::None);
        }
        for row in 0..rows {
            d_init[row * width..][..s * h].copy_from_slice(&d_state[row * s * h..][..s * h]);
        }
    }

    /// `d_a^T (g h, b t) [states | 1] (b t, h + 1)`: the weights' and the bias's gradient.
    fn weight_gradient<T: Real>(&self, states: &[T], d_a: &[T], s: usize, g: usize) -> Vec<T> {
        let Dims { b, t, h } = self.dims;
        let mut d_w = vec![T::ZERO; g * h * (h + 1)];
        let lhs = Mat { data: d_a, row: 1, col: g * h };
        let rhs = Mat { data: states, row: s * h, col: 1 };
        matmul((g * h, h, b * t), &mut d_w, h + 1, false, lhs, rhs, parallelism());
        let mut sums = vec![T::ZERO; g * h];
        for row in d_a.chunks_exact(g * h) {
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += *v;
            }
        }
        for (row, sum) in d_w.chunks_exact_mut(h + 1).zip(sums) {
            row[h] = sum;
        }
        d_w
    }

    fn run_backward<T: Real>(
        &self,
        x: &Tensor,
        w: &Tensor,
        init: &Tensor,
        grad: &Tensor,
    ) -> Result<[Tensor; 3]>
    where
        C: Cell<T>,
    {
        let guard = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saved) = guard.as_ref().and_then(|s| s.downcast_ref::<Saved<T>>()) else {
            bail!("recurrent scan: internal error: backward before forward")
        };
        let (wv, iv, gv) = (to_vec::<T>(w)?, to_vec::<T>(init)?, to_vec::<T>(grad)?);
        let grads = self.backward(&wv, &iv, saved, &gv);
        Ok([
            Tensor::from_vec(grads.x, x.shape(), x.device())?,
            Tensor::from_vec(grads.w, w.shape(), w.device())?,
            Tensor::from_vec(grads.init, init.shape(), init.device())?,
        ])
    }

    fn run_forward<T: Real>(
        &self,
        (s1, l1): (&CpuStorage, &Layout),
        (s2, l2): (&CpuStorage, &Layout),
        (s3, l3): (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)>
    where
        C: Cell<T>,
    {
        let op = "recurrent scan";
        let (x, w, init) = (slice::<T>(op, s1, l1)?, slice(op, s2, l2)?, slice(op, s3, l3)?);
        let (result, saved) = self.forward(x, w, init);
        let shape = Shape::from(result.len());
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(saved));
        Ok((T::storage(result), shape))
    }
}

/// [`ScanOp::forward_rows`], compiled for each SIMD level: a closure would not be inlined into the dispatched function, and so
/// stay scalar.
struct ForwardRows<'a, C, T> {
    op: &'a ScanOp<C>,
    task: Forward<'a, T>,
    w_t: &'a [T],
    bias: &'a [T],
    width: usize,
}

impl<C: Cell<T>, T: Real> pulp::WithSimd for ForwardRows<'_, C, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.op.forward_rows(self.task, self.w_t, self.bias, self.width);
    }
}

/// [`ScanOp::backward_rows`], likewise.
struct BackwardRows<'a, C, T> {
    op: &'a ScanOp<C>,
    task: Backward<'a, T>,
    w: &'a [T],
    width: usize,
}

impl<C: Cell<T>, T: Real> pulp::WithSimd for BackwardRows<'_, C, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.op.backward_rows(self.task, self.w, self.width);
    }
}

/// Runs the tasks, on threads where there are several.
fn for_each<I: Send>(tasks: Vec<I>, f: impl Fn(I) + Sync + Send) {
    if tasks.len() == 1 {
        tasks.into_iter().for_each(f);
    } else {
        tasks.into_par_iter().for_each(f);
    }
}

impl<C: Cell<f32> + Cell<f64>> CustomOp3 for ScanOp<C> {
    fn name(&self) -> &'static str {
        "mnemic-recurrent-scan"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        match s1 {
            CpuStorage::F32(_) => self.run_forward::<f32>((s1, l1), (s2, l2), (s3, l3)),
            CpuStorage::F64(_) => self.run_forward::<f64>((s1, l1), (s2, l2), (s3, l3)),
            _ => bail!("recurrent scan: expected f32 or f64"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        init: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, w, init] = match x.dtype() {
            DType::F64 => self.run_backward::<f64>(x, w, init, grad)?,
            _ => self.run_backward::<f32>(x, w, init, grad)?,
        };
        Ok((Some(x), Some(w), Some(init)))
    }
}

/// The operands of a scan.
struct Call<'a> {
    xs: &'a Tensor,
    states: &'a [Option<&'a Tensor>],
    gates: Option<&'a Tensor>,
    weights: &'a Weights,
    steps: Steps<'a>,
}

/// Prepares the operands, applies the operation and cuts the result: outputs `(b, t, h)` and final states `(b, h)`.
fn scan<C: Cell<f32> + Cell<f64>>(cell: C, call: Call<'_>) -> Result<(Tensor, Vec<Tensor>)> {
    let Call { xs, states, gates, weights, steps } = call;
    let (b, t, d) = xs.dims3()?;
    let (rows, h) = weights.w_hh.dims2()?;
    let x = xs.reshape((b * t, d))?.matmul(&weights.w_ih.t()?)?;
    let x = match &weights.b_ih {
        Some(bias) => x.broadcast_add(bias)?,
        None => x,
    };
    let x = x.reshape((b, t, rows))?.contiguous()?;
    let bias = match &weights.b_hh {
        Some(bias) => bias.unsqueeze(1)?,
        None => Tensor::zeros((rows, 1), xs.dtype(), xs.device())?,
    };
    let w = Tensor::cat(&[&weights.w_hh, &bias], 1)?.contiguous()?;
    let mut init = Vec::with_capacity(states.len() + 1);
    for state in states {
        init.push(match state {
            Some(state) if state.dims() == [b, h] => (*state).clone(),
            Some(state) => bail!("expected a ({b}, {h}) initial state, got {:?}", state.dims()),
            None => Tensor::zeros((b, h), xs.dtype(), xs.device())?,
        });
    }
    init.extend(gates.cloned());
    let init = Tensor::cat(&init, 1)?.contiguous()?;
    let op = ScanOp {
        cell,
        dims: Dims { b, t, h },
        gated: gates.is_some(),
        lengths: steps.lengths.map_or_else(|| vec![t; b], <[usize]>::to_vec),
        reverse: steps.reverse,
        saved: Mutex::new(None),
    };
    let flat = x.apply_op3(&w, &init, op)?;
    let output = flat.narrow(0, 0, b * t * h)?.reshape((b, t, h))?;
    let last = flat.narrow(0, b * t * h, b * states.len() * h)?.reshape((b, states.len(), h))?;
    let last = (0..states.len()).map(|s| last.narrow(1, s, 1)?.squeeze(1));
    Ok((output, last.collect::<Result<_>>()?))
}

fn single(cell: impl Cell<f32> + Cell<f64>, call: Call<'_>) -> Result<Scan> {
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
    single(RnnCell(nonlinearity), Call { xs, states: &[h0], gates: None, weights, steps })
}

pub(super) fn lstm(
    xs: &Tensor,
    state0: Option<(&Tensor, &Tensor)>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<LstmScan> {
    let states = &[state0.map(|s| s.0), state0.map(|s| s.1)];
    let (output, states) = scan(LstmCell, Call { xs, states, gates: None, weights, steps })?;
    Ok(LstmScan { output, hidden: states[0].clone(), cell: states[1].clone() })
}

pub(super) fn gru(
    xs: &Tensor,
    gates: Option<&Tensor>,
    h0: Option<&Tensor>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<Scan> {
    single(GruCell, Call { xs, states: &[h0], gates, weights, steps })
}

pub(super) fn attention_gru(
    xs: &Tensor,
    gates: &Tensor,
    h0: Option<&Tensor>,
    weights: &Weights,
    steps: Steps<'_>,
) -> Result<Scan> {
    single(AttentionGruCell, Call { xs, states: &[h0], gates: Some(gates), weights, steps })
}
