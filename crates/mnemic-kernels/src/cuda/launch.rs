//! Launches of kernels, on a CUDA device or, emulated, on the CPU.

use candle_core::{DType, Device, Result, Storage, Tensor, bail};

/// One launch. Arguments are given in the order of the kernel's parameters.
pub(crate) struct Launch<'a> {
    module: &'static str,
    name: String,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    cooperative: bool,
    args: Vec<Arg<'a>>,
}

enum Arg<'a> {
    Tensor(&'a Tensor),
    Null,
    Table(Vec<Option<&'a Tensor>>),
    Numbers(Box<Table>),
    I32(i32),
    U64(u64),
    F32(f32),
}

/// How many addresses or numbers a table holds.
pub(crate) const TABLE: usize = 32;

/// A table as kernels take it, by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table([u64; TABLE]);

/// How the kernels' names tell element types apart.
pub(crate) fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => bail!("internal error: no CUDA kernels for {other:?}"),
    }
}

impl<'a> Launch<'a> {
    /// Kernel `name` of the file `module`.cu.
    pub(crate) fn new(module: &'static str, name: impl Into<String>) -> Self {
        Launch {
            module,
            name: name.into(),
            grid: [1; 3],
            block: [1; 3],
            shared: 0,
            cooperative: false,
            args: Vec::with_capacity(12),
        }
    }

    pub(crate) fn grid(mut self, x: usize, y: usize, z: usize) -> Self {
        self.grid = [x as u32, y as u32, z as u32];
        self
    }

    pub(crate) fn block(mut self, x: usize) -> Self {
        self.block = [x as u32, 1, 1];
        self
    }

