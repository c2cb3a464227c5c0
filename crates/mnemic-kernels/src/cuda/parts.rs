//! Sums of what several blocks have left, and copies between a tensor and its parts.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::{Launch, TABLE, suffix};

/// Blocks of a launch that walks over `work` pieces, 256 threads each, with a stride.
pub(crate) fn blocks(work: usize) -> usize {
    work.div_ceil(256).min(132 * 16)
}

/// How many bytes from the start of its storage a contiguous tensor lies, as far as alignment goes: 16 for a whole one.
pub(crate) fn aligned(t: &Tensor, bytes: usize) -> bool {
    (t.layout().start_offset() * t.dtype().size_in_bytes()).is_multiple_of(bytes)
}

/// The sums over the rows of `parts` (rows, size) in f32, laid one after the other into `outputs`, of one type.
pub(crate) fn sum_parts_into(parts: &Tensor, outputs: &[&Tensor]) -> Result<()> {
    let (rows, size) = parts.dims2()?;
    let Some(first) = outputs.first() else { bail!("sum_parts_into: internal error: no outputs") };
    let ends = ends(outputs.iter().map(|t| t.elem_count()));
    Launch::new("parts", format!("parts_sum_{}", suffix(first.dtype())?))
        .grid(size.div_ceil(32), 1, 1)
        .block(256)
        .tensor(parts)
        .table(outputs.iter().map(|t| Some(*t)))?
        .numbers(ends)
        .int(outputs.len())?
        .int(rows)?
        .int(size)?
        .run(parts.device())
}

/// Where parts of these sizes end when they lie side by side.
fn ends(sizes: impl IntoIterator<Item = usize>) -> Vec<u64> {
    let mut end = 0;
    sizes.into_iter().map(|size| (end += size as u64, end).1).collect()
}

/// Which way [`copy`] goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the parts to the whole; an absent one is read as zeros.
    In,
    /// From the whole to the parts; an absent one is left out.
    Out,
}

/// Copies between `whole` (rows, sum of widths) and parts, each (rows, its width), all contiguous and of one type.
pub(crate) fn copy(
    way: Way,
    whole: &Tensor,
    rows: usize,
    parts: &[(Option<&Tensor>, usize)],
) -> Result<()> {
    let dtype = whole.dtype();
    let total: usize = parts.iter().map(|(_, width)| width).sum();
    let size = dtype.size_in_bytes();
    let tensors = || parts.iter().filter_map(|(t, _)| *t).chain([whole]);
    let wide = parts.iter().all(|(_, width)| (width * size).is_multiple_of(16))
        && tensors().all(|t| aligned(t, 16));
    let unit = match (wide, dtype) {
        (true, _) => 16,
        (_, DType::F32 | DType::F16 | DType::BF16) => size,
        (_, other) => bail!("internal error: no copies of {other:?}"),
    };
    let units = |width: usize| width * size / unit;
    let mut first = 0;
    for parts in parts.chunks(TABLE) {
        let ends = ends(parts.iter().map(|(_, width)| units(*width)));
        let span = ends.last().copied().unwrap_or(0) as usize;
        Launch::new("parts", format!("parts_copy_{unit}"))
            .grid(blocks(rows * span), 1, 1)
            .block(256)
            .table(parts.iter().map(|(t, _)| *t))?
            .numbers(ends)
            .tensor(whole)
            .int(rows)?
            .int(parts.len())?
            .int(first)?
            .int(units(total))?
            .flag(way == Way::Out)
            .run(whole.device())?;
        first += span;
    }
    Ok(())
}
