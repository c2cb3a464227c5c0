//! Masks of padded batches, and picking steps out of them.

use candle_core::{Device, Result, Tensor, bail};

/// 1 at the first `lengths[i]` places of row `i`, else 0: u8 `(b, n)`.
///
/// ```
/// use candle_core::Device;
/// let mask = mnemic_layers::length_mask(&[2, 0], 3, &Device::Cpu)?;
/// assert_eq!(mask.to_vec2::<u8>()?, [[1, 1, 0], [0, 0, 0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When a length exceeds `n`.
pub fn length_mask(lengths: &[usize], n: usize, device: &Device) -> Result<Tensor> {
    if let Some(bad) = lengths.iter().find(|&&l| l > n) {
        bail!("length_mask: length {bad} exceeds the {n} places");
    }
    let mask: Vec<u8> =
        lengths.iter().flat_map(|&l| (0..n).map(move |i| u8::from(i < l))).collect();
    Tensor::from_vec(mask, (lengths.len(), n), device)
}

/// The last valid step of each row of `xs` `(b, t, h)`: `(b, h)`; zeros for a row of length 0.
///
/// # Errors
/// When the number of lengths is not `b`, or a length exceeds `t`.
pub fn last_states(xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (b, t, _) = xs.dims3()?;
    if lengths.len() != b {
        bail!("last_states: {} lengths for a batch of {b}", lengths.len());
    }
    if let Some(bad) = lengths.iter().find(|&&l| l > t) {
        bail!("last_states: length {bad} exceeds the {t} steps");
    }
    let steps: Vec<Option<usize>> = lengths.iter().map(|l| l.checked_sub(1)).collect();
    pick(xs, &steps, 1)?.squeeze(1)
}

/// The steps `indices[i]` of row `i` of `xs` `(b, t, h)`, such as the states at the ends of
/// sentences: `(b, n, h)` with `n` the longest list. Missing ones are zeros.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let xs = Tensor::new(&[[[1f32], [2.], [3.]], [[4.], [5.], [6.]]], &Device::Cpu)?;
/// let facts = mnemic_layers::gather_steps(&xs, &[vec![0, 2], vec![1]])?;
/// assert_eq!(facts.to_vec3::<f32>()?, [[[1.], [3.]], [[5.], [0.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the number of lists is not `b`, or an index is not below `t`.
pub fn gather_steps(xs: &Tensor, indices: &[Vec<usize>]) -> Result<Tensor> {
    let (b, t, _) = xs.dims3()?;
    if indices.len() != b {
        bail!("gather_steps: {} lists of steps for a batch of {b}", indices.len());
    }
    if let Some(bad) = indices.iter().flatten().find(|&&i| i >= t) {
        bail!("gather_steps: step {bad} is not below the {t} steps");
    }
    let n = indices.iter().map(Vec::len).max().unwrap_or(0);
    let steps: Vec<Option<usize>> =
        indices.iter().flat_map(|row| (0..n).map(|k| row.get(k).copied())).collect();
    pick(xs, &steps, n)
}

/// `n` steps of each row; `None` gives zeros.
fn pick(xs: &Tensor, steps: &[Option<usize>], n: usize) -> Result<Tensor> {
    let (b, t, h) = xs.dims3()?;
    if b * t * n == 0 {
        return Tensor::zeros((b, n, h), xs.dtype(), xs.device());
    }
    let rows: Vec<u32> =
        steps.iter().enumerate().map(|(i, s)| (i / n * t + s.unwrap_or(0)) as u32).collect();
    let rows = Tensor::from_vec(rows, b * n, xs.device())?;
    let picked = xs.reshape((b * t, h))?.index_select(&rows, 0)?; // (b n, h)
    let picked = if steps.iter().all(Option::is_some) {
        picked
    } else {
        let there: Vec<u8> = steps.iter().map(|s| u8::from(s.is_some())).collect();
        let there = Tensor::from_vec(there, (b * n, 1), xs.device())?;
        there.broadcast_as((b * n, h))?.where_cond(&picked, &picked.zeros_like()?)?
    };
    picked.reshape((b, n, h))
}
