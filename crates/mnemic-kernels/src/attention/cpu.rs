//! The fused path on the CPU: what the two passes share.
//!
//! A task takes a block of queries against blocks of the keys that they see. Sizes of blocks and the split into tasks
//! depend on shapes alone, so the number of threads changes no bit.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::rows::{Dropout, Overlap};
use super::{Attended, Attention, Bias, Mask, OP, Relative, Sizes, backward, forward, rows, scale};
use crate::fused::{self, Array, Backward, FusedOp, View};
use crate::matmul::{Mat, matmul};
use crate::real::{Real, buffer};
use crate::rng::Philox;
use crate::simd::{self, Level};
use crate::threads;

/// Queries in a block: few, so that little is computed in vain along the diagonal of a causal mask, and a multiple of the 6 columns
/// of `gemm`'s kernel. From 8 times that on, it would copy the other operand of each product.
pub(super) const ROWS: usize = 48;
/// Keys in a block, a multiple of the 64 rows of `gemm`'s kernel: a tile of f32 takes 72 KiB and stays in the second-level cache
/// with its operands.
pub(super) const COLS: usize = 384;

/// What sizes of products should be multiples of.
const WIDE: usize = 16;

/// The numbers in a block of products with relative vectors.
pub(super) fn band_len(rows: usize, cols: usize) -> usize {
    rows * (rows + cols + 2 * WIDE)
}

/// The operands: q, k, v, then those of the bias and the relative terms.
pub(super) fn operands<'a>(
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
    options: &Attention<'a>,
) -> Vec<&'a Tensor> {
    let mut all = vec![q, k, v];
    if let Bias::Full(t) | Bias::Distance(t) = options.bias {
        all.push(t);
    }
    match options.relative {
        Relative::None => {}
        Relative::Music(t) => all.push(t),
        Relative::Shaw { keys, values } => {
            all.push(keys);
            all.extend(values);
        }
    }
    all
}

pub(super) fn attention(
    sizes: Sizes,
    operands: &[&Tensor],
    options: &Attention<'_>,
) -> Result<Attended> {
    let op = Fused {
        sizes,
        scale: scale(options, sizes.d),
        causal: options.mask.causal,
        key_lengths: options.mask.key_lengths.map(<[usize]>::to_vec),
        window: options.mask.window,
        bias: match options.bias {
            Bias::None => BiasKind::None,
            Bias::Full(_) => BiasKind::Full,
            Bias::Alibi(slopes) => BiasKind::Alibi(slopes.to_vec()),
            Bias::Distance(_) => BiasKind::Distance,
        },
        relative: match options.relative {
            Relative::None => RelativeKind::None,
            Relative::Music(_) => RelativeKind::Music,
            Relative::Shaw { .. } => RelativeKind::Shaw,
        },
        dropout: options.dropout.filter(|(p, _)| *p > 0.),
    };
    let mut results = fused::apply(op, operands)?.into_iter();
    match (results.next(), results.next()) {
        (Some(output), Some(log_sum_exp)) => Ok(Attended { output, log_sum_exp }),
        _ => bail!("{OP}: internal error: results are missing"),
    }
}

enum BiasKind {
    None,
    Full,
    Alibi(Vec<f64>),
    Distance,
}

enum RelativeKind {
    None,
    Music,
    Shaw,
}

/// The options without their tensors.
struct Fused {
    sizes: Sizes,
    scale: f64,
    causal: bool,
    key_lengths: Option<Vec<usize>>,
    window: Option<(Option<usize>, Option<usize>)>,
    bias: BiasKind,
    relative: RelativeKind,
    dropout: Option<(f64, Philox)>,
}

