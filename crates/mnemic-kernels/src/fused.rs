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
//! does the same for variables.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor,
    TensorId, bail,
};

use crate::real::{Real, slice};

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
    inputs.iter().all(|t| t.device().is_cpu() && float(t.dtype()) && t.dtype() == inputs[0].dtype())
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
    let state = Mutex::new(State {
        outputs: vec![],
        grads: vec![None; results.len()],
        input_grads: vec![None; inputs.len()],
    });
    let call: Arc<dyn Call> = Arc::new(TypedCall::<O, T> { op, values, saved, wanted, state });
    tie(&call, inputs, &tracked, results)
}

/// Where the gradient of an operand goes.
#[derive(Clone)]
enum Target {
    /// To the operation that it is a result of.
    Result(Arc<dyn Call>, usize),
    /// Into the store of [`backward`] where that is running, else to candle.
    Variable(TensorId),
    /// To candle.
    Other,
}

/// What a fused result stands on.
struct Origin {
    call: Arc<dyn Call>,
    index: usize,
    token: Tensor,
}

/// The results that are alive, by their id.
static RESULTS: Mutex<Option<HashMap<TensorId, Origin>>> = Mutex::new(None);

fn results<R>(f: impl FnOnce(&mut HashMap<TensorId, Origin>) -> R) -> R {
    f(RESULTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The tensor to draw the edge to, and where the gradient goes.
fn edge(input: &Tensor) -> (Tensor, Target) {
    if input.is_variable() {
        return (input.clone(), Target::Variable(input.id()));
    }
    let found = results(|all| {
        all.get(&input.id())
            .map(|o| (o.token.clone(), Target::Result(Arc::clone(&o.call), o.index)))
    });
    found.unwrap_or_else(|| (input.clone(), Target::Other))
}

/// Makes the nodes; see the module's page.
fn tie<T: Real>(
    call: &Arc<dyn Call>,
    inputs: &[&Tensor],
    tracked: &[usize],
    values: Vec<Array<T>>,
) -> Result<Vec<Tensor>> {
    // One edge to each token, one for every other operand.
    let mut edges: Vec<(Tensor, Option<usize>)> = Vec::with_capacity(tracked.len());
    let mut targets = vec![Target::Other; inputs.len()];
    for &i in tracked {
        let (tensor, target) = edge(inputs[i]);
        let fused = matches!(target, Target::Result(..));
        targets[i] = target;
        if !fused || edges.iter().all(|(other, _)| other.id() != tensor.id()) {
            edges.push((tensor, (!fused).then_some(i)));
        }
    }
    let mut targets = Some(targets);
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
            targets: if rest.is_empty() { targets.take() } else { None },
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
    for (index, (v, dims)) in values.into_iter().enumerate() {
        let key = Arc::new(Mutex::new(None));
        let payload = Mutex::new(Some((T::storage(v), Shape::from(dims))));
        let node =
            ResultNode { call: Arc::clone(call), index, payload, key: Key(Arc::clone(&key)) };
        let output = token.apply_op1(node)?;
        *key.lock().unwrap_or_else(PoisonError::into_inner) = Some(output.id());
        let origin = Origin { call: Arc::clone(call), index, token: token.clone() };
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
        let _origin = id.and_then(|id| results(|all| all.remove(&id)));
    }
}

thread_local! {
    /// Gradients of variables while [`backward`] runs.
    static VARIABLES: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// `loss.backward()`, without the tensor of zeros and the addition that candle makes for every variable that a fused operation reads.
/// The gradients are the same.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// let x = Var::new(&[1f32, 2.], &Device::Cpu)?;
/// let loss = mnemic_kernels::activation::relu(&x)?.sum_all()?;
/// assert_eq!(mnemic_kernels::backward(&loss)?.get(&x).unwrap().to_vec1::<f32>()?, [1., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Those of the operations.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    struct Restore(Option<HashMap<TensorId, Tensor>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            VARIABLES.set(self.0.take());
        }
    }
    let _restore = Restore(VARIABLES.replace(Some(HashMap::new())));
    let mut store = loss.backward()?;
    for (id, grad) in VARIABLES.take().unwrap_or_default() {
        let grad = match store.get_id(id) {
            Some(other) => other.add(&grad)?,
            None => grad,
        };
        store.insert_id(id, grad);
    }
    Ok(store)
}

