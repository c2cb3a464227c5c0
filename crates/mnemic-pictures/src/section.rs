//! What a page shows beside traces.

use crate::{HeadMaps, HeatMap};

/// A further part of a [`page`](crate::page()).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Section {
    /// A table of names and values.
    Facts(Facts),
    /// A line chart.
    Curve(Curve),
    /// A heat map.
    HeatMap(HeatMap),
    /// Attention of all layers and heads.
    HeadMaps(HeadMaps),
}

/// A table of names and values: model, recipe, seed, commit, test error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Heading.
    pub title: String,
    /// Names and values, top first.
    pub rows: Vec<(String, String)>,
}

/// A line chart, such as the loss over the steps of a training run.
///
/// ```
/// use mnemic_pictures::{Curve, Series};
///
/// let loss = Series { name: "train".into(), points: vec![(0.0, 2.9), (1.0, 0.8)] };
/// let curve = Curve {
///     title: "Training".into(),
///     x_label: "epoch".into(),
///     y_label: "loss (nats)".into(),
///     log_y: true,
///     series: vec![loss],
/// };
/// assert_eq!(curve.series.len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Heading.
    pub title: String,
    /// What the horizontal axis is, with its unit.
    pub x_label: String,
    /// What the vertical axis is, with its unit.
    pub y_label: String,
    /// Whether the vertical axis is logarithmic; values that are not positive are then gaps.
    pub log_y: bool,
    /// One or more lines, told apart by colour and dashes.
    pub series: Vec<Series>,
}

/// One line of a [`Curve`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Name, printed at the end of the line.
    pub name: String,
    /// Points `(x, y)` from left to right; a point that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
}

impl From<Facts> for Section {
    fn from(facts: Facts) -> Self {
        Self::Facts(facts)
    }
}

impl From<Curve> for Section {
    fn from(curve: Curve) -> Self {
        Self::Curve(curve)
    }
}

impl From<HeatMap> for Section {
    fn from(map: HeatMap) -> Self {
        Self::HeatMap(map)
    }
}

impl From<HeadMaps> for Section {
    fn from(maps: HeadMaps) -> Self {
        Self::HeadMaps(maps)
    }
}
