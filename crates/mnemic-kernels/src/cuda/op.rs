//! Operations with CUDA kernels, as nodes of candle's graph.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{emulating, memory};
use crate::fused::{Call, State, tie};

/// What the backward pass of an operation is given. All tensors are contiguous and outside any graph.
pub(crate) struct Pass<'a> {
    pub(crate) inputs: &'a [Tensor],
    pub(crate) outputs: &'a [Tensor],
    pub(crate) saved: &'a [Tensor],
    /// The gradients of the results; `None` for one that the loss does not depend on.
    pub(crate) grads: &'a [Option<Tensor>],
    /// Which operands need a gradient.
    pub(crate) wanted: &'a [bool],
}

/// An operation on tensors of one CUDA device with a backward pass.
pub(crate) trait DeviceOp: Send + Sync + 'static {
    const NAME: &'static str;
    /// Whether there are kernels for f16 and bf16; else they are computed in f32.
    const HALF: bool;

    /// The results, new tensors that nobody else holds, and what to keep. The operands are contiguous and outside any graph. `grad`
    /// says whether a backward pass may follow; else nothing need be kept.
    fn forward(&self, inputs: &[Tensor], grad: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)>;

    /// A gradient for each operand that is wanted; what stands at the others is not looked at.
    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>>;
}

/// Whether the kernels can take these operands: some numbers each, in f32, f16 or bf16, on one CUDA device.
pub(crate) fn takes(inputs: &[&Tensor]) -> bool {
    let Some(first) = inputs.first() else { return false };
    let there = match first.device() {
        Device::Cuda(_) => true,
        Device::Cpu => emulating(),
        Device::Metal(_) => false,
    };
    let float = matches!(first.dtype(), DType::F32 | DType::F16 | DType::BF16);
    let fits = |t: &&Tensor| {
        t.dtype() == first.dtype() && t.elem_count() > 0 && t.device().same_device(first.device())
    };
    there && float && inputs.iter().all(fits)
}

/// Runs `op` and ties its results into the graph.
pub(crate) fn apply<O: DeviceOp>(op: O, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let Some(first) = inputs.first() else { bail!("{}: internal error: no operand", O::NAME) };
    if !O::HALF && first.dtype() != DType::F32 {
        let half = first.dtype();
        let wide = inputs.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
        let results = run(op, &wide.iter().collect::<Vec<_>>())?;
        return results.iter().map(|t| t.to_dtype(half)).collect();
    }
    run(op, inputs)
}

/// [`apply`] for an operation of one result.
pub(crate) fn apply1<O: DeviceOp>(op: O, inputs: &[&Tensor]) -> Result<Tensor> {
    match apply(op, inputs)?.into_iter().next() {
        Some(result) => Ok(result),
        None => bail!("{}: internal error: no result", O::NAME),
    }
}

fn run<O: DeviceOp>(op: O, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let values = inputs.iter().map(|t| t.detach().contiguous()).collect::<Result<Vec<Tensor>>>()?;
    let wanted: Vec<bool> = inputs.iter().map(|t| t.track_op()).collect();
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&i| wanted[i]).collect();
    let (results, saved) = op.forward(&values, !tracked.is_empty())?;
    if tracked.is_empty() {
        return Ok(results);
    }
    let state = Mutex::new(State::new(results.len(), inputs.len()));
    let call: Arc<dyn Call> = Arc::new(DeviceCall { op, values, saved, wanted, state });
    let storages = results.iter().map(memory::into_storage).collect::<Result<_>>()?;
    tie(&call, inputs, &tracked, storages)
}

/// One use of an operation.
struct DeviceCall<O> {
    op: O,
    values: Vec<Tensor>,
    saved: Vec<Tensor>,
    wanted: Vec<bool>,
    state: Mutex<State>,
}

impl<O: DeviceOp> Call for DeviceCall<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_backward(&self) -> Result<()> {
        let (outputs, grads) = self.state().take();
        let whole = |g: Option<Tensor>| g.map(|g| g.detach().contiguous()).transpose();
        let grads = grads.into_iter().map(whole).collect::<Result<Vec<_>>>()?;
        let pass = Pass {
            inputs: &self.values,
            outputs: &outputs,
            saved: &self.saved,
            grads: &grads,
            wanted: &self.wanted,
        };
        let results = self.op.backward(pass)?;
        let mut tensors = Vec::with_capacity(results.len());
        for ((result, value), &wanted) in results.into_iter().zip(&self.values).zip(&self.wanted) {
            tensors.push(match (wanted, result) {
                (false, _) => None,
                (true, Some(g)) if g.dims() == value.dims() => Some(g),
                (true, Some(g)) => Some(g.reshape(value.shape())?),
                (true, None) => bail!("{}: internal error: a gradient is missing", O::NAME),
            });
        }
        self.state().input_grads = tensors;
        Ok(())
    }
}
