//! A matrix of values with named rows and columns.

use serde::{Deserialize, Serialize};

use crate::number;
use crate::{Error, Result};

/// A matrix of values with named rows and columns: read weightings over time, an attention map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// Heading of the picture.
    pub title: String,
    /// What the rows are, such as `"memory location"`.
    pub row_label: String,
    /// What the columns are, such as `"time step"`.
    pub col_label: String,
    /// Names of the rows, top first.
    pub rows: Vec<String>,
    /// Names of the columns, left first.
    pub cols: Vec<String>,
    /// Values, row-major, `(rows, cols)`. NaN is drawn as such.
    #[serde(with = "number::list")]
    pub values: Vec<f32>,
    /// How values become colours.
    #[serde(default)]
    pub scale: Scale,
}

/// How the values of a [`HeatMap`] become colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// From 0 to 1, for weights and probabilities.
    #[default]
    Unit,
    /// From the smallest to the largest value of the map.
    Auto,
    /// Two colours on either side of 0, equally far in both directions.
    Diverging,
}

impl HeatMap {
    /// Checks that there is one value per cell.
    ///
    /// # Errors
    /// [`Error::CellCount`] when `values` does not have `rows.len() * cols.len()` entries.
    pub fn validate(&self) -> Result<()> {
        let (rows, cols) = (self.rows.len(), self.cols.len());
        if self.values.len() == rows * cols {
            return Ok(());
        }
        let title = self.title.clone();
        Err(Error::CellCount { title, rows, cols, values: self.values.len() })
    }

    /// Values at the two ends of the colour scale.
    pub(crate) fn range(&self) -> (f32, f32) {
        let range = number::finite_range(&self.values);
        match self.scale {
            Scale::Unit => (0.0, 1.0),
            Scale::Auto => range.unwrap_or((0.0, 1.0)),
            Scale::Diverging => {
                let size = range.map_or(0.0, |(lo, hi)| lo.abs().max(hi.abs()));
                let size = if size > 0.0 { size } else { 1.0 };
                (-size, size)
            }
        }
    }

    /// Short printed value of a cell.
    pub(crate) fn label(&self, value: f32) -> String {
        match self.scale {
            Scale::Unit => number::unit(f64::from(value)),
            Scale::Auto | Scale::Diverging => number::short(f64::from(value)),
        }
    }
}