impl FusedOp for Fused {
    const NAME: &'static str = OP;
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, inputs: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let Sizes { b, h, n_q, d_v, .. } = self.sizes;
        let (output, log_sum_exp) = forward::run(&self.call(inputs)?);
        Ok((vec![(output, vec![b, h, n_q, d_v]), (log_sum_exp, vec![b, h, n_q])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        backward::run(&self.call(pass.inputs)?, &pass)
    }
}

/// One call: operands and options in the type of the numbers.
pub(super) struct Call<'a, T: Real> {
    pub(super) sizes: Sizes,
    pub(super) scale: T,
    pub(super) mask: Mask<'a>,
    pub(super) q: &'a [T],
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
    /// `(1 or b, 1 or h, n_q, n_k)`.
    pub(super) full: Option<View<'a, T>>,
    /// `(h, n_q + n_k - 1)`.
    pub(super) distance: Option<Cow<'a, [T]>>,
    pub(super) music: Option<Music<'a, T>>,
    pub(super) shaw: Option<Shaw<'a, T>>,
    pub(super) dropout: Option<Dropout<T>>,
    pub(super) level: Level,
}

/// Music Transformer's vectors.
pub(super) struct Music<'a, T> {
    /// `(heads, l, d)`.
    pub(super) vectors: &'a [T],
    /// `(heads, d, l)`.
    pub(super) transposed: Vec<T>,
    pub(super) heads: usize,
    pub(super) l: usize,
}

/// Shaw's vectors: `(rows, d)` and `(rows, d_v)`.
#[derive(Clone, Copy)]
pub(super) struct Shaw<'a, T> {
    pub(super) keys: &'a [T],
    pub(super) values: Option<&'a [T]>,
    pub(super) rows: usize,
}

impl Fused {
    fn call<'a, T: Real>(&'a self, inputs: &[View<'a, T>]) -> Result<Call<'a, T>> {
        let sizes = self.sizes;
        let &[q, k, v, ref more @ ..] = inputs else {
            bail!("{OP}: internal error: {} operands", inputs.len())
        };
        let mut more = more.iter().copied();
        let (mut full, mut distance) = (None, None);
        match &self.bias {
            BiasKind::None => {}
            BiasKind::Full => full = more.next(),
            BiasKind::Distance => distance = more.next().map(|t| Cow::Borrowed(t.data)),
            BiasKind::Alibi(slopes) => distance = Some(Cow::Owned(alibi(&sizes, slopes))),
        }
        let first = more.next();
        let (mut music, mut shaw) = (None, None);
        match (&self.relative, first) {
            (RelativeKind::Music, Some(View { data, dims: &[heads, l, d] })) => {
                let transposed = transpose_all(data, heads, l, d);
                music = Some(Music { vectors: data, transposed, heads, l });
            }
            (RelativeKind::Shaw, Some(View { data, dims: &[rows, _] })) => {
                shaw = Some(Shaw { keys: data, values: more.next().map(|t| t.data), rows });
            }
            _ => {}
        }
        Ok(Call {
            sizes,
            scale: T::from_f64(self.scale),
            mask: Mask {
                causal: self.causal,
                key_lengths: self.key_lengths.as_deref(),
                window: self.window,
            },
            q: q.data,
            k: k.data,
            v: v.data,
            full,
            distance,
            music,
            shaw,
            dropout: self.dropout.map(|(p, rng)| Dropout::new(p, rng)),
            level: simd::level(),
        })
    }
}

/// ALiBi as a table of distances.
fn alibi<T: Real>(sizes: &Sizes, slopes: &[f64]) -> Vec<T> {
    let &Sizes { n_q, n_k, .. } = sizes;
    let places = (n_q + n_k).saturating_sub(1);
    // Place `j - i + n_q - 1`, and `j - i - δ = place + 1 - n_k`.
    let far = |place: usize| (place as f64 + 1. - n_k as f64).abs();
    slopes.iter().flat_map(|&m| (0..places).map(move |p| T::from_f64(-m * far(p)))).collect()
}

/// Transposes `count` matrices `(n, d)`.
pub(super) fn transpose_all<T: Real>(xs: &[T], count: usize, n: usize, d: usize) -> Vec<T> {
    let mut out = buffer(count * n * d);
    let tasks = pieces(&mut out, count, n * d).into_iter().enumerate().collect();
    for_each(tasks, n * d, |(i, out): (usize, &mut [T])| {
        transpose(&xs[i * n * d..(i + 1) * n * d], n, d, out);
    });
    out
}

/// `out (d, n)` from `xs (n, d)`, with contiguous runs of 16 written at a time.
pub(super) fn transpose<T: Real>(xs: &[T], n: usize, d: usize, out: &mut [T]) {
    const RUN: usize = 16;
    let whole = n / RUN * RUN;
    for (row, block) in xs[..whole * d].chunks_exact(RUN * d).enumerate() {
        for c in 0..d {
            let at = c * n + row * RUN;
            for (x, r) in out[at..at + RUN].iter_mut().zip(0..RUN) {
                *x = block[r * d + c];
            }
        }
    }
    for r in whole..n {
        for c in 0..d {
            out[c * n + r] = xs[r * d + c];
        }
    }
}

/// `count` pieces of `size` numbers each, also where that is 0.
pub(super) fn pieces<T>(mut xs: &mut [T], count: usize, size: usize) -> Vec<&mut [T]> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let (now, later) = std::mem::take(&mut xs).split_at_mut(size);
        all.push(now);
        xs = later;
    }
    all
}

