//! Sums over the rows of a matrix, in a fixed order: for the gradients of biases and weights that all rows share.

use candle_core::{DType, Result, Tensor, bail};

use super::{Launch, empty, suffix};

/// Threads of a block: known to the kernels.
pub(crate) const THREADS: usize = 256;
/// Blocks that keep a large device busy.
const BLOCKS: usize = 528;

/// How the blocks share a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Elements a thread loads at once.
    pub(crate) vector: usize,
    /// Threads side by side over the columns.
    pub(crate) lanes: usize,
    /// Blocks over the columns.
    pub(crate) tiles: usize,
    /// Parts of the rows that are summed apart.
    pub(crate) parts: usize,
}

impl Plan {
    /// A plan that depends on the shape alone, as the order of the sums does.
    pub(crate) fn new(rows: usize, columns: usize, dtype: DType) -> Self {
        let whole = 16 / dtype.size_in_bytes();
        let vector = if columns.is_multiple_of(whole) { whole } else { 1 };
        let lanes = columns.div_ceil(vector).next_power_of_two().min(32);
        let tiles = columns.div_ceil(vector * lanes);
        // A thread goes through some rows at least; few of them are not worth a second launch.
        let groups = THREADS / lanes;
        let parts = if rows <= 32 * groups {
            1
        } else {
            rows.div_ceil(8 * groups).min((BLOCKS / tiles).max(1))
        };
        Self { vector, lanes, tiles, parts }
    }

    /// For sums of parts, which lie in f32.
    fn last(columns: usize) -> Self {
        let lanes = columns.next_power_of_two().min(8);
        Self { vector: 1, lanes, tiles: columns.div_ceil(lanes), parts: 1 }
    }
}

/// The sums over all axes of a contiguous tensor but the last, (…, columns) to (columns), added in f32 and rounded to
/// `dtype`. One launch for few rows, else two; the same bits every time.
pub(crate) fn column_sums(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let columns = x.dims().last().copied().unwrap_or(1);
    if x.elem_count() == 0 {
        return Tensor::zeros(columns, dtype, x.device());
    }
    let rows = x.elem_count() / columns;
    let plan = Plan::new(rows, columns, x.dtype());
    if plan.parts > 1 {
        let parts = empty((plan.parts, columns), DType::F32, x.device())?;
        launch(x, &parts, rows, columns, plan)?;
        return sum_parts(&parts, dtype);
    }
    let narrow = if x.dtype() == DType::F32 || dtype == x.dtype() { dtype } else { DType::F32 };
    let sums = empty(columns, narrow, x.device())?;
    launch(x, &sums, rows, columns, plan)?;
    sums.to_dtype(dtype)
}

/// The sums of a few rows in f32, (parts, columns) to (columns), in one launch.
pub(crate) fn sum_parts(parts: &Tensor, dtype: DType) -> Result<Tensor> {
    let (rows, columns) = parts.dims2()?;
    let sums = empty(columns, dtype, parts.device())?;
    launch(parts, &sums, rows, columns, Plan::last(columns))?;
    Ok(sums)
}

fn launch(x: &Tensor, y: &Tensor, rows: usize, columns: usize, plan: Plan) -> Result<()> {
    if !x.is_contiguous() {
        bail!("column_sums: internal error: expected a contiguous tensor");
    }
    let kind = if plan.vector > 1 { "" } else { "single_" };
    let name = format!("columns_{kind}{}_{}", suffix(x.dtype())?, suffix(y.dtype())?);
    let launch = Launch::new("columns", name).grid(plan.tiles, plan.parts, 1).block(THREADS);
    let launch = launch.tensor(x).tensor(y).int(rows)?.int(columns)?;
    launch.int(plan.lanes)?.run(x.device())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use mnemic_testing::{assert_close, waves};

    use super::column_sums;
    use crate::cuda::tests::places;

    #[test]
    fn cuda() {
        let sizes = [(1, 1), (3, 5), (70, 64), (1000, 7), (3000, 65), (700, 264), (9000, 2)];
        for (rows, columns) in sizes {
            for (from, to) in [
                (DType::F32, DType::F32),
                (DType::F32, DType::BF16),
                (DType::F16, DType::F32),
                (DType::BF16, DType::BF16),
                (DType::F16, DType::BF16),
            ] {
                let x = waves(&[rows, columns], 1., 1., from);
                let wide = x.to_dtype(DType::F64).unwrap().sum(0).unwrap();
                for place in places("columns::cuda") {
                    let sums = |device: &Device| {
                        let sums = column_sums(&x.to_device(device).unwrap(), to).unwrap();
                        sums.to_device(&Device::Cpu).unwrap()
                    };
                    let (y, again) = (place.run(sums), place.run(sums));
                    assert_close("same bits", &y, &again, 0., 0.);
                    let tolerance = if to == DType::F32 { 1e-5 } else { 1e-2 };
                    let name = format!("({rows}, {columns}) {from:?} {to:?} {place:?}");
                    assert_close(&name, &y, &wide, tolerance, tolerance * (rows as f64).sqrt());
                }
            }
        }
    }
}
