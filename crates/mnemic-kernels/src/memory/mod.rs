//! Reading, writing and addressing an external memory with soft weightings: the Neural Turing Machine's (Graves et al. 2014,
//! arXiv 1410.5401, section 3). Stacks, queues and lists have modules of their own.
//!
//! Letters: b batch, h heads, n slots, w width of a slot, S largest shift.

mod access;
pub mod action_stack;
mod address;
mod blend;
mod cosine;
pub mod dnc;
pub mod plain;
mod select;
pub mod stack;
mod step;
mod tape;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// Added to the product of the norms in the cosine, so that an empty slot divides by no zero.
pub const COSINE_EPS: f64 = 1e-8;

/// The smallest weight whose logarithm is taken when weightings are sharpened.
pub const SMALLEST: f64 = 1e-30;

/// The numbers that a head emits for [`address`]: key, strength, gate, `2S + 1` shifts, sharpening.
///
/// ```
/// assert_eq!(mnemic_kernels::memory::num_controls(20, 1), 26);
/// ```
pub fn num_controls(width: usize, max_shift: usize) -> usize {
    width + 2 * max_shift + 4
}

/// The weightings of the heads, `(b, h, n)`, over `memory (b, n, w)`, from those before, `previous (b, h, n)`, and what the heads emit, `controls (b, h, w + 2S +
/// 4)` (section 3.3). With the controls' parts `k̂ (w)`, `β̂`, `ĝ`, `ŝ (2S + 1)`, `γ̂`:
///
/// - key `k = tanh k̂`, strength `β = softplus β̂`, gate `g = σ(ĝ)`, shift `s = softmax ŝ`, sharpening `γ = 1 + softplus γ̂`;
/// - content `w^c = softmax_i(β k·M_i / (‖k‖ ‖M_i‖ + ε))` (eq. 5-6);
/// - interpolation `w^g = g w^c + (1 - g) w_{t-1}` (eq. 7);
/// - shift `w̃_i = Σ_j s_j w^g_{(i - j) mod n}`, j = -S … S (eq. 8): all of `s_1` moves every weight one slot up;
/// - sharpening `w_i = w̃_i^γ / Σ_j w̃_j^γ` (eq. 9), by logarithms, so that no sum becomes zero.
///
/// The functions that keep the controls in their ranges are those in common use; the paper gives the ranges only.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::memory::{address, num_controls};
/// let memory = Tensor::full(1e-6f32, (2, 5, 3), &Device::Cpu)?;
/// let before = Tensor::full(0.2f32, (2, 1, 5), &Device::Cpu)?;
/// let controls = Tensor::zeros((2, 1, num_controls(3, 1)), DType::F32, &Device::Cpu)?;
/// let weights = address(&memory, &before, &controls, 1)?;
/// assert!((weights.sum_all()?.to_scalar::<f32>()? - 2.).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them, or a shift would go round the whole memory.
pub fn address(
    memory: &Tensor,
    previous: &Tensor,
    controls: &Tensor,
    max_shift: usize,
) -> Result<Tensor> {
    let (b, n, w) = memory.dims3()?;
    let (_, h, _) = previous.dims3()?;
    let expected = [b, h, num_controls(w, max_shift)];
    if previous.dims() != [b, h, n] || controls.dims() != expected {
        bail!(
            "address: expected weightings ({b}, h, {n}) and controls {expected:?} for a memory {:?}, got {:?} and {:?}",
            memory.dims(),
            previous.dims(),
            controls.dims()
        );
    }
    if max_shift >= n || w == 0 || h == 0 {
        bail!(
            "address: expected heads, a width and more slots than the largest shift {max_shift}, got {h}, {w} and {n}"
        );
    }
    let inputs = [memory, previous, controls];
    match b > 0 && fused::takes(&inputs) {
        true => fused::apply1(address::AddressOp { max_shift }, &inputs),
        false => plain::address(memory, previous, controls, max_shift),
    }
}

/// What the heads read: `r = Σ_i w_i M_i` (eq. 2) for `memory (b, n, w)` and `weights (b, h, n)`: `(b, h, w)`.
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn read(memory: &Tensor, weights: &Tensor) -> Result<Tensor> {
    check("read", memory, weights)?;
    let inputs = [memory, weights];
    match memory.elem_count() > 0 && weights.elem_count() > 0 && fused::takes(&inputs) {
        true => fused::apply1(access::ReadOp, &inputs),
        false => plain::read(memory, weights),
    }
}

