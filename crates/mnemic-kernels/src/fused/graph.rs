//! How fused operations stand in candle's graph; see the page of [`super`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape,
    Storage, Tensor, TensorId, bail,
};

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
pub(super) struct Origin {
    call: Arc<dyn Call>,
    index: usize,
    token: Tensor,
}

/// The results that are alive, by their id.
static RESULTS: Mutex<Option<HashMap<TensorId, Origin>>> = Mutex::new(None);

pub(super) fn results<R>(f: impl FnOnce(&mut HashMap<TensorId, Origin>) -> R) -> R {
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

/// Makes the nodes of a call from the values of its results; see the module's page.
pub(crate) fn tie(
    call: &Arc<dyn Call>,
    inputs: &[&Tensor],
    tracked: &[usize],
    values: Vec<(Storage, Shape)>,
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
    for (index, value) in values.into_iter().enumerate() {
        let key = Arc::new(Mutex::new(None));
        let payload = Mutex::new(Some(value));
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
    pub(super) static VARIABLES: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
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
}

impl State {
    pub(crate) fn new(results: usize, inputs: usize) -> Self {
        Self { outputs: vec![], grads: vec![None; results], input_grads: vec![None; inputs] }
    }

    /// The results, and their gradients, which leave the state.
    pub(crate) fn take(&mut self) -> (Vec<Tensor>, Vec<Option<Tensor>>) {
        let empty = vec![None; self.grads.len()];
        (self.outputs.clone(), std::mem::replace(&mut self.grads, empty))
    }

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

    fn cuda_value(&self, beside: &CudaStorage) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let shape = Shape::from(());
        // SAFETY: it is a number, and nobody reads it.
        let storage = unsafe { beside.device().alloc_uninit(&shape, DType::F32)? };
        Ok((storage, shape))
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
