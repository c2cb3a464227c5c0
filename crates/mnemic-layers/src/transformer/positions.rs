//! Sinusoidal positions (Vaswani et al. 2017, section 3.5).

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};

/// Where the sines and cosines stand, and their frequencies `ω_i`, i = 0 … d/2 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinusoidLayout {
    /// The paper's text: `PE(pos, 2i) = sin(pos ω_i)`, `PE(pos, 2i + 1) = cos(pos ω_i)`,
    /// `ω_i = 10000^{-2i/d}`.
    Interleaved,
    /// The same frequencies, all sines before all cosines: Marian's.
    Halves,
    /// All sines before all cosines with `ω_i = 10000^{-i/(d/2 - 1)}`: Tensor2Tensor's, the
    /// authors' code, and fairseq's.
    Tensor2Tensor,
}

/// The encodings of `positions`, `(n, d)`. They are added to the embeddings, which the paper scales
/// by `√d` first.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{SinusoidLayout, sinusoidal_positions};
/// let layout = SinusoidLayout::Interleaved;
/// let pe = sinusoidal_positions(0..3, 4, layout, DType::F64, &Device::Cpu)?;
/// assert_eq!(pe.to_vec2::<f64>()?[0], [0., 1., 0., 1.]);
/// // A later step of decoding asks for its own positions.
/// let step = sinusoidal_positions(2..3, 4, layout, DType::F64, &Device::Cpu)?;
/// assert_eq!(step.to_vec2::<f64>()?[0], pe.to_vec2::<f64>()?[2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When `dim` is 0 or odd.
pub fn sinusoidal_positions(
    positions: Range<usize>,
    dim: usize,
    layout: SinusoidLayout,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    if dim == 0 || !dim.is_multiple_of(2) {
        bail!("sinusoidal_positions: expected an even width, got {dim}");
    }
    let half = dim / 2;
    let last = match layout {
        SinusoidLayout::Tensor2Tensor => half.saturating_sub(1).max(1),
        _ => half,
    };
    let frequency = |i: usize| 10_000f64.powf(-(i as f64) / last as f64);
    let mut values = Vec::with_capacity(positions.len() * dim);
    let n = positions.len();
    for position in positions {
        let angles = (0..half).map(|i| position as f64 * frequency(i));
        match layout {
            SinusoidLayout::Interleaved => values.extend(angles.flat_map(|a| [a.sin(), a.cos()])),
            SinusoidLayout::Halves | SinusoidLayout::Tensor2Tensor => {
                values.extend(angles.clone().map(f64::sin));
                values.extend(angles.map(f64::cos));
            }
        }
    }
    Tensor::from_vec(values, (n, dim), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}