/// The memory `(b, n, w)` after all heads have erased and then added (eq. 3-4): `M_i ∘ Π_h (1 - w_{h,i} e_h) + Σ_h w_{h,i} a_h` for `weights (b, h, n)`, and `erase`
/// and `add` of `(b, h, w)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::memory::{read, write};
/// let memory = Tensor::new(&[[[1f32, 2.], [3., 4.]]], &Device::Cpu)?;
/// let second = Tensor::new(&[[[0f32, 1.]]], &Device::Cpu)?;
/// let (erase, add) = (Tensor::new(&[[[1f32, 0.]]], &Device::Cpu)?, Tensor::new(&[[[9f32, 0.]]], &Device::Cpu)?);
/// let memory = write(&memory, &second, &erase, &add)?;
/// assert_eq!(memory.to_vec3::<f32>()?, [[[1., 2.], [9., 4.]]]);
/// assert_eq!(read(&memory, &second)?.to_vec3::<f32>()?, [[[9., 4.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn write(memory: &Tensor, weights: &Tensor, erase: &Tensor, add: &Tensor) -> Result<Tensor> {
    check("write", memory, weights)?;
    let expected = [weights.dim(0)?, weights.dim(1)?, memory.dim(2)?];
    if erase.dims() != expected || add.dims() != expected {
        let got = (erase.dims(), add.dims());
        bail!("write: expected what is erased and added as {expected:?}, got {got:?}");
    }
    let inputs = [memory, weights, erase, add];
    let fits = (1..=access::MOST_HEADS).contains(&weights.dim(1)?) && memory.elem_count() > 0;
    match fits && fused::takes(&inputs) {
        true => fused::apply1(access::WriteOp, &inputs),
        false => plain::write(memory, weights, erase, add),
    }
}

/// The memory, the weightings and what was read after a step of [`step`].
#[derive(Debug, Clone)]
pub struct Step {
    /// Of all heads, those that read first, `(b, r + k, n)`.
    pub weights: Tensor,
    /// `(b, r, w)`.
    pub read: Tensor,
    /// `(b, n, w)`.
    pub memory: Tensor,
}

/// A step of `r` heads that read and `k` that write, from what they emit: [`address`] all of them, [`read`] the memory as it was, [`write()`] it. A row of `emitted`
/// `(b, e)` has the controls of each head, what each writing head erases before a sigmoid, and what it adds before a tanh: `e = (r + k) (w + 2S + 4) + 2 k w`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::memory::step;
/// let memory = Tensor::full(1e-6f32, (2, 5, 3), &Device::Cpu)?;
/// let before = Tensor::full(0.2f32, (2, 2, 5), &Device::Cpu)?;
/// let emitted = Tensor::zeros((2, 2 * 9 + 2 * 3), DType::F32, &Device::Cpu)?;
/// let after = step(&memory, &before, &emitted, (1, 1), 1)?;
/// assert_eq!((after.weights.dims(), after.read.dims()), (&[2, 2, 5][..], &[2, 1, 3][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn step(
    memory: &Tensor,
    previous: &Tensor,
    emitted: &Tensor,
    (r, k): (usize, usize),
    max_shift: usize,
) -> Result<Step> {
    let (b, n, w) = memory.dims3()?;
    let width = (r + k) * num_controls(w, max_shift) + 2 * k * w;
    if previous.dims() != [b, r + k, n] || emitted.dims() != [b, width] {
        bail!(
            "memory step: expected weightings ({b}, {}, {n}) and ({b}, {width}) that is emitted, got {:?} and {:?}",
            r + k,
            previous.dims(),
            emitted.dims()
        );
    }
    if [r, k, w].contains(&0) || max_shift >= n {
        bail!(
            "memory step: expected heads of both kinds, a width and more slots than the largest shift {max_shift}, got {r}, {k}, {w} and {n}"
        );
    }
    let inputs = [memory, previous, emitted];
    if k > access::MOST_HEADS || b == 0 || !fused::takes(&inputs) {
        return plain::step(memory, previous, emitted, (r, k), max_shift);
    }
    let results = fused::apply(step::StepOp { heads: (r, k), max_shift }, &inputs)?;
    match <[Tensor; 3]>::try_from(results) {
        Ok([weights, read, memory]) => Ok(Step { weights, read, memory }),
        Err(_) => bail!("memory step: internal error: expected three results"),
    }
}

/// A mixture of two memories of one shape, `a M + (1 - a) M'`, with a `share` a of one element.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::memory::blend;
/// let (first, second) = (Tensor::new(&[1f32, 2.], &Device::Cpu)?, Tensor::new(&[3f32, 4.], &Device::Cpu)?);
/// let share = Tensor::new(&[0.25f32], &Device::Cpu)?;
/// assert_eq!(blend(&first, &second, &share)?.to_vec1::<f32>()?, [2.5, 3.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn blend(first: &Tensor, second: &Tensor, share: &Tensor) -> Result<Tensor> {
    if first.dims() != second.dims() || share.dims() != [1] {
        let (first, second) = (first.dims(), second.dims());
        bail!(
            "blend: expected two of one shape and a share [1], got {first:?}, {second:?} and {:?}",
            share.dims()
        );
    }
    let inputs = [first, second, share];
    match first.elem_count() > 0 && fused::takes(&inputs) {
        true => fused::apply1(blend::BlendOp, &inputs),
        false => plain::blend(first, second, share),
    }
}

