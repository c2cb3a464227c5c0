//! The definitions, in ordinary candle operations.

use candle_core::{D, Result, Tensor};

use super::{COSINE_EPS, SMALLEST, Step, num_controls};
use crate::softmax::plain::softmax;

/// Plain twin of [`super::address`].
pub fn address(
    memory: &Tensor,
    previous: &Tensor,
    controls: &Tensor,
    max_shift: usize,
) -> Result<Tensor> {
    let (_, n, w) = memory.dims3()?;
    let shifts = 2 * max_shift + 1;
    let key = controls.narrow(2, 0, w)?.tanh()?; // (b, h, w)
    let strength = softplus(&controls.narrow(2, w, 1)?)?; // (b, h, 1)
    let gate = sigmoid(&controls.narrow(2, w + 1, 1)?)?;
    let shift = softmax(&controls.narrow(2, w + 2, shifts)?.contiguous()?)?; // (b, h, 2S + 1)
    let sharpening = (softplus(&controls.narrow(2, w + 2 + shifts, 1)?)? + 1.)?;

    let dots = key.contiguous()?.matmul(&memory.transpose(1, 2)?.contiguous()?)?; // (b, h, n)
    let norms = norm(&key)?.broadcast_mul(&norm(memory)?.transpose(1, 2)?)?; // (b, h, n)
    let cosine = (dots / (norms + COSINE_EPS)?)?;
    let content = softmax(&cosine.broadcast_mul(&strength)?)?;
    let kept = (1. - &gate)?;
    let mixed = (content.broadcast_mul(&gate)? + previous.broadcast_mul(&kept)?)?;

    let mut moved = mixed.zeros_like()?;
    for j in 0..shifts {
        // Slot i takes from slot i - (j - S).
        let up = (j + n - max_shift) % n;
        let rolled = match up {
            0 => mixed.clone(),
            up => Tensor::cat(&[mixed.narrow(2, n - up, up)?, mixed.narrow(2, 0, n - up)?], 2)?,
        };
        moved = (moved + rolled.broadcast_mul(&shift.narrow(2, j, 1)?)?)?;
    }
    let logs = moved.maximum(SMALLEST)?.log()?;
    softmax(&logs.broadcast_mul(&sharpening)?)
}

/// Plain twin of [`super::read`].
pub fn read(memory: &Tensor, weights: &Tensor) -> Result<Tensor> {
    weights.contiguous()?.matmul(&memory.contiguous()?)
}

/// Plain twin of [`super::write`].
pub fn write(memory: &Tensor, weights: &Tensor, erase: &Tensor, add: &Tensor) -> Result<Tensor> {
    let mut kept = memory.clone();
    for head in 0..weights.dim(1)? {
        let weight = weights.narrow(1, head, 1)?.transpose(1, 2)?; // (b, n, 1)
        let erased = weight.broadcast_mul(&erase.narrow(1, head, 1)?)?; // (b, n, w)
        kept = (kept * (1. - erased)?)?;
    }
    kept + weights.transpose(1, 2)?.contiguous()?.matmul(&add.contiguous()?)?
}

/// Plain twin of [`super::step`], of those of the single operations.
pub fn step(
    memory: &Tensor,
    previous: &Tensor,
    emitted: &Tensor,
    (r, k): (usize, usize),
    max_shift: usize,
) -> Result<Step> {
    let (b, _, w) = memory.dims3()?;
    let size = num_controls(w, max_shift);
    let part = |start: usize, rows: usize, width: usize| {
        emitted.narrow(1, start, rows * width)?.reshape((b, rows, width))
    };
    let controls = part(0, r + k, size)?;
    let erase = sigmoid(&part((r + k) * size, k, w)?)?;
    let add = part((r + k) * size + k * w, k, w)?.tanh()?;
    let weights = address(memory, previous, &controls, max_shift)?;
    let read = read(memory, &weights.narrow(1, 0, r)?)?;
    let memory = write(memory, &weights.narrow(1, r, k)?.contiguous()?, &erase, &add)?;
    Ok(Step { weights, read, memory })
}

/// Plain twin of [`super::blend`].
pub fn blend(first: &Tensor, second: &Tensor, share: &Tensor) -> Result<Tensor> {
    first.broadcast_mul(share)? + second.broadcast_mul(&(1. - share)?)?
}

/// Plain twin of [`super::select`].
pub fn select(from: &[&Tensor], choice: &[usize]) -> Result<Tensor> {
    let rows = choice.iter().enumerate().map(|(row, &i)| from[i].narrow(0, row, 1));
    Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
}

/// Entry `(b, 2r + 1, n)`: whether a head sees a cell at that place.
fn sight(tapes: &Tensor, positions: &[usize], radius: usize) -> Result<Tensor> {
    let (b, n, _) = tapes.dims3()?;
    let seen = 2 * radius + 1;
    let mut rows = vec![0f32; b * seen * n];
    for (row, &at) in positions.iter().enumerate() {
        for k in 0..seen {
            rows[(row * seen + k) * n + (at + n * radius + k - radius) % n] = 1.;
        }
    }
    Tensor::from_vec(rows, (b, seen, n), tapes.device())?.to_dtype(tapes.dtype())
}

/// Plain twin of [`super::read_tape`].
pub fn read_tape(tapes: &Tensor, positions: &[usize], radius: usize) -> Result<Tensor> {
    sight(tapes, positions, radius)?.matmul(&tapes.contiguous()?)
}

/// Plain twin of [`super::write_tape`].
pub fn write_tape(
    tapes: &Tensor,
    positions: &[usize],
    keep: &Tensor,
    add: &Tensor,
) -> Result<Tensor> {
    let sight = sight(tapes, positions, keep.dim(1)? / 2)?.transpose(1, 2)?.contiguous()?; // (b, n, seen)
    // What no head sees is kept.
    let lost = sight.matmul(&(1. - keep)?.contiguous()?)?;
    (tapes * (1. - lost)?)? + sight.matmul(&add.contiguous()?)?
}

/// `ln(1 + e^x)`, without overflow.
pub(super) fn softplus(xs: &Tensor) -> Result<Tensor> {
    xs.relu()? + ((xs.abs()?.neg()?.exp()? + 1.)?).log()?
}

pub(super) fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    (xs.neg()?.exp()? + 1.)?.recip()
}

/// The norms of rows, `(…, 1)`; the gradient of a row of zeros is zero.
pub(super) fn norm(xs: &Tensor) -> Result<Tensor> {
    let squares = xs.sqr()?.sum_keepdim(D::Minus1)?;
    squares.maximum(f64::from(f32::MIN_POSITIVE))?.sqrt()
}
