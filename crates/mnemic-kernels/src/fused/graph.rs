//! How fused operations stand in candle's graph; see the page of [`super`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape,
    Storage, Tensor, TensorId, bail,
};

use super::backward::hand_on;

/// Where the gradient of an operand goes.
#[derive(Clone)]
pub(super) enum Target {
    /// To the operation that it is a result of, or a view of a result.
    Result(Arc<dyn Call>, usize, View),
    /// Into the store of [`backward`] where that is running, else to candle.
    Variable(TensorId),
    /// To candle.
    Other,
    /// Nowhere: no gradient is wanted.
    None,
}

/// How an operand views a result of another operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum View {
    /// It is the result.
    Whole,
    /// The same numbers in the same order.
    Reshaped(Shape),
    /// The axes that the gradient is to be permuted by first.
    Permuted(Vec<usize>, Shape),
}

impl View {
    /// What `input`, which shares its numbers with a result of this shape, is to it; `None` for other views.
    fn of(input: &Tensor, shape: &Shape) -> Option<View> {
        if input.elem_count() != shape.elem_count() || input.layout().start_offset() != 0 {
            return None;
        }
        if input.is_contiguous() {
            return Some(View::Reshaped(shape.clone()));
        }
        // The axes in the order in which their numbers lie in memory.
        let mut axes: Vec<usize> = (0..input.rank()).collect();
        axes.sort_by_key(|&axis| std::cmp::Reverse(input.stride()[axis]));
        let mut stride = 1;
        for &axis in axes.iter().rev() {
            if input.dims()[axis] != 1 && input.stride()[axis] != stride {
                return None;
            }
            stride *= input.dims()[axis];
        }
        Some(View::Permuted(axes, shape.clone()))
    }

    /// The gradient of the result.
    pub(super) fn undo(&self, grad: &Tensor) -> Result<Tensor> {
        match self {
            View::Whole => Ok(grad.clone()),
            View::Reshaped(shape) => grad.contiguous()?.reshape(shape),
            View::Permuted(axes, shape) => {
                grad.permute(axes.as_slice())?.contiguous()?.reshape(shape)
            }
        }
    }
}

/// What a fused result stands on.
pub(super) struct Origin {
    call: Arc<dyn Call>,
    index: usize,
    token: Tensor,
    shape: Shape,
    /// Where its numbers are.
    address: usize,
}

/// The results that are alive, by their id and by where their numbers are.
#[derive(Default)]
pub(super) struct Alive {
    by_id: HashMap<TensorId, Origin>,
    by_address: HashMap<usize, TensorId>,
}

impl Alive {
    fn insert(&mut self, id: TensorId, origin: Origin) {
        self.by_address.insert(origin.address, id);
        self.by_id.insert(id, origin);
    }

    fn remove(&mut self, id: TensorId) -> Option<Origin> {
        let origin = self.by_id.remove(&id)?;
        if self.by_address.get(&origin.address) == Some(&id) {
            self.by_address.remove(&origin.address);
        }
        Some(origin)
    }

    #[cfg(test)]
    pub(super) fn has(&self, id: TensorId) -> bool {
        self.by_id.contains_key(&id)
    }
}

static RESULTS: Mutex<Option<Alive>> = Mutex::new(None);

