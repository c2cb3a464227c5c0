//! Reading, writing and addressing an external memory with soft weightings: the Neural Turing Machine's (Graves et al. 2014,
//! arXiv 1410.5401, section 3). Stacks, queues and lists have modules of their own.
//!
//! Letters: b batch, h heads, n slots, w width of a slot, S largest shift.

mod access;
pub mod action_stack;
mod address;
pub mod plain;
pub mod stack;
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

fn check(op: &str, memory: &Tensor, weights: &Tensor) -> Result<()> {
    let (b, n, _) = memory.dims3()?;
    match weights.dims() {
        &[b_w, _, n_w] if (b_w, n_w) == (b, n) => Ok(()),
        got => bail!("{op}: expected weightings ({b}, h, {n}), got {got:?}"),
    }
}