    /// Bytes of dynamic shared memory.
    pub(crate) fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes;
        self
    }

    /// All blocks are to run at once, so that they can wait for each other.
    pub(crate) fn cooperative(mut self) -> Self {
        self.cooperative = true;
        self
    }

    /// A pointer to the first number of a contiguous tensor, to be read or, if it was made by [`super::empty`] or its kin for
    /// this, to be written.
    pub(crate) fn tensor(mut self, t: &'a Tensor) -> Self {
        self.args.push(Arg::Tensor(t));
        self
    }

    /// A pointer as [`Launch::tensor`], or null.
    pub(crate) fn optional(mut self, t: Option<&'a Tensor>) -> Self {
        self.args.push(t.map_or(Arg::Null, Arg::Tensor));
        self
    }

    /// The addresses of at most [`TABLE`] tensors, or nulls, in a struct of [`TABLE`] `unsigned long long`.
    pub(crate) fn table(
        mut self,
        tensors: impl IntoIterator<Item = Option<&'a Tensor>>,
    ) -> Result<Self> {
        let tensors: Vec<_> = tensors.into_iter().collect();
        if tensors.len() > TABLE {
            bail!("{}: internal error: {} tensors in a table", self.name, tensors.len());
        }
        self.args.push(Arg::Table(tensors));
        Ok(self)
    }

    /// At most [`TABLE`] numbers in such a struct.
    pub(crate) fn numbers(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut table = Table([0; TABLE]);
        table.0.iter_mut().zip(numbers).for_each(|(to, n)| *to = n);
        self.args.push(Arg::Numbers(Box::new(table)));
        self
    }

    /// An `int`.
    pub(crate) fn int(mut self, n: usize) -> Result<Self> {
        match i32::try_from(n) {
            Ok(n) => self.args.push(Arg::I32(n)),
            Err(_) => bail!("{}: {n} is too large for the CUDA path", self.name),
        }
        Ok(self)
    }

    /// A `bool` as `int`.
    pub(crate) fn flag(mut self, on: bool) -> Self {
        self.args.push(Arg::I32(i32::from(on)));
        self
    }

    /// An `unsigned long long`.
    pub(crate) fn long(mut self, n: u64) -> Self {
        self.args.push(Arg::U64(n));
        self
    }

    /// A `float`.
    pub(crate) fn float(mut self, x: f64) -> Self {
        self.args.push(Arg::F32(x as f32));
        self
    }

    /// Starts the kernel; does not wait for it.
    pub(crate) fn run(&self, device: &Device) -> Result<()> {
        if self.grid.contains(&0) {
            return Ok(());
        }
        let mut guards = Vec::with_capacity(self.args.len());
        for arg in &self.args {
            match arg {
                Arg::Tensor(t) => guards.push(t.storage_and_layout()),
                Arg::Table(ts) => {
                    guards.extend(ts.iter().flatten().map(|t| t.storage_and_layout()))
                }
                _ => {}
            }
        }
        let storages: Vec<(&Storage, usize)> =
            guards.iter().map(|(storage, layout)| (&**storage, layout.start_offset())).collect();
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
                let stream = device.cuda_stream();
                let pointers: Vec<_> = storages
                    .iter()
                    .map(|(storage, offset)| real::pointer(storage, *offset, &stream))
                    .collect::<Result<_>>()?;
                let function = real::function(device, self.module, &self.name, self.shared)?;
                let mut addresses = pointers.iter().map(|(pointer, _)| *pointer);
                let tables = self.tables(&mut addresses)?;
                let mut builder = stream.launch_builder(&function);
                let (mut next, mut tables) = (pointers.iter(), tables.iter());
                for arg in &self.args {
                    match arg {
                        Arg::Table(ts) => {
                            // Their addresses are in the table.
                            next.by_ref().take(ts.iter().flatten().count()).for_each(drop);
                            match tables.next() {
                                Some(table) => builder.arg(table),
                                None => bail!("{}: internal error: no table", self.name),
                            }
                        }
                        Arg::Numbers(table) => builder.arg(table.as_ref()),
                        Arg::Tensor(_) => match next.next() {
                            Some((pointer, _)) => builder.arg(pointer),
                            None => bail!("{}: internal error: a pointer is missing", self.name),
                        },
                        Arg::Null => builder.arg(&0u64),
                        Arg::I32(n) => builder.arg(n),
                        Arg::U64(n) => builder.arg(n),
                        Arg::F32(x) => builder.arg(x),
                    };
                }
                let dims = |[x, y, z]: [u32; 3]| (x, y, z);
                let config = LaunchConfig {
                    grid_dim: dims(self.grid),
                    block_dim: dims(self.block),
                    shared_mem_bytes: self.shared as u32,
                };
                // SAFETY: the kernels are our own, and their callers hold to the parameters and sizes; the tests run them all, also
                // with a checker of memory.
                let done = unsafe {
                    if self.cooperative {
                        builder.launch_cooperative(config)
                    } else {
                        builder.launch(config)
                    }
                };
                match done {
                    Ok(_) => Ok(()),
                    Err(e) => bail!("CUDA kernel {}: {e} (launched with {config:?})", self.name),
                }
            }
            #[cfg(feature = "cuda-emulation")]
            Device::Cpu => self.emulate(&storages),
            other => bail!("{}: internal error: no kernels for {other:?}", self.name),
        }
    }

    /// The tables of addresses, of the addresses of all tensors in order.
    fn tables(&self, addresses: &mut dyn Iterator<Item = u64>) -> Result<Vec<Table>> {
        let mut tables = vec![];
        for arg in &self.args {
            match arg {
                Arg::Tensor(_) => {
                    addresses.next();
                }
                Arg::Table(tensors) => {
                    let mut table = Table([0; TABLE]);
                    for (to, _) in table.0.iter_mut().zip(tensors).filter(|(_, t)| t.is_some()) {
                        match addresses.next() {
                            Some(address) => *to = address,
                            None => bail!("{}: internal error: a pointer is missing", self.name),
                        }
                    }
                    tables.push(table);
                }
                _ => {}
            }
        }
        Ok(tables)
    }

    #[cfg(feature = "cuda-emulation")]
    fn emulate(&self, storages: &[(&Storage, usize)]) -> Result<()> {
        use std::ffi::{CString, c_char, c_int, c_uint, c_void};
        unsafe extern "C" {
            fn mnemic_emulate(
                name: *const c_char,
                grid: *const c_uint,
                block: *const c_uint,
                shared: usize,
                args: *mut *mut c_void,
                cooperative: c_int,
            ) -> c_int;
        }
        let addresses = storages.iter().map(|(storage, at)| emulated_pointer(storage, *at));
        let addresses = addresses.collect::<Result<Vec<u64>>>()?;
        let tables = self.tables(&mut addresses.iter().copied())?;
        let (mut next, mut tables) = (addresses.into_iter(), tables.into_iter());
        // One place of the size of a table for each argument; the kernel reads what it needs from the start.
        let mut values: Vec<Table> = Vec::with_capacity(self.args.len());
        let one = |n: u64| Table(std::array::from_fn(|i| if i == 0 { n } else { 0 }));
        for arg in &self.args {
            values.push(match arg {
                Arg::Tensor(_) => one(next.next().unwrap_or(0)),
                Arg::Table(ts) => {
                    next.by_ref().take(ts.iter().flatten().count()).for_each(drop);
                    tables.next().unwrap_or(one(0))
                }
                Arg::Numbers(table) => **table,
                Arg::Null => one(0),
                Arg::I32(n) => one(u64::from(n.cast_unsigned())),
                Arg::U64(n) => one(*n),
                Arg::F32(x) => one(u64::from(x.to_bits())),
            });
        }
        let mut args: Vec<*mut c_void> =
            values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let Ok(name) = CString::new(self.name.as_str()) else {
            bail!("internal error: a kernel's name");
        };
        // SAFETY: as for the launch on a device. What the kernel writes are tensors made for it, which nobody else looks at.
        let code = unsafe {
            mnemic_emulate(
                name.as_ptr(),
                self.grid.as_ptr(),
                self.block.as_ptr(),
                self.shared,
                args.as_mut_ptr(),
                c_int::from(self.cooperative),
            )
        };
        match code {
            0 => Ok(()),
            1 => bail!("emulated CUDA: no kernel {} in {}.cu", self.name, self.module),
            2 => bail!("emulated CUDA: the threads of {} wait for ever", self.name),
            other => bail!("emulated CUDA: {} ended with {other}", self.name),
        }
    }
}

