//! Attention of many layers and heads over one text.

use serde::{Deserialize, Serialize};

use crate::{Error, HeatMap, Result, Scale};

/// Attention weights of every head of every layer between the same rows (queries) and columns (keys).
///
/// ```
/// use mnemic_pictures::{HeadLayer, HeadMaps, page};
///
/// let names = ["the", "cat"].map(String::from).to_vec();
/// let layer = HeadLayer { name: "layer 1".into(), heads: vec![vec![0.9, 0.1, 0.4, 0.6]] };
/// let maps = HeadMaps {
///     title: "Self-attention".into(),
///     row_label: "from".into(),
///     col_label: "to".into(),
///     rows: names.clone(),
///     cols: names,
///     layers: vec![layer],
/// };
/// let html = page("Attention", "", &[], &[maps.into()])?;
/// assert!(html.contains("Self-attention"));
/// # Ok::<(), mnemic_pictures::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeadMaps {
    /// Heading.
    pub title: String,
    /// What the rows are, such as `"from"`.
    pub row_label: String,
    /// What the columns are, such as `"to"`.
    pub col_label: String,
    /// Names of the rows, top first: the tokens that attend.
    pub rows: Vec<String>,
    /// Names of the columns, left first: the tokens that are attended to.
    pub cols: Vec<String>,
    /// The layers, lowest first.
    pub layers: Vec<HeadLayer>,
}

/// The heads of one layer of [`HeadMaps`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeadLayer {
    /// Name, such as `"layer 1"`.
    pub name: String,
    /// The weights of each head, row-major, `(rows, cols)`, from 0 to 1.
    pub heads: Vec<Vec<f32>>,
}

/// By how much rounding may take a weight out of `[0, 1]`.
const ROUNDING: f32 = 1e-3;

impl HeadMaps {
    /// Checks that there are layers with heads, each with one weight from 0 to 1 per cell.
    ///
    /// # Errors
    /// [`Error::NoHeads`] when there is no layer, or one without heads; [`Error::HeadCellCount`] when a head does not have
    /// `rows.len() * cols.len()` weights; [`Error::HeadWeight`] when a weight is NaN or not from 0 to 1.
    pub fn validate(&self) -> Result<()> {
        let title = || self.title.clone();
        if self.layers.is_empty() {
            return Err(Error::NoHeads { title: title(), layer: None });
        }
        let (rows, cols) = (self.rows.len(), self.cols.len());
        for HeadLayer { name, heads } in &self.layers {
            let layer = || name.clone();
            if heads.is_empty() {
                return Err(Error::NoHeads { title: title(), layer: Some(layer()) });
            }
            for (i, weights) in heads.iter().enumerate() {
                let head = i + 1;
                if weights.len() != rows * cols {
                    let weights = weights.len();
                    let (title, layer) = (title(), layer());
                    return Err(Error::HeadCellCount { title, layer, head, rows, cols, weights });
                }
                let bad = |w: &&f32| !(-ROUNDING..=1.0 + ROUNDING).contains(*w);
                if let Some(&weight) = weights.iter().find(bad) {
                    let (title, layer) = (title(), layer());
                    return Err(Error::HeadWeight { title, layer, head, weight });
                }
            }
        }
        Ok(())
    }

    /// For each layer the mean of its heads: what a terminal has room for.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn means(&self) -> Result<Vec<HeatMap>> {
        self.validate()?;
        let mean = |layer: &HeadLayer| {
            let share = 1.0 / layer.heads.len() as f32;
            let at = |i: usize| layer.heads.iter().map(|head| head[i]).sum::<f32>() * share;
            HeatMap {
                title: format!(
                    "{}, {} (mean of {} heads)",
                    self.title,
                    layer.name,
                    layer.heads.len()
                ),
                row_label: self.row_label.clone(),
                col_label: self.col_label.clone(),
                rows: self.rows.clone(),
                cols: self.cols.clone(),
                values: (0..self.rows.len() * self.cols.len()).map(at).collect(),
                scale: Scale::Unit,
            }
        };
        Ok(self.layers.iter().map(mean).collect())
    }
}
