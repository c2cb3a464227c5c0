//! Tensors side by side along the last axis, and cut apart again, with backward passes that copy once.
//!
//! candle's `cat` and `narrow` pass gradients on through tensors of the whole size filled with zeros.

#[cfg(cuda_path)]
mod cuda;

use candle_core::{D, Result, Tensor, bail};

use crate::fused::{self, Backward, FusedOp, Results, View};
use crate::real::{Real, buffer};

/// `(…, d_1)`, `(…, d_2)`, … to `(…, d_1 + d_2 + …)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[[1f32], [2.]], &Device::Cpu)?;
/// let b = Tensor::new(&[[3f32, 4.], [5., 6.]], &Device::Cpu)?;
/// let ab = mnemic_kernels::concat::concat(&[a, b])?;
/// assert_eq!(ab.to_vec2::<f32>()?, [[1., 3., 4.], [2., 5., 6.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When there is no tensor, or their other axes differ.
pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { bail!("concat: no tensors") };
    let outer = |t: &Tensor| t.dims().split_last().map(|(_, outer)| outer.to_vec());
    if first.rank() == 0 || parts.iter().any(|t| outer(t) != outer(first)) {
        let shapes: Vec<_> = parts.iter().map(Tensor::dims).collect();
        bail!("concat: expected shapes that differ in the last axis only, got {shapes:?}");
    }
    let operands: Vec<&Tensor> = parts.iter().collect();
    if fused::takes(&operands) && parts.iter().all(|t| t.elem_count() > 0) {
        return fused::apply1(ConcatOp, &operands);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&operands) {
        return crate::cuda::apply1(cuda::ConcatOp, &operands);
    }
    plain::concat(parts)
}

/// `(…, d)` cut into `(…, d_1)`, `(…, d_2)`, … where `d = d_1 + d_2 + …`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?;
/// let parts = mnemic_kernels::concat::split(&x, &[1, 2])?;
/// assert_eq!(parts[1].to_vec2::<f32>()?, [[2., 3.], [5., 6.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the widths do not add up to the last axis, or one of them is 0.
pub fn split(xs: &Tensor, widths: &[usize]) -> Result<Vec<Tensor>> {
    let total = xs.dims().last().copied().unwrap_or(0);
    if widths.iter().sum::<usize>() != total || widths.contains(&0) || total == 0 {
        bail!(
            "split: expected widths above 0 that add up to the last of {:?}, got {widths:?}",
            xs.dims()
        );
    }
    if fused::takes(&[xs]) && xs.elem_count() > 0 {
        return fused::apply(SplitOp(widths.to_vec()), &[xs]);
    }
    #[cfg(cuda_path)]
    if crate::cuda::takes(&[xs]) {
        return crate::cuda::apply(cuda::SplitOp(widths.to_vec()), &[xs]);
    }
    plain::split(xs, widths)
}

/// The definitions, in ordinary candle operations.
pub mod plain {
    use super::*;

    /// Plain twin of [`super::split`].
    pub fn split(xs: &Tensor, widths: &[usize]) -> Result<Vec<Tensor>> {
        let mut start = 0;
        let part = |&width: &usize| {
            start += width;
            xs.narrow(D::Minus1, start - width, width)
        };
        widths.iter().map(part).collect()
    }

    /// Plain twin of [`super::concat`].
    pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
        Tensor::cat(parts, D::Minus1)
    }
}

struct ConcatOp;

fn width<T>(view: &View<'_, T>) -> usize {
    view.dims.last().copied().unwrap_or(1)
}

impl FusedOp for ConcatOp {
    const NAME: &'static str = "concat";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<Results<T, ()>> {
        let total: usize = x.iter().map(width).sum();
        let rows = x[0].data.len() / width(&x[0]);
        let mut out = buffer(rows * total);
        for (i, row) in out.chunks_exact_mut(total).enumerate() {
            let mut rest = row;
            for part in x {
                let d = width(part);
                let (now, later) = rest.split_at_mut(d);
                now.copy_from_slice(&part.data[i * d..][..d]);
                rest = later;
            }
        }
        let mut dims = x[0].dims.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = total;
        }
        Ok((vec![(out, dims)], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let Some(grad) = pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        let total = width(&grad);
        let mut start = 0;
        let mut all = Vec::with_capacity(pass.inputs.len());
        for (part, &wanted) in pass.inputs.iter().zip(pass.wanted) {
            let (from, until) = (start, start + width(part));
            start = until;
            all.push(wanted.then(|| {
                let mut d = Vec::with_capacity(part.data.len());
                grad.data
                    .chunks_exact(total)
                    .for_each(|row| d.extend_from_slice(&row[from..until]));
                d
            }));
        }
        Ok(all)
    }
}

/// Cuts into parts of these widths.
struct SplitOp(Vec<usize>);