#[cfg(feature = "cuda-emulation")]
fn emulated_pointer(storage: &Storage, offset: usize) -> Result<u64> {
    use candle_core::CpuStorage as C;
    fn at<T>(v: &[T], offset: usize) -> u64 {
        v.as_ptr().wrapping_add(offset).expose_provenance() as u64
    }
    let Storage::Cpu(storage) = storage else { bail!("internal error: not on the CPU") };
    Ok(match storage {
        C::U8(v) => at(v, offset),
        C::U32(v) => at(v, offset),
        C::I64(v) => at(v, offset),
        C::F16(v) => at(v, offset),
        C::BF16(v) => at(v, offset),
        C::F32(v) => at(v, offset),
        C::F64(v) => at(v, offset),
        other => bail!("internal error: a CUDA kernel is given {:?}", dtype_of(other)),
    })
}

#[cfg(feature = "cuda-emulation")]
fn dtype_of(storage: &candle_core::CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

// SAFETY: plain numbers, which mean the same on the device.
#[cfg(feature = "cuda")]
unsafe impl candle_core::cuda_backend::cudarc::driver::DeviceRepr for Table {}

/// Launches on a device.
#[cfg(feature = "cuda")]
mod real {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;
    use std::sync::{Arc, Mutex, PoisonError};

    use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
    use candle_core::cuda_backend::cudarc::driver::{
        CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, SyncOnDrop,
    };
    use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
    use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice as S, WrapErr};
    use candle_core::{Result, Storage, bail};

    include!(concat!(env!("OUT_DIR"), "/modules.rs"));

    /// What a launch can have without asking for it.
    const SHARED: usize = 48 << 10;

    /// What is loaded in a context.
    #[derive(Default)]
    struct Loaded {
        modules: HashMap<&'static str, Arc<CudaModule>>,
        functions: HashMap<String, CudaFunction>,
    }

    static LOADED: Mutex<Option<HashMap<usize, Loaded>>> = Mutex::new(None);

    pub(super) fn function(
        device: &CudaDevice,
        module: &'static str,
        name: &str,
        shared: usize,
    ) -> Result<CudaFunction> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = all.get_or_insert_default().entry(context.cu_ctx().addr()).or_default();
        let function = match loaded.functions.get(name) {
            Some(function) => function.clone(),
            None => {
                let function = loaded.module(context, module)?.load_function(name).w()?;
                loaded.functions.insert(name.to_string(), function.clone());
                function
            }
        };
        if shared > SHARED {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32).w()?;
        }
        Ok(function)
    }

    impl Loaded {
        fn module(
            &mut self,
            context: &Arc<CudaContext>,
            module: &'static str,
        ) -> Result<&Arc<CudaModule>> {
            match self.modules.entry(module) {
                Entry::Occupied(entry) => Ok(entry.into_mut()),
                Entry::Vacant(entry) => {
                    let Some((_, image)) = MODULES.iter().find(|(m, _)| *m == module) else {
                        bail!("internal error: no CUDA module {module}");
                    };
                    let loaded = context.load_module(Ptx::from_binary(image.to_vec())).w()?;
                    Ok(entry.insert(loaded))
                }
            }
        }
    }

    /// The address of a number of a tensor, and what tells the stream that it is in use.
    pub(super) fn pointer<'a>(
        storage: &'a Storage,
        offset: usize,
        stream: &'a CudaStream,
    ) -> Result<(u64, SyncOnDrop<'a>)> {
        fn at<'a, T>(
            slice: &'a CudaSlice<T>,
            offset: usize,
            stream: &'a CudaStream,
        ) -> (u64, SyncOnDrop<'a>) {
            let (start, sync) = slice.device_ptr(stream);
            (start + (offset * size_of::<T>()) as u64, sync)
        }
        let Storage::Cuda(storage) = storage else {
            bail!("internal error: a CUDA kernel is given a tensor that is not on a CUDA device");
        };
        Ok(match &storage.slice {
            S::U8(s) => at(s, offset, stream),
            S::U32(s) => at(s, offset, stream),
            S::I64(s) => at(s, offset, stream),
            S::F16(s) => at(s, offset, stream),
            S::BF16(s) => at(s, offset, stream),
            S::F32(s) => at(s, offset, stream),
            S::F64(s) => at(s, offset, stream),
            _ => bail!("internal error: a CUDA kernel is given a type that it cannot read"),
        })
    }
}