/// [`backward`] from a given gradient of `output`, a tensor of its shape, as PyTorch's `output.backward(gradient)`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// let x = Var::new(&[1f32, -2.], &Device::Cpu)?;
/// let y = mnemic_kernels::activation::relu(&x)?;
/// let grads = mnemic_kernels::backward_from(&y, &Tensor::new(&[3f32, 4.], &Device::Cpu)?)?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [3., 0.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When shapes or types differ, and those of the operations.
pub fn backward_from(output: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    if output.dims() != gradient.dims() || output.dtype() != gradient.dtype() {
        let (shape, dtype) = (gradient.dims(), gradient.dtype());
        bail!(
            "backward_from: expected a gradient {:?} of {:?}, got {shape:?} of {dtype:?}",
            output.dims(),
            output.dtype()
        );
    }
    match edge(output) {
        (token, Target::Result(call, index)) => {
            call.state().lay_aside(index, gradient)?;
            backward(&token)
        }
        _ => backward(&(output * gradient)?.sum_all()?),
    }
}

/// Adds to the gradients of variables, if [`backward`] runs; else gives the gradient back.
fn keep_variable(id: TensorId, grad: Tensor) -> Result<Option<Tensor>> {
    VARIABLES.with_borrow_mut(|all| {
        let Some(all) = all else { return Ok(Some(grad)) };
        match all.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(grad);
            }
            Entry::Occupied(mut entry) => {
                let sum = entry.get().add(&grad)?;
                entry.insert(sum);
            }
        }
        Ok(None)
    })
}

/// One use of an operation, without its types.
trait Call: Send + Sync {
    fn name(&self) -> &'static str;
    fn state(&self) -> MutexGuard<'_, State>;
    /// Computes the gradients of the operands from those of the results.
    fn run_backward(&self) -> Result<()>;
}

/// What changes while a graph is walked backwards.
struct State {
    /// The results, cut from the graph: they share its memory but keep nothing of it alive.
    outputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
    input_grads: Vec<Option<Tensor>>,
}

impl State {
    /// Adds to the gradient of a result.
    fn lay_aside(&mut self, index: usize, grad: &Tensor) -> Result<()> {
        let sum = match &self.grads[index] {
            Some(other) => other.add(grad)?,
            None => grad.clone(),
        };
        self.grads[index] = Some(sum);
        Ok(())
    }
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
        let (outputs, grads) = {
            let mut state = self.state();
            let empty = vec![None; state.grads.len()];
            (state.outputs.clone(), std::mem::replace(&mut state.grads, empty))
        };
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
                        wanted: &self.wanted,
                    })
                })
            })
        })????;
        let mut tensors = Vec::with_capacity(results.len());
        for ((result, value), &wanted) in results.into_iter().zip(&self.values).zip(&self.wanted) {
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

/// A scalar that stands for all results.
struct Token {
    call: Arc<dyn Call>,
    /// The operands that this token has edges to; `None` for another operation's token.
    operands: Vec<Option<usize>>,
    /// Whether it stands on another token, its last argument.
    above: bool,
    /// The last token, on which the results stand, knows where the operands' gradients go.
    targets: Option<Vec<Target>>,
}

impl Token {
    fn value(&self) -> (CpuStorage, Shape) {
        // A float: candle passes no gradient through integers.
        (CpuStorage::F32(vec![0.]), Shape::from(()))
    }

    /// The gradients of the arguments, in their order.
    fn gradients(&self, token_grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        if let Some(targets) = &self.targets {
            self.call.run_backward()?;
            for (i, target) in targets.iter().enumerate() {
                let Some(grad) = self.call.state().input_grads[i].take() else { continue };
                let kept = match target {
                    Target::Result(call, index) => {
                        call.state().lay_aside(*index, &grad)?;
                        None
                    }
                    Target::Variable(id) => keep_variable(*id, grad)?,
                    Target::Other => Some(grad),
                };
                self.call.state().input_grads[i] = kept;
            }
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

fn take_payload(
    payload: &Mutex<Option<(CpuStorage, Shape)>>,
    name: &str,
) -> Result<(CpuStorage, Shape)> {
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
    payload: Mutex<Option<(CpuStorage, Shape)>>,
    #[allow(dead_code, reason = "acts when it is dropped")]
    key: Key,
}

impl CustomOp1 for ResultNode {
    fn name(&self) -> &'static str {
        self.call.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        take_payload(&self.payload, self.call.name())
    }
    fn bwd(&self, token: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.call.state().lay_aside(self.index, grad)?;
        Ok(Some(token.zeros_like()?))
    }
}

#[cfg(test)]
mod tests;
