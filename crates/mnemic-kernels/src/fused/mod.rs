//! Fused operations with any number of operands and results, as candle operations.
//!
//! A candle `CustomOp` has at most three operands and one result; packing more into one tensor would copy them, and cutting
//! the result up would fill the backward pass with zeros. So the values are computed first, and the graph is then made of:
//!
//! - a chain of scalar *tokens* that hold the edges to the operands, two or three each;
//! - one node for every result, on top of the last token. Its backward pass lays its gradient aside.
//!
//! candle visits a node after all nodes that use it. So when the last token is reached, the gradients of all results in use have
//! been laid aside; it computes those of the operands, and the tokens below hand theirs on.
//!
//! candle makes a tensor of zeros and an addition for the gradient of every edge. An edge to the result of another fused
//! operation is therefore drawn to that one's token instead, a scalar, and the gradient is laid aside there directly. [`backward`]
//! does the same for variables, and where all operations are fused it walks from call to call without candle.

mod backward;
mod graph;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Result, Shape, Storage, Tensor, bail};

use crate::cuda;
use crate::real::{Real, slice};
pub use backward::{backward, backward_from, only_fused};
pub(crate) use graph::{Call, State, tie};

/// A contiguous operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) dims: &'a [usize],
}

/// A result: its numbers, row-major, and its shape.
pub(crate) type Array<T> = (Vec<T>, Vec<usize>);

/// What a forward pass gives: its results, and what the backward pass needs.
pub(crate) type Results<T, S> = (Vec<Array<T>>, S);

/// What the backward pass of an operation is given.
pub(crate) struct Backward<'a, T, S> {
    pub(crate) inputs: &'a [View<'a, T>],
    pub(crate) outputs: &'a [View<'a, T>],
    pub(crate) saved: &'a S,
    /// The gradients of the results; `None` for one that the loss does not depend on.
    pub(crate) grads: &'a [Option<View<'a, T>>],
    /// Which operands need a gradient.
    pub(crate) wanted: &'a [bool],
}

/// An operation in 32 and 64 bits with a backward pass. Half precision is computed in 32 bits.
pub(crate) trait FusedOp: Send + Sync + 'static {
    const NAME: &'static str;
    /// The operands `w (o, i)` and `x (…, i)` where the gradient of `w` is `dyᵀ x` with that of the only result, `dy (…, o)`. [`backward`] may
    /// then make it of all uses of a variable at once, and not want it here.
    const PRODUCT: Option<(usize, usize)> = None;
    /// What the forward pass keeps for the backward pass, beside operands and results.
    type Saved<T: Real>: Send + Sync;

    /// The results, and what to keep. `grad` says whether a backward pass may follow; else nothing need be kept.
    fn forward<T: Real>(
        &self,
        inputs: &[View<'_, T>],
        grad: bool,
    ) -> Result<Results<T, Self::Saved<T>>>;

    /// A gradient, row-major, for each operand that is wanted; what stands at the others is not looked at.
    fn backward<T: Real>(
        &self,
        pass: Backward<'_, T, Self::Saved<T>>,
    ) -> Result<Vec<Option<Vec<T>>>>;
}

/// Whether the fused CPU path can take these operands: floats of one type on the CPU.
pub(crate) fn takes(inputs: &[&Tensor]) -> bool {
    let float = |d| matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    !cuda::emulating()
        && inputs
            .iter()
            .all(|t| t.device().is_cpu() && float(t.dtype()) && t.dtype() == inputs[0].dtype())
}

/// Runs `op` on CPU tensors and ties its results into the graph.
pub(crate) fn apply<O: FusedOp>(op: O, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    if !takes(inputs) {
        let got: Vec<_> = inputs.iter().map(|t| (t.dtype(), t.device().location())).collect();
        bail!("{}: expected floats of one type on the CPU, got {got:?}", O::NAME);
    }
    match inputs.first().map_or(DType::F32, |t| t.dtype()) {
        DType::F64 => run::<O, f64>(op, inputs),
        DType::F32 => run::<O, f32>(op, inputs),
        half => {
            let wide = inputs.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
            let results = run::<O, f32>(op, &wide.iter().collect::<Vec<_>>())?;
            results.iter().map(|t| t.to_dtype(half)).collect()
        }
    }
}

