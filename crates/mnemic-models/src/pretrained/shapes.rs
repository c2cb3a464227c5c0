//! The parameters that a config asks for, without making them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::Shapes;
use super::model::PretrainedModel;
use crate::config::count;
use crate::error::{Error, Result};

/// Numbers that a config may ask for beyond what is there, so that tensors of a wrong shape are still named one by one.
const SLACK: u128 = 1 << 22;

/// Names that a config may ask for beyond twice those that are there.
const NAMES: usize = 1 << 10;

/// The most numbers that a config may ask for where a checkpoint holds `there`.
pub(super) fn most(there: u128) -> u128 {
    there.saturating_mul(2).saturating_add(SLACK)
}

/// Names and shapes of the parameters of `config`.
///
/// # Errors
/// When it asks for far more than is `found`: such a model is not even tried.
pub(super) fn expected<M: PretrainedModel>(config: &M::Config, found: &Shapes) -> Result<Shapes> {
    let there = found.values().map(|dims| count(dims)).fold(0, u128::saturating_add);
    M::check_size(config, there)?;
    let recorder = Recorder {
        shapes: Arc::default(),
        most: most(there),
        most_names: found.len().saturating_mul(2).saturating_add(NAMES),
    };
    let backend = Box::new(recorder.clone());
    M::build(config, VarBuilder::from_backend(backend, DType::F32, Device::Cpu))?;
    Ok(std::mem::take(&mut recorder.lock().0))
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
#[derive(Clone)]
struct Recorder {
    /// With the sum of their numbers.
    shapes: Arc<Mutex<(Shapes, u128)>>,
    most: u128,
    most_names: usize,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, (Shapes, u128)> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimpleBackend for Recorder {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut recorded = self.lock();
        let (shapes, sum) = &mut *recorded;
        match shapes.get(name) {
            Some(known) if known == shape.dims() => {}
            Some(known) => bail!("parameter {name} is {known:?}, asked for as {shape:?}"),
            None => {
                *sum = sum.saturating_add(count(shape.dims()));
                if *sum > self.most || shapes.len() >= self.most_names {
                    bail!(
                        "the config asks for far more parameters than the weights hold: at {name} {shape:?}"
                    );
                }
                shapes.insert(name.to_string(), shape.dims().to_vec());
            }
        }
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        bail!("parameter {name}: its shape is not known")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().0.contains_key(name)
    }
}
