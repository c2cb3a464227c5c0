//! The definitions, in ordinary candle operations.

use candle_core::{Result, Tensor};

/// Plain twin of [`super::unbind`].
pub fn unbind(xs: &Tensor) -> Result<Vec<Tensor>> {
    if xs.elem_count() == 0 {
        // candle cannot read a narrowed tensor without elements.
        let dims = [&xs.dims()[..1], &xs.dims()[2..]].concat();
        return (0..xs.dim(1)?)
            .map(|_| Tensor::zeros(dims.as_slice(), xs.dtype(), xs.device()))
            .collect();
    }
    (0..xs.dim(1)?).map(|t| xs.narrow(1, t, 1)?.squeeze(1)).collect()
}

/// Plain twin of [`super::stack`].
pub fn stack(steps: &[Tensor]) -> Result<Tensor> {
    Tensor::stack(steps, 1)
}
