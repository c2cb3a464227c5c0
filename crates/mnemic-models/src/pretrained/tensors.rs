//! Files of tensors (safetensors), read with suspicion.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor, Var};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Deserializer};

use super::model::PretrainedModel;
use super::{Shapes, shapes};
use crate::any::unique_map;
use crate::error::{Error, Result, shown};

/// All tensors of a safetensors file, by name, with the types that they have there; i8, which candle lacks, becomes f32.
///
/// candle's own reader trusts the file; this one gives an error for anything that is cut off, overlapping, said twice, or
/// larger than the file.
///
/// # Errors
/// When the file cannot be read or is not a whole safetensors file with tensors of ordinary types.
pub fn load_tensors(path: impl AsRef<Path>, device: &Device) -> Result<HashMap<String, Tensor>> {
    let path = path.as_ref();
    let bytes = read(path)?;
    let file = TensorFile::parse(path, &bytes)?;
    let load = |(name, view): (&String, &TensorView<'_>)| {
        Ok((name.clone(), file.load(name, view)?.to_device(device)?))
    };
    file.views.iter().map(load).collect()
}

/// The bytes of a regular file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, u64::MAX)
}

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

/// A file of tensors that has been checked as a whole.
pub(super) struct TensorFile<'a> {
    path: &'a Path,
    views: BTreeMap<String, TensorView<'a>>,
}

impl<'a> TensorFile<'a> {
    pub(super) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        check_header(bytes).map_err(|reason| Error::format(path, reason))?;
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| Error::format(path, format!("malformed safetensors: {e}")))?;
        Ok(Self { path, views: file.tensors().into_iter().collect() })
    }

    pub(super) fn shapes(&self) -> Shapes {
        self.views.iter().map(|(name, view)| (name.clone(), view.shape().to_vec())).collect()
    }

    /// The tensor `name` as `dtype` in the host's memory, if all its numbers are finite.
    pub(super) fn finite(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let Some(view) = self.views.get(name) else {
            return Err(Error::format(self.path, format!("no tensor `{}`", shown(name))));
        };
        if view.dtype() == Dtype::I8 {
            let reason = format!("tensor `{}` has type I8: expected floats", shown(name));
            return Err(Error::format(self.path, reason));
        }
        let tensor = self.load(name, view)?;
        shapes::check_float(&format!("tensor `{}`", shown(name)), tensor.dtype())
            .map_err(|e| e.at(self.path))?;
        check_finite(self.path, name, &tensor)?;
        let converted = tensor.to_dtype(dtype)?;
        if tensor.dtype() != dtype {
            // A large f64 becomes infinite as f32.
            check_finite(self.path, name, &converted)?;
        }
        Ok(converted)
    }

    fn load(&self, name: &str, view: &TensorView<'_>) -> Result<Tensor> {
        use Dtype::{BF16, F16, F32, F64, I16, I32, I64, U8, U32};
        match view.dtype() {
            BF16 | F16 | F32 | F64 | I16 | I32 | I64 | U8 | U32 => Ok(view.load(&Device::Cpu)?),
            Dtype::I8 => {
                let values: Vec<f32> =
                    view.data().iter().map(|&byte| f32::from(byte.cast_signed())).collect();
                Ok(Tensor::from_vec(values, view.shape(), &Device::Cpu)?)
            }
            other => {
                let reason =
                    format!("tensor `{}` has type {other:?}, which is not read", shown(name));
                Err(Error::format(self.path, reason))
            }
        }
    }
}

/// What the safetensors crate does not check or checks with sums that a hostile header can overflow: the header's length,
/// names that stand twice, and ends past the file's end.
fn check_header(bytes: &[u8]) -> std::result::Result<(), String> {
    let total = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("expected a safetensors file of 8 bytes or more, got {total}"));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n));
    let Some((header, data)) = header else {
        return Err(format!(
            "the header's length {length} does not fit into the file's {total} bytes: cut off, or \
             not a safetensors file"
        ));
    };
    let text = std::str::from_utf8(header).map_err(|e| format!("header: {e}"))?;
    let Header(entries) = serde_json::from_str(text).map_err(|e| format!("header: {e}"))?;
    let mut end = 0;
    for (name, entry) in entries {
        let to = match entry {
            Entry::Tensor { data_offsets: (_, to) } => to,
            Entry::Other(_) if name == "__metadata__" => continue,
            Entry::Other(_) => {
                return Err(format!("header: tensor `{}` is malformed", shown(&name)));
            }
        };
        if to > data.len() as u64 {
            let (name, have) = (shown(&name), data.len());
            return Err(format!(
                "tensor `{name}` ends at byte {to} of the data's {have}: cut off?"
            ));
        }
        end = end.max(to);
    }
    match data.len() as u64 - end {
        0 => Ok(()),
        over => Err(format!("{over} bytes follow the last tensor")),
    }
}

struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self(unique_map(deserializer)?))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Tensor {
        data_offsets: (u64, u64),
    },
    /// `__metadata__`, whose values are texts.
    Other(serde::de::IgnoredAny),
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
