//! Which rotary frequencies a config asks for.

use std::f64::consts::TAU;

use mnemic_layers::Rotary;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

const PLACE: &str = "rope parameters";

/// Frequencies `θ^(-2j/r)`, and how they are changed for longer texts.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    theta: f64,
    width: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// As they are.
    Default,
    /// Divided by a factor.
    Linear(f64),
    /// Long waves are divided by the factor, short ones stay, those between are mixed of both.
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

impl Rope {
    pub(super) fn new(
        theta: Option<f64>,
        keys: Option<&Map<String, Value>>,
        width: usize,
    ) -> Result<Self> {
        let get = |name: &str| keys.and_then(|keys| keys.get(name));
        let number = |name: &str| match get(name).and_then(Value::as_f64) {
            Some(x) if x > 0. && x.is_finite() => Ok(x),
            _ => Err(Error::config(
                PLACE,
                format!("expected a positive {name}, got {:?}", get(name)),
            )),
        };
        let theta = match get("rope_theta") {
            Some(_) => number("rope_theta")?,
            None => theta.unwrap_or(10_000.),
        };
        if !(theta > 0. && theta.is_finite()) || width == 0 || !width.is_multiple_of(2) {
            let reason = format!(
                "expected an even head_dim and a positive rope_theta, got {width} and {theta}"
            );
            return Err(Error::config(PLACE, reason));
        }
        if let Some(part) = get("partial_rotary_factor")
            && part.as_f64() != Some(1.)
        {
            return Err(Error::config(
                PLACE,
                format!("partial_rotary_factor must be 1, got {part}"),
            ));
        }
        let kind = match get("rope_type").or_else(|| get("type")) {
            None => {
                if let Some((name, _)) = keys.into_iter().flatten().find(|(_, v)| v.is_object()) {
                    let reason =
                        format!("`{name}`: parameters for kinds of layers are not supported");
                    return Err(Error::config(PLACE, reason));
                }
                Kind::Default
            }
            Some(Value::String(name)) => match name.as_str() {
                "default" => Kind::Default,
                "linear" => Kind::Linear(number("factor")?),
                "llama3" => Kind::Llama3 {
                    factor: number("factor")?,
                    low: number("low_freq_factor")?,
                    high: number("high_freq_factor")?,
                    original: number("original_max_position_embeddings")?,
                },
                other => {
                    let reason = format!(
                        "rope_type must be default, linear or llama3, got `{}`",
                        crate::error::shown(other)
                    );
                    return Err(Error::config(PLACE, reason));
                }
            },
            Some(other) => {
                return Err(Error::config(
                    PLACE,
                    format!("rope_type: expected a name, got {other}"),
                ));
            }
        };
        if let Kind::Llama3 { low, high, .. } = kind
            && low >= high
        {
            let reason = format!("low_freq_factor {low} must be below high_freq_factor {high}");
            return Err(Error::config(PLACE, reason));
        }
        Ok(Self { theta, width, kind })
    }

    pub(super) fn rotary(&self) -> candle_core::Result<Rotary> {
        let rotary = Rotary::new(self.width, self.theta)?;
        Ok(match self.kind {
            Kind::Default => rotary,
            Kind::Linear(factor) => rotary.map(|w| w / factor),
            Kind::Llama3 { factor, low, high, original } => rotary.map(|w| {
                // Turns in the text the model was first trained for.
                let turns = original * w / TAU;
                let keep = ((turns - low) / (high - low)).clamp(0., 1.);
                (1. - keep) * w / factor + keep * w
            }),
        })
    }
}
