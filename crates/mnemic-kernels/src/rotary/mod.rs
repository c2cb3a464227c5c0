//! Rotary positions (J. Su, Y. Lu, S. Pan, A. Murtadha, B. Wen, Y. Liu, RoFormer, 2021, arXiv 2104.09864, eq. 34): pairs of numbers of
//! queries and keys are turned by angles that grow with the place, so that products depend on distances alone.
//!
//! `(x, y)` becomes `(x cos θ - y sin θ, y cos θ + x sin θ)`; the gradient is turned back by the same angle. Angles come as tables of
//! cosines and sines, one row for each place, so that every row of a batch may have positions of its own.

mod cpu;
pub mod plain;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

const OP: &str = "rotary";

/// Which two of the first `r` numbers are a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Numbers `j` and `j + r/2`, as the checkpoints of Llama have it in `transformers`.
    #[default]
    Halves,
    /// Numbers `2j` and `2j + 1`, as in the paper.
    Interleaved,
}

/// `xs (b, h, n, d)` with pair `j` of place `i` turned by the angle whose `cos` and `sin (1 or b, n, r/2)` stand at `(i, j)`; numbers
/// from `r <= d` on stay as they are. The tables are constants: they get no gradient.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::rotary::{Layout, rotary};
/// let xs = Tensor::new(&[[[[3f32, 4.]]]], &Device::Cpu)?;
/// // A quarter turn.
/// let (cos, sin) = (Tensor::new(&[[[0f32]]], &Device::Cpu)?, Tensor::new(&[[[1f32]]], &Device::Cpu)?);
/// let ys = rotary(&xs, &cos, &sin, Layout::Halves)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [-4., 3.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit together.
pub fn rotary(xs: &Tensor, cos: &Tensor, sin: &Tensor, layout: Layout) -> Result<Tensor> {
    let fits = match (xs.dims(), cos.dims()) {
        (&[b, _, n, d], &[rows, places, half]) => {
            (rows == b || rows == 1) && places == n && 2 * half <= d && cos.dims() == sin.dims()
        }
        _ => false,
    };
    if !fits {
        bail!(
            "{OP}: expected (b, h, n, d) and tables (1 or b, n, r/2) with r <= d, got {:?}, {:?} and {:?}",
            xs.dims(),
            cos.dims(),
            sin.dims()
        );
    }
    let (cos, sin) = (cos.detach(), sin.detach());
    match fused::takes(&[xs, &cos, &sin]) {
        true => fused::apply1(cpu::RotaryOp(layout), &[xs, &cos, &sin]),
        false => plain::rotary(xs, &cos, &sin, layout),
    }
}