/// [`apply`] for an operation of one result.
pub(crate) fn apply1<O: FusedOp>(op: O, inputs: &[&Tensor]) -> Result<Tensor> {
    match apply(op, inputs)?.into_iter().next() {
        Some(result) => Ok(result),
        None => bail!("{}: internal error: no result", O::NAME),
    }
}

fn run<O: FusedOp, T: Real>(op: O, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let values = inputs.iter().map(|t| t.detach().contiguous()).collect::<Result<Vec<Tensor>>>()?;
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].track_op()).collect();
    let (results, saved) =
        with_views::<T, _>(&values, |views| op.forward(views, !tracked.is_empty()))??;
    let Some(device) = inputs.first().map(|t| t.device()) else {
        bail!("{}: internal error: no operand", O::NAME)
    };
    if tracked.is_empty() {
        return results.into_iter().map(|(v, dims)| Tensor::from_vec(v, dims, device)).collect();
    }
    let wanted = inputs.iter().map(|t| t.track_op()).collect();
    let state = Mutex::new(State::new(results.len(), inputs.len()));
    let call: Arc<dyn Call> = Arc::new(TypedCall::<O, T> { op, values, saved, wanted, state });
    let storage = |(v, dims)| (Storage::Cpu(T::storage(v)), Shape::from(dims));
    tie(&call, inputs, &tracked, results.into_iter().map(storage).collect())
}

struct TypedCall<O: FusedOp, T: Real> {
    op: O,
    values: Vec<Tensor>,
    saved: O::Saved<T>,
    wanted: Vec<bool>,
    state: Mutex<State>,
}

impl<O: FusedOp, T: Real> Call for TypedCall<O, T> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_backward(&self) -> Result<()> {
        let (outputs, grads) = self.state().take();
        let mut wanted = self.wanted.clone();
        if let Some((w, x)) = O::PRODUCT
            && wanted[w]
            && let Some(Some(dy)) = grads.first()
        {
            let targets = Arc::clone(&self.state().targets);
            wanted[w] = !backward::keep_product(&targets[w], dy, &self.values[x])?;
        }
        let given: Vec<Tensor> =
            grads.iter().flatten().map(Tensor::contiguous).collect::<Result<_>>()?;
        let results = with_views::<T, _>(&self.values, |inputs| {
            with_views::<T, _>(&outputs, |outputs| {
                with_views::<T, _>(&given, |given| {
                    let mut given = given.iter().copied();
                    let grads: Vec<_> =
                        grads.iter().map(|g| g.as_ref().and_then(|_| given.next())).collect();
                    self.op.backward(Backward {
                        inputs,
                        outputs,
                        saved: &self.saved,
                        grads: &grads,
                        wanted: &wanted,
                    })
                })
            })
        })????;
        let mut tensors = Vec::with_capacity(results.len());
        for ((result, value), &wanted) in results.into_iter().zip(&self.values).zip(&wanted) {
            tensors.push(match (wanted, result) {
                (false, _) => None,
                (true, Some(v)) => Some(Tensor::from_vec(v, value.shape(), value.device())?),
                (true, None) => bail!("{}: internal error: a gradient is missing", O::NAME),
            });
        }
        self.state().input_grads = tensors;
        Ok(())
    }
}

/// Calls `f` with the numbers of contiguous CPU tensors.
fn with_views<T: Real, R>(tensors: &[Tensor], f: impl FnOnce(&[View<'_, T>]) -> R) -> Result<R> {
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut views = Vec::with_capacity(guards.len());
    for ((storage, layout), tensor) in guards.iter().zip(tensors) {
        let Storage::Cpu(storage) = &**storage else { bail!("internal error: not on the CPU") };
        views.push(View { data: slice("fused", storage, layout)?, dims: tensor.dims() });
    }
    Ok(f(&views))
}

#[cfg(test)]
mod tests;
