//! From the states of the tokens to one vector.

use candle_core::{Result, Tensor};
use mnemic_layers::concat;
use serde_json::{Map, Value};

use crate::text::TextBatch;

/// How the states of a sentence's tokens become one vector; padding counts nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The state of the first token.
    Cls,
    /// The largest value of each component.
    Max,
    /// The mean.
    Mean,
    /// The sum, divided by the root of the number of tokens.
    MeanSqrtLen,
    /// The mean, the `i`-th token (from 1) counted `i` times.
    WeightedMean,
    /// The state of the last token.
    LastToken,
}

/// Ways with their key and their name, in the order in which several stand side by side.
const WAYS: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "pooling_mode_cls_token", "cls"),
    (Pooling::Max, "pooling_mode_max_tokens", "max"),
    (Pooling::Mean, "pooling_mode_mean_tokens", "mean"),
    (Pooling::MeanSqrtLen, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    (Pooling::WeightedMean, "pooling_mode_weightedmean_tokens", "weightedmean"),
    (Pooling::LastToken, "pooling_mode_lasttoken", "lasttoken"),
];

impl Pooling {
    /// The ways that a `config.json` asks for, by flags or by `pooling_mode`.
    pub(super) fn read(config: &Map<String, Value>) -> Vec<Self> {
        let listed = |value: &Value, name: &str| match value {
            Value::Array(all) => all.iter().any(|one| one == name),
            one => one == name,
        };
        let named = |name: &str| config.get("pooling_mode").is_some_and(|mode| listed(mode, name));
        let flag = |key: &str| config.get(key).and_then(Value::as_bool) == Some(true);
        let wanted = |&&(_, key, name): &&(Self, &str, &str)| flag(key) || named(name);
        WAYS.iter().filter(wanted).map(|&(way, ..)| way).collect()
    }

    /// `states (b, t, d)` to `(b, d)`.
    ///
    /// # Errors
    /// When the batch has another shape.
    pub fn forward(self, states: &Tensor, batch: &TextBatch) -> Result<Tensor> {
        let mask = batch.attention_mask();
        let (b, t) = batch.dims()?;
        let to_tensor = |values: Vec<f32>, shape: (usize, usize, usize)| {
            Tensor::from_vec(values, shape, states.device())?.to_dtype(states.dtype())
        };
        if self == Self::Max {
            let hidden = |&m: &u8| if m == 0 { f32::NEG_INFINITY } else { 0. };
            let hidden = mask.iter().flatten().map(hidden).collect();
            return states.broadcast_add(&to_tensor(hidden, (b, t, 1))?)?.max(1);
        }
        let weights = mask.iter().flat_map(|row| self.weights(row)).collect();
        to_tensor(weights, (b, 1, t))?.matmul(&states.contiguous()?)?.squeeze(1)
    }

    /// What each token counts.
    fn weights(self, mask: &[u8]) -> Vec<f32> {
        let there = |&m: &u8| if m == 0 { 0. } else { 1. };
        let count = mask.iter().filter(|&&m| m != 0).count().max(1) as f32;
        let only = |place: Option<usize>| {
            (0..mask.len()).map(|i| if Some(i) == place { 1. } else { 0. }).collect()
        };
        match self {
            Self::Cls => only(mask.iter().position(|&m| m != 0)),
            Self::LastToken => only(mask.iter().rposition(|&m| m != 0)),
            Self::Mean | Self::Max => mask.iter().map(|m| there(m) / count).collect(),
            Self::MeanSqrtLen => mask.iter().map(|m| there(m) / count.sqrt()).collect(),
            Self::WeightedMean => {
                // The place in the row, as `sentence-transformers` has it.
                let raw: Vec<f32> =
                    mask.iter().enumerate().map(|(i, m)| there(m) * (i + 1) as f32).collect();
                let sum = raw.iter().sum::<f32>().max(1.);
                raw.iter().map(|w| w / sum).collect()
            }
        }
    }
}

/// Several ways side by side, `(b, n d)`.
pub(super) fn pool(ways: &[Pooling], states: &Tensor, batch: &TextBatch) -> Result<Tensor> {
    match ways {
        [one] => one.forward(states, batch),
        _ => {
            let parts = ways.iter().map(|way| way.forward(states, batch));
            concat(&parts.collect::<Result<Vec<_>>>()?)
        }
    }
}