/// Widens a range below `n` to multiples of 16: other sizes make a product copy its operand.
fn widen(range: Range<usize>, n: usize) -> Range<usize> {
    range.start / WIDE * WIDE..range.end.next_multiple_of(WIDE).min(n)
}

/// Runs the tasks, each of `work` multiplications: on threads where there is enough to do.
pub(super) fn for_each<I: Send>(tasks: Vec<I>, work: usize, f: impl Fn(I) + Sync + Send) {
    if tasks.len().saturating_mul(work) < 1 << 18 {
        tasks.into_iter().for_each(f);
    } else {
        threads::for_each(tasks, f);
    }
}

/// Where a tile lies: queries `row..row + rows` of a head, keys `col..col + cols`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    /// `batch · h + head`.
    pub(super) head: usize,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) col: usize,
    pub(super) cols: usize,
}

/// The rows of Music Transformer's table whose distances occur in a tile.
#[derive(Debug, Clone)]
pub(super) struct Band {
    /// Which table.
    pub(super) table: usize,
    /// Its rows; empty where the tile lies beyond the table.
    pub(super) range: Range<usize>,
}

impl<T: Real> Call<'_, T> {
    pub(super) fn low() -> T {
        T::from_f64(f64::NEG_INFINITY)
    }

    /// The keys that any of these queries sees, widened to whole vectors.
    pub(super) fn span(&self, head: usize, queries: Range<usize>) -> Range<usize> {
        let Sizes { h, n_q, n_k, .. } = self.sizes;
        let keys = |i| self.mask.keys(head / h, i, n_q, n_k);
        let (start, end) = (keys(queries.start).start, keys(queries.end - 1).end);
        if start < end { widen(start..end, n_k) } else { start..start }
    }

    /// `shift` such that key `j` and query `i` meet at place `j + shift` of a table of distances whose place `zero` is
    /// distance 0, `j = i + δ`.
    #[inline(always)]
    fn shift(&self, i: usize, zero: usize) -> isize {
        (zero + self.sizes.n_q) as isize - (i + self.sizes.n_k) as isize
    }

    /// The products of a tile's queries `q (rows, d)` with the vectors of its distances, `(rows, band)`, into `out`.
    pub(super) fn band(&self, music: &Music<'_, T>, tile: Tile, q: &[T], out: &mut [T]) -> Band {
        let Sizes { h, d, .. } = self.sizes;
        let clip = |at: isize| at.clamp(0, music.l as isize) as usize;
        let col = tile.col as isize;
        let first = clip(col + self.shift(tile.row + tile.rows - 1, music.l - 1));
        let last = clip(col + tile.cols as isize + self.shift(tile.row, music.l - 1));
        let table = if music.heads == 1 { 0 } else { tile.head % h };
        let range = if first < last { widen(first..last, music.l) } else { first..first };
        if !range.is_empty() {
            let vectors = &music.transposed[table * music.l * d + range.start..];
            matmul(
                (tile.rows, range.len(), d),
                out,
                range.len(),
                false,
                Mat { data: q, row: d, col: 1 },
                Mat { data: vectors, row: music.l, col: 1 },
                gemm::Parallelism::None,
            );
        }
        Band { table, range }
    }

    /// How row `r` of a tile lies on its band.
    #[inline(always)]
    pub(super) fn on_band(&self, l: usize, tile: Tile, band: &Band, r: usize) -> Overlap {
        let shift = self.shift(tile.row + r, l - 1) + tile.col as isize - band.range.start as isize;
        Overlap::new(tile.cols, shift, band.range.len())
    }

    /// How row `r` of a tile lies on Shaw's tables of `places` rows.
    #[inline(always)]
    pub(super) fn on_clipped(&self, tile: Tile, r: usize, places: usize) -> Overlap {
        Overlap::new(tile.cols, self.shift(tile.row + r, places / 2) + tile.col as isize, places)
    }

    /// Where row `r` of a tile begins in a head's row of the table of distances.
    #[inline(always)]
    pub(super) fn on_distances(&self, tile: Tile, r: usize) -> usize {
        tile.col + self.sizes.n_q - 1 - (tile.row + r)
    }

    /// Where row `r` of a tile begins in the full bias.
    #[inline(always)]
    pub(super) fn on_full(&self, dims: &[usize], tile: Tile, r: usize) -> usize {
        let Sizes { h, n_q, n_k, .. } = self.sizes;
        let slice = full_slice(dims, tile.head / h, tile.head % h);
        (slice * n_q + tile.row + r) * n_k + tile.col
    }

    /// The number of a tile's first weight in row `r` for dropout.
    #[inline(always)]
    pub(super) fn number(&self, tile: Tile, r: usize) -> u64 {
        let Sizes { n_q, n_k, .. } = self.sizes;
        ((tile.head * n_q + tile.row + r) * n_k + tile.col) as u64
    }

    /// Adds to row `r` of scores what options ask for, and hides what the query does not see.
    #[inline(always)]
    pub(super) fn finish_scores(&self, tile: Tile, r: usize, terms: &Terms<'_, T>, row: &mut [T]) {
        let Sizes { h, n_q, n_k, .. } = self.sizes;
        if let (Some(music), Some((band, products))) = (&self.music, &terms.band) {
            let width = band.range.len();
            let overlap = self.on_band(music.l, tile, band, r);
            overlap.spread(row, &products[r * width..(r + 1) * width]);
        }
        if let (Some(shaw), Some(products)) = (&self.shaw, terms.clipped) {
            let products = &products[r * shaw.rows..(r + 1) * shaw.rows];
            self.on_clipped(tile, r, shaw.rows).spread_clipped(row, products);
        }
        if let Some(table) = &self.distance {
            let at = tile.head % h * (n_q + n_k - 1) + self.on_distances(tile, r);
            rows::add(row, &table[at..at + tile.cols]);
        }
        if let Some(full) = self.full {
            let at = self.on_full(full.dims, tile, r);
            rows::add(row, &full.data[at..at + tile.cols]);
        }
        let keys = self.mask.keys(tile.head / h, tile.row + r, n_q, n_k);
        let start = keys.start.clamp(tile.col, tile.col + tile.cols) - tile.col;
        let end = keys.end.clamp(tile.col, tile.col + tile.cols) - tile.col;
        row[..start].fill(Self::low());
        row[end.max(start)..].fill(Self::low());
    }
}

/// Products of a tile's queries with relative vectors.
pub(super) struct Terms<'a, T> {
    pub(super) band: Option<(Band, &'a [T])>,
    /// `(rows, places)`.
    pub(super) clipped: Option<&'a [T]>,
}

/// Which matrix of a bias `(1 or b, 1 or h, n_q, n_k)` belongs to a batch row and head.
pub(super) fn full_slice(dims: &[usize], batch: usize, head: usize) -> usize {
    let (batch, head) = (batch.min(dims[0] - 1), head.min(dims[1] - 1));
    batch * dims[1] + head
}