/// Picks rows: row i of the result is row i of `from[choice[i]]`, all of `(b, w)`. The cost grows with the tensors that are chosen, not with those there are: a memory whose cells are
/// replaced one by one is a list of all that they have been.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::memory::select;
/// let old = Tensor::new(&[[1f32], [2.]], &Device::Cpu)?;
/// let new = Tensor::new(&[[3f32], [4.]], &Device::Cpu)?;
/// assert_eq!(select(&[old, new], &[1, 0])?.to_vec2::<f32>()?, [[3.], [2.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When there is no such tensor, or the shapes of those chosen differ from `(b, w)`.
pub fn select(from: &[Tensor], choice: &[usize]) -> Result<Tensor> {
    let mut used: Vec<usize> = choice.to_vec();
    used.sort_unstable();
    used.dedup();
    let chosen = used.iter().map(|&i| match from.get(i) {
        Some(tensor) => Ok(tensor),
        None => bail!("select: expected one of {} tensors, got {i}", from.len()),
    });
    let chosen = chosen.collect::<Result<Vec<&Tensor>>>()?;
    let Some(first) = chosen.first() else { bail!("select: there is no row") };
    let (b, w) = first.dims2()?;
    if b != choice.len() || chosen.iter().any(|t| t.dims() != [b, w]) {
        let got: Vec<_> = chosen.iter().map(|t| t.dims()).collect();
        bail!("select: expected tensors of ({}, w), got {got:?}", choice.len());
    }
    if chosen.len() == 1 {
        return Ok((*first).clone());
    }
    let place = |i: &usize| used.binary_search(i).unwrap_or_default();
    let places: Vec<usize> = choice.iter().map(place).collect();
    match w > 0 && fused::takes(&chosen) {
        true => fused::apply1(select::SelectOp { from: places }, &chosen),
        false => plain::select(&chosen, &places),
    }
}

/// The cells around the heads of `tapes (b, n, w)`, `(b, 2r + 1, w)`, from the left: those at most `radius` r from the head's position. A tape is a ring.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::memory::read_tape;
/// let tape = Tensor::new(&[[[1f32], [2.], [3.], [4.]]], &Device::Cpu)?;
/// assert_eq!(read_tape(&tape, &[0], 1)?.flatten_all()?.to_vec1::<f32>()?, [4., 1., 2.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the positions do not fit, naming them.
pub fn read_tape(tapes: &Tensor, positions: &[usize], radius: usize) -> Result<Tensor> {
    let heads = heads("read tape", tapes, positions, radius)?;
    match tapes.elem_count() > 0 && fused::takes(&[tapes]) {
        true => fused::apply1(tape::ReadOp(heads), &[tapes]),
        false => plain::read_tape(tapes, positions, radius),
    }
}

/// `tapes (b, n, w)` after each head has changed the cells that it sees, `M ← f ∘ M + v` with `keep` f and `add` v of `(b, 2r + 1, w)`.
///
/// # Errors
/// When the shapes do not fit, or a head would see a cell twice, naming them.
pub fn write_tape(
    tapes: &Tensor,
    positions: &[usize],
    keep: &Tensor,
    add: &Tensor,
) -> Result<Tensor> {
    let (b, n, w) = tapes.dims3()?;
    let seen = keep.dim(1)?;
    let expected = [b, seen, w];
    if keep.dims() != expected || add.dims() != expected || seen % 2 == 0 || seen > n {
        let (tapes, keep, add) = (tapes.dims(), keep.dims(), add.dims());
        bail!(
            "write tape: expected an odd number of cells, at most those of the tapes {tapes:?}, got {keep:?} and {add:?}"
        );
    }
    let heads = heads("write tape", tapes, positions, seen / 2)?;
    match tapes.elem_count() > 0 && fused::takes(&[tapes, keep, add]) {
        true => fused::apply1(tape::WriteOp(heads), &[tapes, keep, add]),
        false => plain::write_tape(tapes, positions, keep, add),
    }
}

fn heads(op: &str, tapes: &Tensor, positions: &[usize], radius: usize) -> Result<tape::Heads> {
    let (b, n, _) = tapes.dims3()?;
    if positions.len() != b || positions.iter().any(|&at| at >= n) {
        bail!("{op}: expected {b} positions below {n}, got {positions:?}");
    }
    Ok(tape::Heads { positions: positions.to_vec(), radius, cells: n })
}

fn check(op: &str, memory: &Tensor, weights: &Tensor) -> Result<()> {
    let (b, n, _) = memory.dims3()?;
    match weights.dims() {
        &[b_w, _, n_w] if (b_w, n_w) == (b, n) => Ok(()),
        got => bail!("{op}: expected weightings ({b}, h, {n}), got {got:?}"),
    }
}
