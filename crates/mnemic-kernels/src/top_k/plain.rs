//! The definition: a stable sort of each row on the host, then candle's gather.

use candle_core::{D, DType, Result, Tensor};

/// Plain twin of [`super::top_k`].
pub fn top_k(xs: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
    let n = xs.dim(D::Minus1)?;
    let mut dims = xs.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = k;
    }
    if dims.contains(&0) {
        let indices = Tensor::zeros(dims, DType::U32, xs.device())?;
        return Ok((xs.narrow(D::Minus1, 0, k)?, indices));
    }
    let numbers = xs.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let mut chosen = Vec::with_capacity(dims.iter().product());
    for row in numbers.chunks_exact(n) {
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by(|&i, &j| {
            let (a, b) = (row[i as usize], row[j as usize]);
            b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
        });
        chosen.extend_from_slice(&order[..k]);
    }
    let indices = Tensor::from_vec(chosen, dims, xs.device())?;
    Ok((xs.contiguous()?.gather(&indices, D::Minus1)?, indices))
}