pub(super) fn results<R>(f: impl FnOnce(&mut Alive) -> R) -> R {
    f(RESULTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

fn address(t: &Tensor) -> usize {
    let (storage, _) = t.storage_and_layout();
    std::ptr::from_ref::<Storage>(&storage).addr()
}

/// The tensor to draw the edge to, and where the gradient goes. What is tracked and shares the numbers of a result stands on it
/// through views alone: candle copies for everything else.
pub(super) fn edge(input: &Tensor) -> (Tensor, Target) {
    if input.is_variable() {
        return (input.clone(), Target::Variable(input.id()));
    }
    let address = address(input);
    let found = results(|all| {
        let to = |o: &Origin, view| {
            (o.token.clone(), Target::Result(Arc::clone(&o.call), o.index, view))
        };
        if let Some(origin) = all.by_id.get(&input.id()) {
            return Some(to(origin, View::Whole));
        }
        let origin = all.by_id.get(all.by_address.get(&address)?)?;
        Some(to(origin, View::of(input, &origin.shape)?))
    });
    found.unwrap_or_else(|| (input.clone(), Target::Other))
}

/// Makes the nodes of a call from the values of its results; see the module's page.
pub(crate) fn tie(
    call: &Arc<dyn Call>,
    inputs: &[&Tensor],
    tracked: &[usize],
    values: Vec<(Storage, Shape)>,
) -> Result<Vec<Tensor>> {
    // One edge to each token, one for every other operand.
    let mut edges: Vec<(Tensor, Option<usize>)> = Vec::with_capacity(tracked.len());
    let mut targets = vec![Target::None; inputs.len()];
    for &i in tracked {
        let (tensor, target) = edge(inputs[i]);
        let fused = matches!(target, Target::Result(..));
        targets[i] = target;
        if !fused || edges.iter().all(|(other, _)| other.id() != tensor.id()) {
            edges.push((tensor, (!fused).then_some(i)));
        }
    }
    call.state().targets = targets.into();
    let mut rest = edges.as_slice();
    let mut token: Option<Tensor> = None;
    while !rest.is_empty() {
        let room = if token.is_some() { 2 } else { 3 };
        let (now, later) = rest.split_at(rest.len().min(room));
        rest = later;
        let node = Token {
            call: Arc::clone(call),
            operands: now.iter().map(|(_, input)| *input).collect(),
            above: token.is_some(),
            last: rest.is_empty(),
        };
        let below = token.take();
        let args: Vec<&Tensor> = now.iter().map(|(tensor, _)| tensor).chain(&below).collect();
        token = Some(match args.as_slice() {
            [a] => a.apply_op1(node)?,
            [a, b] => a.apply_op2(b, node)?,
            [a, b, c] => a.apply_op3(b, c, node)?,
            _ => bail!("internal error: {} operands of a token", args.len()),
        });
    }
    let Some(token) = token else { bail!("internal error: no token") };
    let mut outputs = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let key = Arc::new(Mutex::new(None));
        let payload = Mutex::new(Some(value));
        let node =
            ResultNode { call: Arc::clone(call), index, payload, key: Key(Arc::clone(&key)) };
        let output = token.apply_op1(node)?;
        *key.lock().unwrap_or_else(PoisonError::into_inner) = Some(output.id());
        let (shape, address) = (output.shape().clone(), address(&output));
        let origin = Origin { call: Arc::clone(call), index, token: token.clone(), shape, address };
        results(|all| all.insert(output.id(), origin));
        outputs.push(output);
    }
    call.state().outputs = outputs.iter().map(Tensor::detach).collect();
    Ok(outputs)
}

/// The id of a result; takes it out of the list of those alive when the result is dropped.
struct Key(Arc<Mutex<Option<TensorId>>>);

impl Drop for Key {
    fn drop(&mut self) {
        let id = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped after the lock is free: it may be the last that holds other results.
        let _origin = id.and_then(|id| results(|all| all.remove(id)));
    }
}

/// One use of an operation, without its types.
pub(crate) trait Call: Send + Sync {
    fn name(&self) -> &'static str;
    fn state(&self) -> MutexGuard<'_, State>;
    /// Computes the gradients of the operands from those of the results.
    fn run_backward(&self) -> Result<()>;
}

/// What changes while a graph is walked backwards.
pub(crate) struct State {
    /// The results, cut from the graph: they share its memory but keep nothing of it alive.
    outputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
    pub(crate) input_grads: Vec<Option<Tensor>>,
    pub(super) targets: Arc<[Target]>,
}

impl State {
    pub(crate) fn new(results: usize, inputs: usize) -> Self {
        Self {
            outputs: vec![],
            grads: vec![None; results],
            input_grads: vec![None; inputs],
            targets: Arc::new([]),
        }
    }

    /// The results, and their gradients, which leave the state.
    pub(crate) fn take(&mut self) -> (Vec<Tensor>, Vec<Option<Tensor>>) {
        let empty = vec![None; self.grads.len()];
        (self.outputs.clone(), std::mem::replace(&mut self.grads, empty))
    }

    /// Adds to the gradient of a result.
    pub(super) fn lay_aside(&mut self, index: usize, grad: &Tensor) -> Result<()> {
        let sum = match &self.grads[index] {
            Some(other) => other.add(grad)?,
            None => grad.clone(),
        };
        self.grads[index] = Some(sum);
        Ok(())
    }
}

/// A scalar that stands for all results.
struct Token {
    call: Arc<dyn Call>,
    /// The operands that this token has edges to; `None` for another operation's token.
    operands: Vec<Option<usize>>,
    /// Whether it stands on another token, its last argument.
    above: bool,
    /// Whether the results stand on it: then it is reached first, and computes the gradients.
    last: bool,
}

impl Token {
    fn value(&self) -> (CpuStorage, Shape) {
        // A float: candle passes no gradient through integers.
        (CpuStorage::F32(vec![0.]), Shape::from(()))
    }

    fn cuda_value(&self, beside: &CudaStorage) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let shape = Shape::from(());
        // SAFETY: it is a number, and nobody reads it.
        let storage = unsafe { beside.device().alloc_uninit(&shape, DType::F32)? };
        Ok((storage, shape))
    }

    /// The gradients of the arguments, in their order.
    fn gradients(&self, token_grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        if self.last {
            self.call.run_backward()?;
            hand_on(self.call.as_ref())?;
        }
        let mut state = self.call.state();
        let mut all = [None, None, None];
        for (slot, operand) in all.iter_mut().zip(&self.operands) {
            *slot = match operand {
                Some(i) => state.input_grads[*i].take(),
                None => Some(token_grad.clone()),
            };
        }
        if self.above {
            all[self.operands.len()] = Some(token_grad.clone());
        }
        Ok(all)
    }
}

