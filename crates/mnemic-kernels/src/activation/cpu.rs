//! The fused CPU path: one vectorised pass forward, one backward.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use crate::real::{Real, for_chunks, slice, to_vec};

pub(super) fn takes(xs: &Tensor) -> bool {
    xs.device().is_cpu() && matches!(xs.dtype(), DType::F32 | DType::F64) && xs.elem_count() > 0
}

pub(super) struct TanhOp;

fn forward<T: Real>(xs: &[T]) -> Vec<T> {
    let mut ys = xs.to_vec();
    for_chunks(&mut ys, 1, |_, ys| ys.iter_mut().for_each(|y| *y = y.tanh_()));
    ys
}

fn backward<T: Real>(ys: &[T], mut grad: Vec<T>) -> Vec<T> {
    for_chunks(&mut grad, 1, |start, grad| {
        let ys = &ys[start..start + grad.len()];
        grad.iter_mut().zip(ys).for_each(|(g, y)| *g *= T::ONE - *y * *y);
    });
    grad
}

impl CustomOp1 for TanhOp {
    fn name(&self) -> &'static str {
        "mnemic-tanh"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ys = match storage {
            CpuStorage::F32(_) => f32::storage(forward(slice("tanh", storage, layout)?)),
            CpuStorage::F64(_) => f64::storage(forward(slice("tanh", storage, layout)?)),
            _ => bail!("tanh: expected f32 or f64"),
        };
        Ok((ys, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (shape, device) = (ys.shape(), ys.device());
        Ok(Some(match ys.dtype() {
            DType::F64 => {
                Tensor::from_vec(backward::<f64>(&to_vec(ys)?, to_vec(grad)?), shape, device)?
            }
            _ => Tensor::from_vec(backward::<f32>(&to_vec(ys)?, to_vec(grad)?), shape, device)?,
        }))
    }
}