impl FusedOp for SplitOp {
    const NAME: &'static str = "split";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<Results<T, ()>> {
        let (total, mut start) = (width(&x[0]), 0);
        let mut parts = Vec::with_capacity(self.0.len());
        for &width in &self.0 {
            let mut part = Vec::with_capacity(x[0].data.len() / total * width);
            let rows = x[0].data.chunks_exact(total);
            rows.for_each(|row| part.extend_from_slice(&row[start..start + width]));
            let mut dims = x[0].dims.to_vec();
            if let Some(last) = dims.last_mut() {
                *last = width;
            }
            parts.push((part, dims));
            start += width;
        }
        Ok((parts, ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let total = width(&pass.inputs[0]);
        let mut dx = vec![T::ZERO; pass.inputs[0].data.len()];
        let mut start = 0;
        for (&width, grad) in self.0.iter().zip(pass.grads) {
            for (row, g) in
                dx.chunks_exact_mut(total).zip(grad.iter().flat_map(|g| g.data.chunks_exact(width)))
            {
                row[start..start + width].copy_from_slice(g);
            }
            start += width;
        }
        Ok(vec![Some(dx)])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use mnemic_testing::{assert_close, check_gradients, waves};

    use super::*;

    #[test]
    fn fused_equals_plain() {
        for n in 1..6 {
            for dtype in [DType::F32, DType::F64, DType::F16] {
                let part = |k: usize| waves(&[3, 4, 2 * k + 1], k as f64, 1., dtype);
                let parts: Vec<Tensor> = (0..n).map(part).collect();
                let (fast, slow) = (concat(&parts).unwrap(), plain::concat(&parts).unwrap());
                assert_close("concat", &fast, &slow, 0., 0.);
            }
        }
        let scattered = waves(&[5, 3], 1., 1., DType::F64).t().unwrap();
        let parts = [scattered.clone(), scattered.narrow(1, 1, 2).unwrap()];
        assert_close("strided", &concat(&parts).unwrap(), &plain::concat(&parts).unwrap(), 0., 0.);
    }

    #[cfg(cuda_path)]
    #[test]
    fn cuda() {
        use crate::cuda::tests::{agree, agree_in_half};
        for widths in [&[1usize] as &[usize], &[80, 80, 80], &[3, 64, 1, 65], &[4; 40]] {
            let part = |d: &usize| waves(&[3, 5, *d], *d as f64, 1., DType::F32);
            let parts: Vec<Tensor> = widths.iter().map(part).collect();
            let test = format!("concat::cuda {widths:?}");
            let (fast, slow) = (concat, plain::concat);
            agree(&test, &parts, |x| Ok(vec![fast(x)?]), |x| Ok(vec![slow(x)?]));
            agree_in_half(&test, 1, &parts, |x| Ok(vec![fast(x)?]), |x| Ok(vec![slow(x)?]));
        }
    }

    #[test]
    fn parts_are_cut_as_by_the_plain_twin() {
        use crate::checks::agree;
        for widths in [&[3usize] as &[usize], &[1, 2], &[80, 80, 80], &[3, 64, 1, 65]] {
            let x = [waves(&[2, 3, widths.iter().sum()], 1., 1., DType::F32)];
            agree(&x, |x| split(&x[0], widths), |x| plain::split(&x[0], widths));
            #[cfg(cuda_path)]
            {
                let test = format!("concat::split {widths:?}");
                let (fast, slow) = (
                    |x: &[Tensor]| split(&x[0], widths),
                    |x: &[Tensor]| plain::split(&x[0], widths),
                );
                crate::cuda::tests::agree(&test, &x, fast, slow);
                crate::cuda::tests::agree_in_half(&test, widths.len(), &x, fast, slow);
            }
        }
        let x = waves(&[2, 5], 1., 1., DType::F64);
        // A part that is not used gets zeros.
        check_gradients(&[("x", x.clone())], 1e-8, |x| {
            split(&x[0], &[2, 1, 2])?[1].exp()?.sum_all()
        });
        for widths in [&[2, 2][..], &[5, 0], &[]] {
            assert!(
                split(&x, widths).unwrap_err().to_string().contains("add up to the last of [2, 5]")
            );
        }
    }

    #[test]
    fn gradients() {
        let x = [("a", 2), ("b", 1), ("c", 4), ("d", 3)];
        let x: Vec<_> =
            x.into_iter().map(|(n, d)| (n, waves(&[3, d], d as f64, 1., DType::F64))).collect();
        check_gradients(&x, 1e-8, |x| concat(x)?.sin()?.sqr()?.sum_all());
        let same = vec![("a", waves(&[2, 3], 1., 1., DType::F64))];
        check_gradients(&same, 1e-8, |x| concat(&[x[0].clone(), x[0].clone()])?.exp()?.sum_all());
    }

    #[test]
    fn empty_and_wrong_shapes() {
        let a = waves(&[2, 0], 1., 1., DType::F32);
        let b = waves(&[2, 3], 1., 1., DType::F32);
        assert_eq!(concat(&[a, b.clone()]).unwrap().dims(), [2, 3]);
        let error = concat(&[b.clone(), b.t().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("[[2, 3], [3, 2]]"), "{error}");
        assert!(concat(&[]).is_err());
    }
}
