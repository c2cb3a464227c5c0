//! Rotary positions (Su et al. 2021): the angles of places, and queries and keys turned by them.

use candle_core::{DType, Device, Result, Tensor, bail};
pub use mnemic_kernels::rotary::Layout as RotaryLayout;
use mnemic_kernels::rotary::rotary;

/// The frequencies of rotary positions: pair `j` of place `p` is turned by the angle `p ω_j`, with `ω_j = θ^(-2j/r)` for `r` numbers.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::Rotary;
/// let rotary = Rotary::new(4, 10_000.)?;
/// assert_eq!(rotary.frequencies(), [1., 0.01]);
/// let tables = rotary.tables(&[vec![0, 1, 2]], DType::F32, &Device::Cpu)?;
/// let q = Tensor::ones((1, 2, 3, 4), DType::F32, &Device::Cpu)?; // (b, h, n, d)
/// assert_eq!(tables.turn(&q)?.dims(), [1, 2, 3, 4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rotary {
    frequencies: Vec<f64>,
    layout: RotaryLayout,
}

impl Rotary {
    /// The frequencies of the paper for `r` numbers of each head, its pairs in halves.
    ///
    /// # Errors
    /// When `r` is odd or 0, or `theta` is not a positive number.
    pub fn new(r: usize, theta: f64) -> Result<Self> {
        if r == 0 || !r.is_multiple_of(2) || !(theta > 0. && theta.is_finite()) {
            bail!("rotary: expected an even width and a positive θ, got {r} and {theta}");
        }
        let frequency = |j: usize| theta.powf(-2. * j as f64 / r as f64);
        Ok(Self { frequencies: (0..r / 2).map(frequency).collect(), layout: RotaryLayout::Halves })
    }

    /// With other pairs.
    pub fn with_layout(self, layout: RotaryLayout) -> Self {
        Self { layout, ..self }
    }

    /// With every frequency changed by `f`, as ways to longer texts do.
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { frequencies: self.frequencies.into_iter().map(f).collect(), ..self }
    }

    /// The frequencies `ω`.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Cosines and sines of positions, one row or `b` rows of `n` places. Frequencies and angles are rounded to 32 bits, as
    /// `transformers` does, whose numbers at far places depend on it.
    ///
    /// # Errors
    /// When the rows differ in length.
    pub fn tables(
        &self,
        positions: &[Vec<u32>],
        dtype: DType,
        device: &Device,
    ) -> Result<RotaryTables> {
        let n = positions.first().map_or(0, Vec::len);
        if positions.iter().any(|row| row.len() != n) {
            bail!("rotary: expected rows of {n} positions each");
        }
        let angles = positions
            .iter()
            .flatten()
            .flat_map(|&p| self.frequencies.iter().map(move |&w| f64::from(w as f32 * p as f32)));
        let angles: Vec<f64> = angles.collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&x| f(x) as f32).collect();
            let shape = (positions.len(), n, self.frequencies.len());
            Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
        };
        Ok(RotaryTables { cos: table(f64::cos)?, sin: table(f64::sin)?, layout: self.layout })
    }
}

/// Cosines and sines of the places of a batch; [`Rotary::tables`] makes them, once for all layers.
#[derive(Debug, Clone)]
pub struct RotaryTables {
    /// `(1 or b, n, r/2)`.
    cos: Tensor,
    sin: Tensor,
    layout: RotaryLayout,
}

impl RotaryTables {
    /// Queries or keys `(b, h, n, d)`, turned.
    ///
    /// # Errors
    /// When the shape is not that of the places.
    pub fn turn(&self, xs: &Tensor) -> Result<Tensor> {
        rotary(xs, &self.cos, &self.sin, self.layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_positions_of_their_own() {
        let rotary = Rotary::new(2, 100.).unwrap();
        let tables =
            rotary.tables(&[vec![0, 0, 1], vec![0, 1, 2]], DType::F64, &Device::Cpu).unwrap();
        let xs = Tensor::new(&[[[[1f64, 0.]; 3]], [[[1., 0.]; 3]]], &Device::Cpu).unwrap();
        let ys = tables.turn(&xs).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (pair, angle) in ys.chunks(2).zip([0f64, 0., 1., 0., 1., 2.]) {
            assert!((pair[0] - angle.cos()).abs() < 1e-7 && (pair[1] - angle.sin()).abs() < 1e-7);
        }
        let halved = rotary.map(|w| w / 2.);
        assert_eq!(halved.frequencies(), [0.5]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (r, theta) in [(0, 1e4), (3, 1e4), (4, 0.), (4, f64::NAN)] {
            assert!(Rotary::new(r, theta).unwrap_err().to_string().contains("even width"));
        }
        let rotary = Rotary::new(2, 1e4).unwrap();
        assert!(rotary.tables(&[vec![1], vec![]], DType::F32, &Device::Cpu).is_err());
    }
}
