//! The parameters that a config asks for, without making them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::Shapes;
use crate::any::ModelConfig;
use crate::config::count;
use crate::error::{Error, Result};

/// Numbers that a config may ask for beyond what is there, so that tensors of a wrong shape are still named one by one.
const SLACK: u128 = 1 << 22;

/// Names and shapes of the parameters of `config`.
///
/// # Errors
/// When it asks for far more than is `found`: such a model is not even tried.
pub(super) fn expected(config: &ModelConfig, found: &Shapes) -> Result<Shapes> {
    let there = found.values().map(|dims| count(dims)).fold(0, u128::saturating_add);
    let place = || format!("{} config", config.architecture());
    let most = there.saturating_mul(2).saturating_add(SLACK);
    let asked = config.num_parameters()?;
    if asked > most {
        let reason = format!("asks for {asked} parameters, but the weights are {there} numbers");
        return Err(Error::config(place(), reason));
    }
    let constants = config.num_constants();
    if constants > most {
        let reason = format!(
            "asks for {constants} position weights beside {there} weights: sentence_len is too large"
        );
        return Err(Error::config(place(), reason));
    }
    let shapes = Recorder::default();
    let backend = Box::new(shapes.clone());
    config.build(VarBuilder::from_backend(backend, DType::F32, Device::Cpu))?;
    let shapes = shapes.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(shapes.clone())
}

/// Refuses types that weights cannot have.
pub(super) fn check_float(place: &str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Ok(()),
        other => {
            let reason = format!("expected type F32, F64, F16 or BF16, got {other:?}");
            Err(Error::config(place, reason))
        }
    }
}

/// Writes down what is asked for and hands out views of a single zero.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl SimpleBackend for Recorder {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut shapes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shapes.entry(name.to_string()).or_insert_with(|| shape.dims().to_vec());
        if known != shape.dims() {
            bail!("parameter {name} is {known:?}, asked for as {shape:?}");
        }
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        bail!("parameter {name}: its shape is not known")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}
