//! The backward pass from a loss: candle's, or where all operations are fused a walk of our own.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, TensorId, bail};

use super::graph::{Call, Target, View, edge};
use super::with_views;
use crate::linear::weight_gradient;
use crate::real::Real;

thread_local! {
    /// Gradients of variables while [`backward`] runs.
    pub(super) static VARIABLES: RefCell<Option<HashMap<TensorId, Kept>>> = const { RefCell::new(None) };
}

/// The gradient of a variable so far.
#[derive(Default)]
pub(super) struct Kept {
    sum: Option<Tensor>,
    /// Products `dyᵀ x` that are still to be made and added: `dy (n, o)`, `x (n, i)`.
    products: Vec<(Tensor, Tensor)>,
}

/// Rows up to which a product is put off. A step of a machine that reads its own results has few, and there are many steps: one product of
/// all is faster than many small ones, each as large as the weights, and their sum.
const FEW_ROWS: usize = 64;

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
    struct Restore(Option<HashMap<TensorId, Kept>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            VARIABLES.set(self.0.take());
        }
    }
    let _restore = Restore(VARIABLES.replace(Some(HashMap::new())));
    let mut store = pass()?;
    for (id, kept) in VARIABLES.take().unwrap_or_default() {
        let Some(grad) = kept.total()? else { continue };
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
        let kept = all.entry(id).or_default();
        kept.sum = Some(match kept.sum.take() {
            Some(sum) => sum.add(&grad)?,
            None => grad,
        });
        Ok(None)
    })
}

/// Puts off the product `dyᵀ x` where it is the gradient of a variable, [`backward`] runs and there are few rows; whether it did.
pub(super) fn keep_product(target: &Target, dy: &Tensor, x: &Tensor) -> Result<bool> {
    let Target::Variable(id) = target else { return Ok(false) };
    let rows = |t: &Tensor| t.flatten_to(t.rank().saturating_sub(2));
    if dy.rank() < 2 || dy.elem_count() == 0 || x.elem_count() == 0 {
        return Ok(false);
    }
    let (dy, x) = (rows(dy)?.contiguous()?, rows(x)?);
    if dy.dim(0)? > FEW_ROWS {
        return Ok(false);
    }
    Ok(VARIABLES.with_borrow_mut(|all| {
        let Some(all) = all else { return false };
        all.entry(*id).or_default().products.push((dy, x));
        true
    }))
}

impl Kept {
    /// Everything added up.
    fn total(self) -> Result<Option<Tensor>> {
        if self.products.is_empty() {
            return Ok(self.sum);
        }
        let (dy, x): (Vec<Tensor>, Vec<Tensor>) = self.products.into_iter().unzip();
        let (dy, x) = (Tensor::cat(&dy, 0)?, Tensor::cat(&x, 0)?);
        let product = match dy.dtype() {
            DType::F64 => made::<f64>(&dy, &x)?,
            _ => made::<f32>(&dy, &x)?,
        };
        match self.sum {
            Some(sum) => Ok(Some(sum.add(&product)?)),
            None => Ok(Some(product)),
        }
    }
}

/// `dyᵀ x`, `(o, i)`.
fn made<T: Real>(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let ((n, o), i) = (dy.dims2()?, x.dim(1)?);
    let both = [dy.clone(), x.clone()];
    let product = with_views::<T, _>(&both, |views| {
        weight_gradient(views[1].data, views[0].data, (o, i, n))
    })?;
    Tensor::from_vec(product, (o, i), dy.device())
}
