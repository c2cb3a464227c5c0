//! What an optimiser is to the machinery: constants, and the change of one number.

use candle_core::{CpuStorage, DType, Result, Tensor, bail};

use super::{Gradient, cpu};
use crate::real::Real;

/// f32 or f64 with what the update rules need beyond [`Real`].
pub(super) trait Float: Real {
    /// Widens.
    fn wide(self) -> f64;
    /// The square root, correctly rounded.
    fn root(self) -> Self;
    /// The numbers of a storage of this type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;

    /// The larger; a NaN on either side gives NaN, as in PyTorch.
    #[inline(always)]
    #[allow(clippy::eq_op, reason = "true of a NaN alone")]
    fn greater(self, other: Self) -> Self {
        if (self > other) | (self != self) { self } else { other }
    }

    /// Cut to `low..=high`; a NaN stays.
    #[inline(always)]
    fn cut(self, low: Self, high: Self) -> Self {
        let x = if self > high { high } else { self };
        if x < low { low } else { x }
    }
}

macro_rules! float {
    ($type:ty, $variant:ident) => {
        impl Float for $type {
            #[inline(always)]
            fn wide(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn root(self) -> Self {
                self.sqrt()
            }
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(v) = storage { Some(v) } else { None }
            }
        }
    };
}
float!(f32, F32);
float!(f64, F64);

/// An update of a parameter with `N` state tensors, element by element.
///
/// The `K` constants are computed in f64 and rounded once to the type of the parameter.
pub(super) trait Rule<const K: usize, const N: usize>: Sync {
    const NAME: &'static str;
    /// The CUDA kernel's name.
    #[cfg_attr(not(cuda_path), allow(dead_code, reason = "there are no kernels in this build"))]
    const KERNEL: &'static str;
    /// PyTorch's names of the states.
    const STATES: [&'static str; N];

    fn constants(&self) -> [f64; K];

    /// The new parameter and states from the old ones and the gradient `g`. Must be `#[inline(always)]` and free of
    /// branches, so that it vectorises.
    fn update<T: Float>(&self, c: [T; K], p: T, g: T, s: [T; N]) -> (T, [T; N]);

    /// The same in candle operations: parameter first, then the states.
    fn plain(&self, p: &Tensor, g: &Tensor, s: [&Tensor; N]) -> Result<Vec<Tensor>>;
}

/// Changes `param` and `states` in place.
pub(super) fn apply<const K: usize, const N: usize, R: Rule<K, N>>(
    rule: &R,
    param: &Tensor,
    grad: Gradient<'_>,
    states: [&Tensor; N],
) -> Result<()> {
    let mut targets = vec![("param", param)];
    targets.extend(R::STATES.into_iter().zip(states));
    check(R::NAME, &targets, grad.tensor)?;
    if param.elem_count() == 0 {
        return Ok(());
    }
    #[cfg(cuda_path)]
    if super::cuda::can(param) {
        return super::cuda::step(R::KERNEL, &rule.constants(), param, grad, &states);
    }
    if !param.device().is_cpu() {
        return apply_plain(rule, param, grad, states);
    }
    // A gradient in the parameter's or a state's own memory could not be read while that is written.
    let own = cpu::address(grad.tensor);
    let shared = targets.iter().any(|(_, t)| cpu::address(t) == own);
    let tensor = if shared { grad.tensor.force_contiguous()? } else { grad.tensor.contiguous()? };
    let grad = Gradient { tensor: &tensor, ..grad };
    match param.dtype() {
        DType::F64 => cpu::update::<f64, K, N, R>(rule, param, grad, states),
        _ => cpu::update::<f32, K, N, R>(rule, param, grad, states),
    }
}

/// Computes anew by the plain twin, then overwrites: for devices without a fused path.
pub(super) fn apply_plain<const K: usize, const N: usize, R: Rule<K, N>>(
    rule: &R,
    param: &Tensor,
    grad: Gradient<'_>,
    states: [&Tensor; N],
) -> Result<()> {
    let scaled = (grad.tensor * grad.scale)?;
    let new = rule.plain(&param.detach(), &scaled, states)?;
    for (old, new) in std::iter::once(param).chain(states).zip(new) {
        old.detach().flatten_all()?.slice_set(&new.flatten_all()?.contiguous()?, 0, 0)?;
    }
    Ok(())
}

fn check(name: &str, targets: &[(&str, &Tensor)], grad: &Tensor) -> Result<()> {
    let Some((_, param)) = targets.first() else { bail!("{name}: internal error: no parameter") };
    let (dims, dtype, at) = (param.dims(), param.dtype(), param.device().location());
    if !matches!(dtype, DType::F32 | DType::F64) {
        bail!("{name}: expected a parameter of f32 or f64, got {dtype:?}");
    }
    for (what, t) in targets.iter().copied().chain([("grad", grad)]) {
        if t.dims() != dims || t.dtype() != dtype || t.device().location() != at {
            bail!(
                "{name}: expected {what} of shape {dims:?}, {dtype:?} on {at:?} like the parameter, \
                 got {:?}, {:?} on {:?}",
                t.dims(),
                t.dtype(),
                t.device().location()
            );
        }
    }
    for (i, (what, t)) in targets.iter().enumerate() {
        if !t.is_contiguous() {
            bail!("{name}: {what} must be contiguous to be changed in place, got {:?}", t.layout());
        }
        for (other, u) in &targets[..i] {
            if cpu::address(t) == cpu::address(u) {
                bail!("{name}: {what} and {other} must not share their memory");
            }
        }
    }
    Ok(())
}
