//! The definition, in ordinary candle operations.

use candle_core::{D, Result, Tensor};

use super::Layout;

/// Plain twin of [`super::rotary`].
pub fn rotary(xs: &Tensor, cos: &Tensor, sin: &Tensor, layout: Layout) -> Result<Tensor> {
    let (b, h, n, d) = xs.dims4()?;
    let half = cos.dim(D::Minus1)?;
    let table = |t: &Tensor| t.detach().unsqueeze(1)?.broadcast_as((b, h, n, half));
    let (cos, sin) = (table(cos)?, table(sin)?);
    let turned = xs.narrow(3, 0, 2 * half)?;
    // (b, h, n, half) each
    let (first, second) = match layout {
        Layout::Halves => (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?),
        Layout::Interleaved => {
            let pairs = turned.contiguous()?.reshape((b, h, n, half, 2))?;
            (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
        }
    };
    let a = first.mul(&cos)?.sub(&second.mul(&sin)?)?;
    let b_ = second.mul(&cos)?.add(&first.mul(&sin)?)?;
    let turned = match layout {
        Layout::Halves => Tensor::cat(&[a, b_], 3)?,
        Layout::Interleaved => Tensor::stack(&[a, b_], 4)?.reshape((b, h, n, 2 * half))?,
    };
    match d == 2 * half {
        true => Ok(turned),
        false => Tensor::cat(&[turned, xs.narrow(3, 2 * half, d - 2 * half)?], 3),
    }
}
