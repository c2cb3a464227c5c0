//! Tensors between files and parameters: converted, and refused where they hold what no model can use.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};

use super::model::PretrainedModel;
use super::safe_file::SafeFile;
use super::shapes;
use super::weights::Weights;
use crate::error::{Error, Result, shown};

/// All tensors of a safetensors file, by name, with the types that they have there; i8, which candle lacks, becomes f32.
///
/// candle's own reader trusts the file; this one gives an error for anything that is cut off, overlapping, said twice, or
/// larger than the file.
///
/// # Errors
/// When the file cannot be read or is not a whole safetensors file with tensors of ordinary types.
pub fn load_tensors(path: impl AsRef<Path>, device: &Device) -> Result<HashMap<String, Tensor>> {
    let file = SafeFile::open(path)?;
    let load = |name: String| {
        let tensor = file.load_widened(&name)?.to_device(device)?;
        Ok((name, tensor))
    };
    file.shapes().into_keys().map(load).collect()
}

/// The bytes of a regular file that is not larger.
pub(super) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let open = || {
        // Devices and pipes have no end, and opening a pipe waits.
        let data = std::fs::metadata(path)?;
        if !data.is_file() {
            return Err(std::io::Error::other("expected a regular file"));
        }
        if data.len() > most {
            let text = format!("expected at most {most} bytes, got {}", data.len());
            return Err(std::io::Error::other(text));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(data.len()).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    open().map_err(Error::io(path))
}

/// The tensor `name` as `dtype` in the host's memory, if all its numbers are finite.
pub(super) fn finite(weights: &Weights, name: &str, dtype: DType) -> Result<Tensor> {
    let tensor = weights.load(name)?;
    let file = weights.file_of(name);
    shapes::check_float(&format!("tensor `{}`", shown(name)), tensor.dtype())
        .map_err(|e| e.at(file))?;
    check_finite(file, name, &tensor)?;
    let converted = tensor.to_dtype(dtype)?;
    if tensor.dtype() != dtype {
        // A large f64 becomes infinite as f32.
        check_finite(file, name, &converted)?;
    }
    Ok(converted)
}

/// The file of these parameters, under the names that checkpoints have for them.
pub(super) fn serialize<M: PretrainedModel>(
    path: &Path,
    config: &M::Config,
    vars: &[(String, Var)],
) -> Result<Vec<u8>> {
    let mut tensors = Vec::with_capacity(vars.len());
    for (name, var) in vars {
        shapes::check_float(&format!("parameter `{}`", shown(name)), var.dtype())?;
        let Some((stored, transposed)) = M::stored(config, name).target() else { continue };
        let tensor = var.as_tensor().detach().to_device(&Device::Cpu)?;
        let tensor = if transposed { tensor.t()? } else { tensor }.contiguous()?;
        check_finite(path, name, &tensor)?;
        tensors.push((stored, tensor));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(tensors, Some(metadata))
        .map_err(|e| Error::format(path, format!("cannot be written: {e}")))
}

fn check_finite(path: &Path, name: &str, tensor: &Tensor) -> Result<()> {
    let flat = tensor.flatten_all()?;
    let bad = match tensor.dtype() {
        DType::F64 => not_finite(&flat.to_vec1::<f64>()?),
        // Exact for f16 and bf16.
        _ => not_finite(&flat.to_dtype(DType::F32)?.to_vec1::<f32>()?),
    };
    match bad {
        None => Ok(()),
        Some((at, value)) => {
            let (name, dtype) = (shown(name), tensor.dtype());
            let reason = format!("tensor `{name}` holds {value} as {dtype:?} at flat index {at}");
            Err(Error::format(path, reason))
        }
    }
}

/// The first number that is infinite or NaN, and where.
fn not_finite<T: Copy + Into<f64>>(values: &[T]) -> Option<(usize, f64)> {
    let at = values.iter().position(|&v| !v.into().is_finite())?;
    Some((at, values[at].into()))
}
