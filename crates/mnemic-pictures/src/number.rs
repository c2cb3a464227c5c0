//! Numbers as short text, as fractions of a scale, and as JSON that keeps NaN and infinities.

/// Smallest and largest finite value.
pub(crate) fn finite_range(values: &[f32]) -> Option<(f32, f32)> {
    values.iter().copied().filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((lo, hi)) => Some((lo.min(v), hi.max(v))),
    })
}

/// Place of `value` between the two ends of `range`, clamped to `[0, 1]`; `None` for NaN.
///
/// A range of one value puts that value in the middle.
pub(crate) fn fraction(value: f32, range: (f32, f32)) -> Option<f64> {
    let (value, lo, hi) = (f64::from(value), f64::from(range.0), f64::from(range.1));
    match value {
        v if v.is_nan() => None,
        v if v == f64::INFINITY => Some(1.0),
        v if v == f64::NEG_INFINITY => Some(0.0),
        _ if hi <= lo => Some(0.5),
        v => Some(((v - lo) / (hi - lo)).clamp(0.0, 1.0)),
    }
}

/// A weight or probability in at most four characters where it is in `[0, 1]`: `.07`, `1.0`.
pub(crate) fn unit(value: f64) -> String {
    if (0.0..0.995).contains(&value) {
        format!("{value:.2}").split_off(1)
    } else if (0.995..1.005).contains(&value) {
        "1.0".into()
    } else {
        short(value)
    }
}

/// Any number in about five characters.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    let text = match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => if v > 0.0 { "inf" } else { "-inf" }.into(),
        v if size < 9.995 => format!("{v:.2}"),
        v if size < 99.95 => format!("{v:.1}"),
        v if size < 9999.5 => format!("{v:.0}"),
        v => format!("{v:.0e}"),
    };
    if text == "-0.00" { "0.00".into() } else { text }
}

/// A number on an axis, without trailing zeros.
pub(crate) fn tick(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}").replace(".00e", "e").replace("0e", "e");
    }
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// JSON has no NaN and no infinity: NaN is written as `null`, an infinity as `"inf"` or `"-inf"`.
mod json {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    pub(super) enum Number<T> {
        Finite(T),
        Infinite(Infinite),
        Nan(()),
    }

    #[derive(Serialize, Deserialize)]
    pub(super) enum Infinite {
        #[serde(rename = "inf")]
        Plus,
        #[serde(rename = "-inf")]
        Minus,
    }

    macro_rules! convert {
        ($float:ty) => {
            impl From<$float> for Number<$float> {
                fn from(value: $float) -> Self {
                    match value {
                        v if v.is_finite() => Self::Finite(v),
                        v if v.is_nan() => Self::Nan(()),
                        v if v > 0.0 => Self::Infinite(Infinite::Plus),
                        _ => Self::Infinite(Infinite::Minus),
                    }
                }
            }
            impl From<Number<$float>> for $float {
                fn from(number: Number<$float>) -> Self {
                    match number {
                        Number::Finite(v) => v,
                        Number::Nan(()) => Self::NAN,
                        Number::Infinite(Infinite::Plus) => Self::INFINITY,
                        Number::Infinite(Infinite::Minus) => Self::NEG_INFINITY,
                    }
                }
            }
        };
    }
    convert!(f32);
    convert!(f64);
}

/// `Vec<f32>`, for `#[serde(with)]`.
pub(crate) mod list {
    use super::json::Number;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(values: &[f32], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(|&v| Number::from(v)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f32>, D::Error> {
        let numbers = Vec::<Number<f32>>::deserialize(d)?;
        Ok(numbers.into_iter().map(f32::from).collect())
    }
}

/// `Vec<(String, f64)>`, for `#[serde(with)]`.
pub(crate) mod pairs {
    use super::json::Number;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        pairs: &[(String, f64)],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(pairs.iter().map(|(word, p)| (word, Number::from(*p))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<(String, f64)>, D::Error> {
        let pairs = Vec::<(String, Number<f64>)>::deserialize(d)?;
        Ok(pairs.into_iter().map(|(word, p)| (word, p.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers() {
        for (value, text) in [
            (0.0, ".00"),
            (0.004, ".00"),
            (0.126, ".13"),
            (0.994, ".99"),
            (0.995, "1.0"),
            (1.0, "1.0"),
            (1.5, "1.50"),
            (-0.25, "-0.25"),
            (-0.001, "0.00"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (-123.4, "-123"),
            (-1.0e30, "-1e30"),
        ] {
            assert_eq!(unit(value), text, "{value}");
        }
    }

    #[test]
    fn axis_numbers() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.25, "0.25"),
            (100.0, "100"),
            (1500.0, "1500"),
            (1e-5, "1e-5"),
            (2.5e-5, "2.5e-5"),
            (2e7, "2e7"),
        ] {
            assert_eq!(tick(value), text);
        }
    }

    #[test]
    fn fractions() {
        assert_eq!(fraction(0.25, (0.0, 1.0)), Some(0.25));
        assert_eq!(fraction(-1.0, (0.0, 1.0)), Some(0.0));
        assert_eq!(fraction(f32::NAN, (0.0, 1.0)), None);
        assert_eq!(fraction(f32::NEG_INFINITY, (3.0, 9.0)), Some(0.0));
        assert_eq!(fraction(f32::INFINITY, (3.0, 9.0)), Some(1.0));
        assert_eq!(fraction(3.0, (3.0, 3.0)), Some(0.5));
        // The width of this range overflows f32.
        assert_eq!(fraction(0.0, (f32::MIN, f32::MAX)), Some(0.5));
        assert_eq!(finite_range(&[f32::NAN, f32::INFINITY]), None);
        assert_eq!(finite_range(&[2.0, f32::NAN, -1.0]), Some((-1.0, 2.0)));
    }
}
