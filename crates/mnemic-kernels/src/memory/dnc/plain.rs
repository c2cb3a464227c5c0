use candle_core::{D, Result, Tensor};

use super::{Reading, Writing};
use crate::memory::COSINE_EPS;
use crate::memory::plain::{norm, sigmoid, softplus};
use crate::softmax::plain::softmax;

/// Plain twin of [`super::content_weights`].
pub fn content_weights(memory: &Tensor, keys: &Tensor, strengths: &Tensor) -> Result<Tensor> {
    let dots = keys.contiguous()?.matmul(&memory.transpose(1, 2)?.contiguous()?)?; // (b, h, n)
    let norms = norm(keys)?.broadcast_mul(&norm(memory)?.transpose(1, 2)?)?;
    let cosine = (dots / (norms + COSINE_EPS)?)?;
    let strengths = (softplus(strengths)? + 1.)?.unsqueeze(2)?;
    softmax(&cosine.broadcast_mul(&strengths)?)
}

/// Plain twin of [`super::write_weights`].
pub fn write_weights(
    usage: &Tensor,
    weights: &Tensor,
    read_weights: &Tensor,
    content: &Tensor,
    gates: &Tensor,
) -> Result<Writing> {
    let r = read_weights.dim(1)?;
    let gates = sigmoid(gates)?;
    let mut used = ((usage + weights)? - (usage * weights)?)?;
    for head in 0..r {
        let freed = read_weights.narrow(1, head, 1)?.squeeze(1)?;
        let freed = freed.broadcast_mul(&gates.narrow(1, head, 1)?)?;
        used = (used * (1. - freed)?)?;
    }
    let allocation = allocation(&used)?;
    let (allocate, write) = (gates.narrow(1, r, 1)?, gates.narrow(1, r + 1, 1)?);
    let looked_up = content.broadcast_mul(&(1. - &allocate)?)?;
    let mixed = (allocation.broadcast_mul(&allocate)? + looked_up)?;
    Ok(Writing { usage: used, weights: mixed.broadcast_mul(&write)?, allocation })
}

/// Where there is room, `(b, n)`, by usage `(b, n)`.
fn allocation(usage: &Tensor) -> Result<Tensor> {
    let (b, n) = usage.dims2()?;
    let values = usage.detach().to_dtype(candle_core::DType::F64)?.to_vec2::<f64>()?;
    let mut order = Vec::with_capacity(b * n);
    let mut places = vec![0u32; b * n];
    for (row, values) in values.iter().enumerate() {
        let mut slots: Vec<u32> = (0..n as u32).collect();
        slots.sort_by(|&i, &j| values[i as usize].total_cmp(&values[j as usize]));
        for (place, &slot) in slots.iter().enumerate() {
            places[row * n + slot as usize] = place as u32;
        }
        order.extend(slots);
    }
    let order = Tensor::from_vec(order, (b, n), usage.device())?;
    let places = Tensor::from_vec(places, (b, n), usage.device())?;
    let sorted = usage.contiguous()?.gather(&order, 1)?;
    let mut product = sorted.narrow(1, 0, 1)?.ones_like()?;
    let mut free = Vec::with_capacity(n);
    for j in 0..n {
        let used = sorted.narrow(1, j, 1)?;
        free.push(((1. - &used)? * &product)?);
        product = (product * used)?;
    }
    Tensor::cat(&free, 1)?.gather(&places, 1)
}

/// Plain twin of [`super::read_weights`].
pub fn read_weights(
    link: &Tensor,
    precedence: &Tensor,
    write_weights: &Tensor,
    weights: &Tensor,
    content: &Tensor,
    modes: &Tensor,
) -> Result<Reading> {
    let n = precedence.dim(1)?;
    let (to, from) = (write_weights.unsqueeze(2)?, write_weights.unsqueeze(1)?); // (b, n, 1), (b, 1, n)
    let kept = (1. - to.broadcast_add(&from)?)?;
    let new = to.broadcast_mul(&precedence.unsqueeze(1)?)?;
    let others = (1. - Tensor::eye(n, link.dtype(), link.device())?)?;
    let link = ((link * kept)? + new)?.broadcast_mul(&others)?;
    let left = (1. - write_weights.sum_keepdim(1)?)?;
    let precedence = (precedence.broadcast_mul(&left)? + write_weights)?;
    let weights = weights.contiguous()?;
    let backward = weights.matmul(&link)?; // (b, r, n): Lᵀ w
    let forward = weights.matmul(&link.transpose(1, 2)?.contiguous()?)?;
    let modes = softmax(modes)?;
    let mode = |i: usize| modes.narrow(D::Minus1, i, 1);
    let weights = ((backward.broadcast_mul(&mode(0)?)? + content.broadcast_mul(&mode(1)?)?)?
        + forward.broadcast_mul(&mode(2)?)?)?;
    Ok(Reading { link, precedence, weights })
}
