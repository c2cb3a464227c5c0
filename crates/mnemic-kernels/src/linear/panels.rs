//! Weights that stay as they are, laid out once in the order in which a product reads them.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::cpu::{product as any_product, rows};
use crate::fused::{self, Array, Backward, FusedOp, View};
use crate::matmul::{Mat, PARALLEL};
use crate::packed::{self, Packed, Start, Term, WIDE};
use crate::real::{Real, buffer};
use crate::simd;

/// The weight of a linear map to which no gradient goes, as when answering, generating, or training what lies above it. The map is faster than
/// [`linear`](super::linear), most of all for a few dozen rows, since nothing is reordered at a call, and a row's result does not depend on the rows beside it.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::linear::Panels;
/// let weight = Tensor::new(&[[1f32, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?;
/// let panels = Panels::new(&weight)?.expect("f32 on the CPU");
/// let y = panels.forward(&Tensor::new(&[[1f32, 2.]], &Device::Cpu)?, None)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 2., 3.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Panels {
    data: Tensor,
    o: usize,
    i: usize,
}

impl Panels {
    /// Lays out `weight (o, i)`, in memory of its own. `None` where this does not pay or gradients go to it: it is tracked, empty, not on the CPU, or of
    /// another type than f32 and f64.
    ///
    /// # Errors
    /// When `weight` is not a matrix.
    pub fn new(weight: &Tensor) -> Result<Option<Self>> {
        let (o, i) = weight.dims2()?;
        let float = matches!(weight.dtype(), DType::F32 | DType::F64);
        if !float || weight.track_op() || o * i == 0 || !fused::takes(&[weight]) {
            return Ok(None);
        }
        let data = fused::apply1(PackOp, &[weight])?;
        Ok(Some(Self { data, o, i }))
    }

    /// `y = x Wᵀ + b`: `xs (…, i)` and perhaps `bias (o)` to `(…, o)`. Gradients go to `xs` and `bias`.
    ///
    /// # Errors
    /// When the shapes or types do not fit.
    pub fn forward(&self, xs: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (x, b) = (xs.dims(), bias.map(Tensor::dims));
        if x.last() != Some(&self.i) || b.is_some_and(|b| b != [self.o]) {
            let (o, i) = (self.o, self.i);
            bail!("linear: expected input (…, {i}) and bias ({o}), got {x:?} and {b:?}");
        }
        let operands: Vec<&Tensor> = [xs, &self.data].into_iter().chain(bias).collect();
        fused::apply1(PanelsOp { o: self.o, i: self.i }, &operands)
    }
}

/// Operand: weight (o, i).
struct PackOp;

impl FusedOp for PackOp {
    const NAME: &'static str = "linear";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let (o, i) = (inputs[0].dims[0], inputs[0].dims[1]);
        let weight = Mat { data: inputs[0].data, row: 1, col: i };
        let data = Packed::new(weight, i, o).into_data();
        let len = data.len();
        Ok((vec![(data, vec![len])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        Ok(vec![None; pass.inputs.len()])
    }
}

/// Operands: input (…, i), packed weight and perhaps bias (o).
struct PanelsOp {
    o: usize,
    i: usize,
}

/// Rows of the input that a task multiplies by all panels, so that they stay in the cache of a core.
const ROWS: usize = 96;

impl PanelsOp {
    /// `y (m, o)`.
    fn product<T: Real>(&self, x: &[T], weight: packed::View<'_, T>, bias: &[T]) -> Vec<T> {
        let (o, i) = (self.o, self.i);
        let m = x.len() / i;
        let level = simd::level();
        let mut y = buffer(m * o);
        let threads = rayon::current_num_threads();
        let block = |(x, y): (&[T], &mut [T])| {
            let term = Term { lhs: x, row: i, rhs: weight };
            packed::product(level, y.len() / o, &[term], Start::Bias(bias), y, o);
        };
        if threads < 2 || m * o * i < PARALLEL {
            x.chunks(ROWS * i).zip(y.chunks_mut(ROWS * o)).for_each(block);
        } else if m >= threads * ROWS {
            x.par_chunks(ROWS * i).zip(y.par_chunks_mut(ROWS * o)).for_each(block);
        } else {
            self.by_columns(x, weight, bias, &mut y);
        }
        y
    }

    /// Too few rows for all threads: each takes some columns, which are put together afterwards.
    fn by_columns<T: Real>(&self, x: &[T], weight: packed::View<'_, T>, bias: &[T], y: &mut [T]) {
        let (o, i) = (self.o, self.i);
        let m = x.len() / i;
        let level = simd::level();
        let share = o.div_ceil(rayon::current_num_threads()).next_multiple_of(WIDE);
        let starts: Vec<usize> = (0..o).step_by(share).collect();
        let task = |&from: &usize| {
            let until = (from + share).min(o);
            let mut part = buffer(m * (until - from));
            let term = Term { lhs: x, row: i, rhs: weight.columns(from, until) };
            let bias = Start::Bias(&bias[from..until]);
            packed::product(level, m, &[term], bias, &mut part, until - from);
            part
        };
        let parts: Vec<Vec<T>> = starts.par_iter().map(task).collect();
        for (&from, part) in starts.iter().zip(&parts) {
            let width = share.min(o - from);
            for (y, part) in y.chunks_exact_mut(o).zip(part.chunks_exact(width)) {
                y[from..from + width].copy_from_slice(part);
            }
        }
    }
}

impl FusedOp for PanelsOp {
    const NAME: &'static str = "linear";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let mut dims = inputs[0].dims.to_vec();
        dims[inputs[0].dims.len() - 1] = self.o;
        let weight = packed::View::new(inputs[1].data, self.i, self.o);
        let zeros = vec![T::ZERO; if inputs.len() > 2 { 0 } else { self.o }];
        let bias = inputs.get(2).map_or(&zeros[..], |bias| bias.data);
        Ok((vec![(self.product(inputs[0].data, weight, bias), dims)], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let (o, i) = (self.o, self.i);
        let dy = pass.grads[0].map_or(&[][..], |g| g.data);
        let m = dy.len() / o;
        let weight = packed::View::new(pass.inputs[1].data, i, o);
        let dx = || {
            let weight: Vec<T> = (0..o * i).map(|at| weight.at(at % i, at / i)).collect();
            any_product(m * i, (m, i, o), rows(dy, o), rows(&weight, i))
        };
        let mut grads = vec![pass.wanted[0].then(dx), None];
        if let Some(&wanted) = pass.wanted.get(2) {
            grads.push(wanted.then(|| super::sum_rows(dy, o)));
        }
        Ok(grads)
    }
}
