//! What follows the encoder, as `modules.json` lists it.

use std::path::{Path, PathBuf};

use candle_core::{D, DType, Device, Module, Tensor};
use mnemic_layers::Linear;
use serde::Deserialize;
use serde_json::Value;

use super::pooling::{Pooling, pool};
use crate::error::{Error, Result, shown, unknown};
use crate::pretrained::{load_tensors, read_keys, read_text};
use crate::text::TextBatch;

/// A step after the encoder.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// `(b, t, d)` to `(b, n d)`.
    Pool(Vec<Pooling>),
    /// `f(W x + b)`, with tanh where it says so.
    Dense(Linear, bool),
    /// `x / |x|`.
    Normalize,
}

impl Step {
    pub(super) fn forward(&self, xs: &Tensor, batch: &TextBatch) -> candle_core::Result<Tensor> {
        match self {
            Self::Pool(ways) => pool(ways, xs, batch),
            Self::Dense(map, false) => map.forward(xs),
            Self::Dense(map, true) => map.forward(xs)?.tanh(),
            Self::Normalize => normalize(xs),
        }
    }
}

/// Rows brought to length 1; a row of zeros stays.
pub(crate) fn normalize(xs: &Tensor) -> candle_core::Result<Tensor> {
    let length = xs.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    xs.broadcast_div(&length.maximum(1e-12)?)
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The folder of the encoder below `dir`, and the steps after it.
pub(super) fn read_steps(
    dir: &Path,
    dtype: DType,
    device: &Device,
) -> Result<(PathBuf, Vec<Step>)> {
    let file = dir.join("modules.json");
    if !file.is_file() {
        return Ok((PathBuf::new(), vec![Step::Pool(vec![Pooling::Mean])]));
    }
    let malformed = |reason: String| Error::format(&file, reason);
    let entries: Vec<Entry> =
        serde_json::from_str(&read_text(&file)?).map_err(|e| malformed(e.to_string()))?;
    let (mut encoder, mut steps) = (None, Vec::new());
    for Entry { path, kind } in &entries {
        check_below(path).map_err(malformed)?;
        let below = dir.join(path);
        let kind = kind.rsplit('.').next().unwrap_or(kind);
        if (kind == "Transformer") != (encoder.is_none() && steps.is_empty()) {
            let reason =
                format!("expected one Transformer, at the beginning, got `{}`", shown(kind));
            return Err(malformed(reason));
        }
        match kind {
            "Transformer" => encoder = Some(PathBuf::from(path)),
            "Pooling" => steps.push(Step::Pool(read_pooling(&below.join("config.json"))?)),
            "Dense" => steps.push(read_dense(&below, dtype, device)?),
            "Normalize" => steps.push(Step::Normalize),
            "Dropout" => {}
            _ => {
                let known = ["Transformer", "Pooling", "Dense", "Normalize", "Dropout"];
                return Err(malformed(unknown("module", kind, &known)));
            }
        }
    }
    match (encoder, steps.first()) {
        (Some(encoder), Some(Step::Pool(_))) => Ok((encoder, steps)),
        _ => Err(malformed("expected a Transformer, then a Pooling".into())),
    }
}

/// Refuses paths that lead out of the folder.
fn check_below(path: &str) -> std::result::Result<(), String> {
    let plain = |part: std::path::Component<'_>| {
        matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir)
    };
    match Path::new(path).components().all(plain) {
        true => Ok(()),
        false => Err(format!("expected the name of a folder below, got `{}`", shown(path))),
    }
}

fn read_pooling(file: &Path) -> Result<Vec<Pooling>> {
    let ways = Pooling::read(&read_keys(file)?);
    match ways.is_empty() {
        false => Ok(ways),
        true => Err(Error::format(file, "expected a way of pooling, found none that is known")),
    }
}

fn read_dense(dir: &Path, dtype: DType, device: &Device) -> Result<Step> {
    let file = dir.join("config.json");
    let config = read_keys(&file)?;
    let function = config.get("activation_function").and_then(Value::as_str).unwrap_or("Tanh");
    let tanh = match function.rsplit('.').next() {
        Some("Tanh") => true,
        Some("Identity") => false,
        _ => {
            let reason = format!("expected Tanh or Identity, got `{}`", shown(function));
            return Err(Error::format(&file, reason));
        }
    };
    let file = dir.join("model.safetensors");
    let tensors = load_tensors(&file, device)?;
    let size = |key: &str| config.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let (out, width) = (size("out_features"), size("in_features"));
    let weight = tensors.get("linear.weight").map(|w| w.to_dtype(dtype)).transpose()?;
    let bias = tensors.get("linear.bias").map(|b| b.to_dtype(dtype)).transpose()?;
    match weight {
        Some(weight)
            if weight.rank() == 2
                && out.is_none_or(|out| out == weight.dims()[0])
                && width.is_none_or(|width| width == weight.dims()[1])
                && bias.as_ref().is_none_or(|bias| bias.dims() == [weight.dims()[0]]) =>
        {
            Ok(Step::Dense(Linear::new(weight, bias), tanh))
        }
        _ => {
            let reason = format!("expected linear.weight ({out:?}, {width:?}) and its bias");
            Err(Error::format(&file, reason))
        }
    }
}
