//! Tensors that kernels write, and numbers that they are given.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, DType, Device, DeviceLocation, InplaceOp1, Layout, Result, Shape,
    Storage, Tensor, bail,
};

/// A tensor every place of which a kernel is going to write. Under test it holds NaN, so that a place that is not written shows.
pub(crate) fn empty(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let float = matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64);
    if cfg!(test) && float {
        return Tensor::full(f32::NAN, shape, device)?.to_dtype(dtype);
    }
    // SAFETY: the kernels write every place before it is read; the tests run them on NaN.
    let storage = unsafe {
        match device {
            Device::Cpu => {
                Storage::Cpu(candle_core::cpu_backend::CpuDevice.alloc_uninit(&shape, dtype)?)
            }
            Device::Cuda(device) => Storage::Cuda(device.alloc_uninit(&shape, dtype)?),
            other => bail!("internal error: no memory for kernels on {other:?}"),
        }
    };
    Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}

/// [`empty`] of another tensor's shape, type and device.
pub(crate) fn empty_like(t: &Tensor) -> Result<Tensor> {
    empty(t.shape(), t.dtype(), t.device())
}

/// A tensor of zeros of its own, which a kernel may write.
pub(crate) fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::zeros(shape, dtype, device)
}

/// Past so many lists, the list of those on devices begins anew.
const KEPT: usize = 256;

type Key = (DeviceLocation, Vec<u32>);
static NUMBERS: Mutex<Option<HashMap<Key, Tensor>>> = Mutex::new(None);

/// A list of numbers such as lengths, as u32 on the device. A list that was sent before is there already.
pub(crate) fn numbers(values: &[usize], device: &Device) -> Result<Tensor> {
    let values: Vec<u32> = values.iter().map(|&v| v as u32).collect();
    let key = (device.location(), values);
    let mut kept = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    if let Some(t) = kept.get(&key)
        && t.device().same_device(device)
    {
        return Ok(t.clone());
    }
    let tensor = Tensor::new(key.1.as_slice(), device)?;
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(key, tensor.clone());
    Ok(tensor)
}

/// Takes the storage out of a tensor that nothing else looks at.
pub(crate) fn into_storage(t: &Tensor) -> Result<(Storage, Shape)> {
    let t = if t.is_contiguous() && t.layout().start_offset() == 0 {
        t.clone()
    } else {
        t.force_contiguous()?
    };
    let taken = Taker(Mutex::new(None));
    t.inplace_op1(&taken)?;
    match taken.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(storage) => Ok((storage, t.shape().clone())),
        None => bail!("internal error: a result without storage"),
    }
}

struct Taker(Mutex<Option<Storage>>);

impl Taker {
    fn keep(&self, storage: Storage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(storage);
    }
}

impl InplaceOp1 for Taker {
    fn name(&self) -> &'static str {
        "mnemic-take"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        self.keep(Storage::Cpu(std::mem::replace(storage, CpuStorage::U8(vec![]))));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        let device = storage.device.clone();
        // SAFETY: one byte that nobody reads stands in for what is taken.
        let nothing = unsafe { device.alloc_uninit(&Shape::from(1), DType::U8)? };
        self.keep(Storage::Cuda(std::mem::replace(storage, nothing)));
        Ok(())
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout) -> Result<()> {
        bail!("internal error: no CUDA in this build")
    }
}