fn take_payload(payload: &Mutex<Option<(Storage, Shape)>>, name: &str) -> Result<(Storage, Shape)> {
    match payload.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(value) => Ok(value),
        None => bail!("{name}: internal error: a result was taken twice"),
    }
}

impl CustomOp1 for Token {
    fn name(&self) -> &'static str {
        self.call.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.value())
    }
    fn cuda_fwd(&self, s: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda_value(s)
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [a, _, _] = self.gradients(grad)?;
        Ok(a)
    }
}

impl CustomOp2 for Token {
    fn name(&self) -> &'static str {
        self.call.name()
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.value())
    }
    fn cuda_fwd(
        &self,
        s: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda_value(s)
    }
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b, _] = self.gradients(grad)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Token {
    fn name(&self) -> &'static str {
        self.call.name()
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.value())
    }
    fn cuda_fwd(
        &self,
        s: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda_value(s)
    }
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients(grad)?;
        Ok((a, b, c))
    }
}

/// One of several results.
struct ResultNode {
    call: Arc<dyn Call>,
    index: usize,
    payload: Mutex<Option<(Storage, Shape)>>,
    #[allow(dead_code, reason = "acts when it is dropped")]
    key: Key,
}

impl CustomOp1 for ResultNode {
    fn name(&self) -> &'static str {
        self.call.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match take_payload(&self.payload, self.call.name())? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("{}: internal error: a result is not on the CPU", self.call.name()),
        }
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match take_payload(&self.payload, self.call.name())? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("{}: internal error: a result is not on the device", self.call.name()),
        }
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.call.state().lay_aside(self.index, grad)?;
        // Any scalar will do: it only makes candle visit the token.
        Ok(Some(token.detach()))
    }
}
