//! The backward pass from a loss: candle's, or where all operations are fused a walk of our own.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, TensorId, bail};

use super::graph::{Call, Target, View, edge};

thread_local! {
    /// Gradients of variables while [`backward`] runs.
    pub(super) static VARIABLES: RefCell<Option<HashMap<TensorId, Tensor>>> =
        const { RefCell::new(None) };
}

/// `loss.backward()`, without the tensor of zeros and the addition that candle makes for every variable that a fused operation reads,
/// and, where nothing but fused operations and reshaped or permuted results stand between the loss and the variables, without
/// candle's walk, its recursion and its zeros and additions altogether. The gradients are the same but for the order of sums.
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
    match edge(loss).1 {
        Target::Result(call, index, View::Whole) => match order(&call) {
            Some(calls) => {
                call.state().lay_aside(index, &loss.ones_like()?)?;
                collect(|| walk(&calls))
            }
            None => collect(|| loss.backward()),
        },
        _ => collect(|| loss.backward()),
    }
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
        (token, Target::Result(call, index, View::Whole)) => {
            call.state().lay_aside(index, gradient)?;
            match order(&call) {
                Some(calls) => collect(|| walk(&calls)),
                None => collect(|| token.backward()),
            }
        }
        _ => backward(&(output * gradient)?.sum_all()?),
    }
}

/// Whether nothing but fused operations and reshaped or permuted results stand between `output` and the variables, so that
/// [`backward`] walks without candle.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use mnemic_kernels::{activation::relu, only_fused};
/// let x = Var::new(&[1f32, -2.], &Device::Cpu)?;
/// assert!(only_fused(&relu(&x)?) && !only_fused(&relu(&x.affine(2., 0.)?)?));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn only_fused(output: &Tensor) -> bool {
    matches!(edge(output).1, Target::Result(call, ..) if order(&call).is_some())
}

/// Runs a backward pass and puts the gradients of variables that were kept meanwhile into its store.
fn collect(pass: impl FnOnce() -> Result<GradStore>) -> Result<GradStore> {
    struct Restore(Option<HashMap<TensorId, Tensor>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            VARIABLES.set(self.0.take());
        }
    }
    let _restore = Restore(VARIABLES.replace(Some(HashMap::new())));
    let mut store = pass()?;
    for (id, grad) in VARIABLES.take().unwrap_or_default() {
        let grad = match store.get_id(id) {
            Some(other) => other.add(&grad)?,
            None => grad,
        };
        store.insert_id(id, grad);
    }
    Ok(store)
}

/// The calls that `last` stands on, each before those that it stands on; `None` where one reads the result of another operation.
fn order(last: &Arc<dyn Call>) -> Option<Vec<Arc<dyn Call>>> {
    let key = |call: &Arc<dyn Call>| Arc::as_ptr(call).addr();
    let (mut seen, mut sorted) = (HashSet::from([key(last)]), vec![]);
    // Not by recursion: a graph may be as deep as a sequence is long.
    let mut open = vec![(Arc::clone(last), 0)];
    while let Some((call, next)) = open.pop() {
        let targets = Arc::clone(&call.state().targets);
        let Some(target) = targets.get(next) else {
            sorted.push(call);
            continue;
        };
        open.push((call, next + 1));
        match target {
            Target::Result(below, ..) if seen.insert(key(below)) => {
                open.push((Arc::clone(below), 0));
            }
            Target::Result(..) | Target::Variable(_) | Target::None => {}
            Target::Other => return None,
        }
    }
    sorted.reverse();
    Some(sorted)
}

/// Computes and hands on the gradients of all calls, in this order.
fn walk(calls: &[Arc<dyn Call>]) -> Result<GradStore> {
    for call in calls {
        call.run_backward()?;
        hand_on(call.as_ref())?;
    }
    // candle alone can make a store.
    let nothing = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    let mut store = nothing.backward()?;
    store.remove(&nothing);
    Ok(store)
}

/// Hands the gradients of a call's operands to where they go; what goes to candle stays with the call.
pub(super) fn hand_on(call: &dyn Call) -> Result<()> {
    let targets = Arc::clone(&call.state().targets);
    for (i, target) in targets.iter().enumerate() {
        let Some(grad) = call.state().input_grads[i].take() else { continue };
        let kept = match target {
            Target::Result(other, index, view) => {
                other.state().lay_aside(*index, &view.undo(&grad)?)?;
                None
            }
            Target::Variable(id) => keep_variable(*id, grad)?,
            Target::Other => Some(grad),
            Target::None => None,
        };
        call.state().input_grads[i] = kept;
    }
    Ok(())
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
