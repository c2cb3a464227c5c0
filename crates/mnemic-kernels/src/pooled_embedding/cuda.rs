//! The CUDA path. Ids are not looked at on the host: one that is not below the table's rows gives NaN and gets no gradient.

use candle_core::{DType, Result, Tensor};

use crate::cuda::{
    DeviceOp, Launch, Pass, aligned, apply1, blocks, empty, empty_like, suffix, sum_parts, takes,
};

/// Warps of a block of the backward pass, each with sums of its own.
const WARPS: usize = 4;
/// Rows of the table that a block of the backward pass has in shared memory.
const TILE: usize = 256;
/// As many blocks of the backward pass keep a device busy.
const BLOCKS: usize = 264;

/// Whether the kernels can take these operands.
pub(super) fn can(table: &Tensor, ids: &Tensor, weights: Option<&Tensor>) -> bool {
    let operands: Vec<&Tensor> = std::iter::once(table).chain(weights).collect();
    takes(&operands) && ids.elem_count() > 0 && ids.device().same_device(table.device())
}

/// `ids` in groups of `words` to vectors of shape `(outer, d)`.
pub(super) fn pooled_embedding(
    table: &Tensor,
    ids: &Tensor,
    words: usize,
    outer: &[usize],
    weights: Option<&Tensor>,
    padding: Option<u32>,
) -> Result<Tensor> {
    let (_, d) = table.dims2()?;
    let padding = u64::from(padding.unwrap_or(u32::MAX));
    let op = PooledOp { ids: ids.contiguous()?, words, padding, shape: [outer, &[d]].concat() };
    let operands: Vec<&Tensor> = std::iter::once(table).chain(weights).collect();
    apply1(op, &operands)
}

/// A table `(v, d)` and perhaps weights `(words, d)` to the sums of `words` rows each.
struct PooledOp {
    ids: Tensor,
    words: usize,
    padding: u64,
    shape: Vec<usize>,
}

impl PooledOp {
    fn groups(&self) -> usize {
        self.ids.elem_count() / self.words
    }

    fn d_table(&self, table: &Tensor, weights: Option<&Tensor>, dy: &Tensor) -> Result<Tensor> {
        let ((v, d), total) = (table.dims2()?, self.ids.elem_count());
        let tile = v.min(TILE);
        let (columns, tiles) = (d.div_ceil(32), v.div_ceil(tile));
        // Small tables leave most of a device idle: the ids are shared out too.
        let chunks = (BLOCKS / (columns * tiles)).min(total.div_ceil(32 * WARPS)).max(1);
        let per_chunk = total.div_ceil(chunks).next_multiple_of(32 * WARPS);
        let chunks = total.div_ceil(per_chunk);
        let parts = empty((chunks, v * d), DType::F32, table.device())?;
        Launch::new(FILE, format!("pooled_embedding_backward_{}", suffix(table.dtype())?))
            .grid(columns, tiles, chunks)
            .block(32 * WARPS)
            .shared(WARPS * tile * 32 * 4)
            .tensor(&self.ids)
            .optional(weights)
            .tensor(dy)
            .tensor(&parts)
            .int(total)?
            .int(self.words)?
            .int(d)?
            .int(v)?
            .int(tile)?
            .int(per_chunk)?
            .long(self.padding)
            .run(table.device())?;
        if chunks == 1 && table.dtype() == DType::F32 {
            return Ok(parts);
        }
        sum_parts(&parts, table.dtype())
    }

    fn d_weights(&self, table: &Tensor, weights: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (v, d) = table.dims2()?;
        let sum = empty_like(weights)?;
        Launch::new(FILE, format!("pooled_embedding_weights_{}", suffix(table.dtype())?))
            .grid(d.div_ceil(32), self.words, 1)
            .block(256)
            .tensor(table)
            .tensor(&self.ids)
            .tensor(dy)
            .tensor(&sum)
            .int(self.groups())?
            .int(self.words)?
            .int(d)?
            .int(v)?
            .long(self.padding)
            .run(table.device())?;
        Ok(sum)
    }
}

const FILE: &str = "pooled_embedding";

impl DeviceOp for PooledOp {
    const NAME: &'static str = FILE;
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let (table, weights) = (&inputs[0], inputs.get(1));
        let (v, d) = table.dims2()?;
        let y = empty(self.shape.as_slice(), table.dtype(), table.device())?;
        let pack = 16 / table.dtype().size_in_bytes();
        let packed = d.is_multiple_of(pack) && inputs.iter().all(|t| aligned(t, 16));
        let (width, end) = if packed { (d / pack, "_packed") } else { (d, "") };
        Launch::new(FILE, format!("pooled_embedding_forward_{}{end}", suffix(table.dtype())?))
            .grid(blocks(self.groups() * width), 1, 1)
            .block(256)
            .tensor(table)
            .tensor(&self.ids)
            .optional(weights)
            .tensor(&y)
            .int(self.groups())?
            .int(self.words)?
            .int(width)?
            .int(v)?
            .long(self.padding)
            .run(table.device())?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (table, weights) = (&pass.inputs[0], pass.inputs.get(1));
        let Some(dy) = &pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        let mut all = vec![None];
        if pass.wanted[0] {
            all[0] = Some(self.d_table(table, weights, dy)?);
        }
        if let Some(weights) = weights {
            let d_weights = || self.d_weights(table, weights, dy);
            all.push(pass.wanted[1].then(d_weights).transpose()?);
        }
        Ok(all)
    }
}
