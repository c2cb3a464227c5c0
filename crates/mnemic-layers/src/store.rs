//! Parameters: made from a seed, kept in order, loaded strictly.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::rng::Philox;

/// The trainable parameters of a model, sorted by name.
///
/// It takes the place of candle's `VarMap`, whose initial values cannot be seeded and whose order changes from run to
/// run. The initial value of a parameter depends on the seed and on its own name only, so adding a layer leaves the
/// others as they were.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::ParamStore;
/// let store = ParamStore::new(7);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let w = vb.pp("layer").get_with_hints((2, 3), "weight", candle_nn::Init::Randn { mean: 0., stdev: 0.1 })?;
/// assert_eq!(w.dims(), &[2, 3]);
/// assert_eq!(store.vars()[0].0, "layer.weight");
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ParamStore {
    seed: u64,
    vars: Arc<Mutex<BTreeMap<String, Var>>>,
}

/// What a strict load found wrong: every missing, unused and misshapen tensor by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadMismatch {
    /// Parameters of the model that the file lacks, with the model's shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
    /// Name, expected shape, found shape.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl LoadMismatch {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misshapen.is_empty()
    }
}

impl ParamStore {
    /// An empty store whose parameters will be drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, vars: Arc::default() }
    }

    /// The seed that initial values are drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A `VarBuilder` that creates parameters here. A name asked for twice is the same parameter (tied weights); it
    /// must be asked for with the same shape and type.
    pub fn builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone())
    }

    /// A `VarBuilder` that hands out the parameters cut from the graph, over the same numbers: a model built with it records
    /// nothing for a backward pass. It makes no parameter.
    pub fn frozen(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Frozen(self.clone())), dtype, device.clone())
    }

    /// Takes `value` as the parameter `name`, in place of one that may be there.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn insert(&self, name: &str, value: &Tensor) -> Result<()> {
        let var = Var::from_tensor(value)?;
        self.lock().insert(name.to_string(), var);
        Ok(())
    }

    /// All parameters, sorted by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.lock().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// One parameter.
    pub fn get(&self, name: &str) -> Option<Var> {
        self.lock().get(name).cloned()
    }

    /// The number of scalar parameters.
    pub fn num_parameters(&self) -> usize {
        self.lock().values().map(|v| v.elem_count()).sum()
    }

    /// A copy of every value (not sharing storage with the parameters), by name.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        self.lock().iter().map(|(k, v)| Ok((k.clone(), v.as_tensor().copy()?.detach()))).collect()
    }

    /// Compares `tensors` with the parameters without changing anything.
    pub fn check(&self, tensors: &HashMap<String, Tensor>) -> LoadMismatch {
        let vars = self.lock();
        let mut mismatch = LoadMismatch::default();
        for (name, var) in vars.iter() {
            match tensors.get(name) {
                None => mismatch.missing.push((name.clone(), var.dims().to_vec())),
                Some(t) if t.dims() != var.dims() => {
                    let entry = (name.clone(), var.dims().to_vec(), t.dims().to_vec());
                    mismatch.misshapen.push(entry);
                }
                Some(_) => {}
            }
        }
        mismatch.unused = tensors.keys().filter(|k| !vars.contains_key(*k)).cloned().collect();
        mismatch.unused.sort();
        mismatch
    }

    /// Sets every parameter from `tensors`, converting type and device. Strict: names and shapes must match exactly
    /// ([`ParamStore::check`]), else nothing is changed and the mismatch is returned as the inner error.
    pub fn load(
        &self,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<std::result::Result<(), LoadMismatch>> {
        let mismatch = self.check(tensors);
        if !mismatch.is_empty() {
            return Ok(Err(mismatch));
        }
        for (name, var) in self.lock().iter() {
            var.set(&tensors[name].to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Var>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.vars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws an initial value. Numbers are drawn in f64 and then converted, so that an f32 and an f64 model start alike.
fn draw(init: Init, shape: &Shape, rng: Philox, dtype: DType, device: &Device) -> Result<Tensor> {
    let n = shape.elem_count();
    let values = match init {
        Init::Const(c) => vec![c; n],
        Init::Randn { mean, stdev } => rng.normals(n, mean, stdev),
        Init::Uniform { lo, up } => rng.uniforms(n, lo, up),
        Init::Kaiming { dist, fan, non_linearity } => {
            let std = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            match dist {
                candle_nn::init::NormalOrUniform::Normal => rng.normals(n, 0., std),
                candle_nn::init::NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * std;
                    rng.uniforms(n, -bound, bound)
                }
            }
        }
    };
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

impl SimpleBackend for ParamStore {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut vars = self.lock();
        if let Some(var) = vars.get(name) {
            if var.shape() != &shape || var.dtype() != dtype {
                let (s, d) = (var.shape(), var.dtype());
                bail!("parameter {name} exists as {s:?} {d:?}, asked for as {shape:?} {dtype:?}");
            }
            return Ok(var.as_tensor().clone());
        }
        let value = draw(init, &shape, Philox::named(self.seed, name), dtype, device)?;
        let var = Var::from_tensor(&value)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_string(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => bail!("parameter {name} has not been created: its shape is not known"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}

/// The parameters of a store without their place in the graph.
struct Frozen(ParamStore);

impl SimpleBackend for Frozen {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            bail!("parameter {name} is {:?}, asked for as {shape:?}", tensor.shape());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.0.get(name) {
            Some(var) => var.as_tensor().detach().to_dtype(dtype)?.to_device(device),
            None => bail!("parameter {name} does not exist"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_tensor(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(seed: u64, first: &str) -> Vec<f32> {
        let store = ParamStore::new(seed);
        let vb = store.builder(DType::F32, &Device::Cpu);
        vb.get_with_hints(4, first, Init::Randn { mean: 0., stdev: 1. }).unwrap();
        let w = vb.get_with_hints(3, "w", Init::Uniform { lo: -1., up: 1. }).unwrap();
        w.to_vec1().unwrap()
    }

    #[test]
    fn values_depend_on_seed_and_name_only() {
        assert_eq!(weight(1, "a"), weight(1, "z"));
        assert_ne!(weight(1, "a"), weight(2, "a"));
    }

    #[test]
    fn load_is_strict_and_all_or_nothing() {
        let store = ParamStore::new(0);
        let vb = store.builder(DType::F32, &Device::Cpu);
        vb.get_with_hints((2, 2), "a", Init::Const(1.)).unwrap();
        vb.get_with_hints(2, "b", Init::Const(2.)).unwrap();
        let zeros = |s: &[usize]| Tensor::zeros(s, DType::F64, &Device::Cpu).unwrap();
        let bad = HashMap::from([("a".into(), zeros(&[4])), ("c".into(), zeros(&[1]))]);
        let mismatch = store.load(&bad).unwrap().unwrap_err();
        assert_eq!(mismatch.missing, vec![("b".to_string(), vec![2])]);
        assert_eq!(mismatch.unused, vec!["c".to_string()]);
        assert_eq!(mismatch.misshapen, vec![("a".to_string(), vec![2, 2], vec![4])]);
        assert_eq!(store.get("a").unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 4.);
        let good = HashMap::from([("a".into(), zeros(&[2, 2])), ("b".into(), zeros(&[2]))]);
        store.load(&good).unwrap().unwrap();
        assert_eq!(store.get("a").unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.);
    }

    #[test]
    fn a_frozen_model_shares_numbers_and_no_graph() {
        let store = ParamStore::new(0);
        store.insert("w", &Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap()).unwrap();
        let frozen = store.frozen(DType::F32, &Device::Cpu);
        let w = frozen.get(2, "w").unwrap();
        assert!(!w.is_variable() && !w.track_op());
        store.get("w").unwrap().set(&Tensor::new(&[3f32, 4.], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(w.to_vec1::<f32>().unwrap(), [3., 4.]);
        assert!(frozen.get(3, "w").unwrap_err().to_string().contains("asked for as"));
        assert!(frozen.get(2, "v").unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn tied_names_share_and_must_agree() {
        let store = ParamStore::new(0);
        let vb = store.builder(DType::F32, &Device::Cpu);
        let a = vb.get((2, 2), "w").unwrap();
        let b = vb.get((2, 2), "w").unwrap();
        assert_eq!(a.id(), b.id());
        assert!(vb.get((3, 2), "w").unwrap_err().to_string().contains("parameter w exists"));
    }
}
