//! CUDA: opening a device, and what the CUDA paths of the operations have in common.
//!
//! With the feature `cuda`, every operation of this crate takes tensors on a CUDA device: through a kernel of its own where it has
//! one, else through its plain twin. Kernels are compiled by `nvcc` when the crate is built (`NVCC`, `CUDA_HOME` or the `PATH`), for
//! compute capability 8.0 and later. They add up in fixed orders, never atomically: repeated runs give the same bits.
//!
//! The feature `cuda-emulation` compiles the same kernels with a C++ compiler and runs them on the CPU, for tests where there is no
//! GPU. It is slow and of no other use.

#[cfg(cuda_path)]
mod columns;
#[cfg(cuda_path)]
mod launch;
#[cfg(cuda_path)]
mod memory;
#[cfg(cuda_path)]
mod op;
#[cfg(cuda_path)]
mod parts;
#[cfg(cuda_path)]
#[cfg(test)]
pub(crate) mod tests;

use candle_core::{Device, Result, bail};

#[cfg(cuda_path)]
#[allow(unused_imports, reason = "for the operations")]
pub(crate) use columns::{Plan, Rows, THREADS, column_sums, elementwise, sum_parts};
#[cfg(cuda_path)]
pub(crate) use launch::{Launch, TABLE, suffix};
#[cfg(cuda_path)]
#[allow(unused_imports, reason = "for the operations")]
pub(crate) use memory::{empty, empty_like, numbers, zeros};
#[cfg(cuda_path)]
#[allow(unused_imports, reason = "for the operations")]
pub(crate) use op::{DeviceOp, Pass, apply, apply1, takes};
#[cfg(cuda_path)]
pub(crate) use parts::{Way, aligned, blocks, copy, sum_parts_into};

/// Opens CUDA device `ordinal` with one stream of its own, which all threads share, and without the events with which several
/// streams would be kept in step: what this crate and candle do on the device happens in the order of the calls.
///
/// # Errors
/// When the crate was built without the feature `cuda`, when CUDA's libraries or the device are missing.
pub fn device(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    {
        if !libraries_present() {
            bail!(
                "CUDA device {ordinal}: libcuda, libcublas or libcurand is missing on this machine"
            );
        }
        let count = candle_core::cuda_backend::cudarc::driver::CudaContext::device_count();
        match count {
            Ok(n) if ordinal >= n.max(0) as usize => {
                bail!("CUDA device {ordinal}: this machine has {n}, counted from 0")
            }
            Ok(_) => {}
            Err(e) => bail!("CUDA device {ordinal}: the driver says {e:?}"),
        }
        let device = Device::new_cuda_with_stream(ordinal)?;
        if let Device::Cuda(cuda) = &device {
            // SAFETY: one stream a device orders everything that is done on it.
            unsafe { cuda.disable_event_tracking() };
            keep_memory(cuda)?;
        }
        Ok(device)
    }
    #[cfg(not(feature = "cuda"))]
    bail!("CUDA device {ordinal}: this program was built without the feature `cuda`")
}

/// Lets the driver keep freed memory for the next allocation. Otherwise it goes back whenever the host waits for the device, and
/// a training step, which asks for the same tensors again, would map its memory anew each time.
#[cfg(feature = "cuda")]
fn keep_memory(cuda: &candle_core::CudaDevice) -> Result<()> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let context = cuda.cuda_stream().context().clone();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's own, which lives as long as the context; the attribute's type is a u64.
    let set = unsafe {
        result::device::get_default_mem_pool(context.cu_device()).and_then(|pool| {
            result::mem_pool::set_attribute(pool, attribute, std::ptr::from_mut(&mut all).cast())
        })
    };
    set.map_err(candle_core::Error::wrap)
}

/// The name of a CUDA device's card; `None` for another device.
pub fn card(device: &Device) -> Option<String> {
    if device.is_cpu() {
        return None;
    }
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        return cuda.cuda_stream().context().name().ok();
    }
    None
}

/// Whether the libraries that are opened at run time are there; where they are linked, the program would not have started.
#[cfg(feature = "cuda")]
fn libraries_present() -> bool {
    #[cfg(feature = "dynamic-loading")]
    {
        use candle_core::cuda_backend::cudarc as c;
        // SAFETY: they only try to open libraries.
        unsafe {
            c::driver::sys::is_culib_present()
                && c::cublas::sys::is_culib_present()
                && c::curand::sys::is_culib_present()
        }
    }
    #[cfg(not(feature = "dynamic-loading"))]
    true
}

#[cfg(cuda_path)]
thread_local! {
    static EMULATING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether CPU tensors go to the emulated kernels on this thread.
pub(crate) fn emulating() -> bool {
    #[cfg(cuda_path)]
    return EMULATING.get();
    #[cfg(not(cuda_path))]
    false
}

/// Runs `f` with the CUDA paths on CPU tensors.
#[cfg(all(test, cuda_path, feature = "cuda-emulation"))]
pub(crate) fn emulated<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            EMULATING.set(self.0);
        }
    }
    let _restore = Restore(EMULATING.replace(true));
    f()
}
