//! The fused CPU path: both features in one pass, and both gradients in one.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::real::{Real, for_chunks, slice, to_vec};

pub(super) fn takes(facts: &Tensor, vectors: &Tensor) -> bool {
    let float = matches!(facts.dtype(), DType::F32 | DType::F64);
    let same = facts.dtype() == vectors.dtype();
    facts.device().is_cpu() && float && same && facts.elem_count() > 0
}

pub(super) struct InteractionOp;

fn forward<T: Real>(facts: &[T], vectors: &[T], (n, h): (usize, usize)) -> Vec<T> {
    let mut z = vec![T::ZERO; 2 * facts.len()];
    for_chunks(&mut z, 2 * h, |start, z| {
        let first = start / (2 * h);
        for (k, z) in z.chunks_exact_mut(2 * h).enumerate() {
            let f = &facts[(first + k) * h..][..h];
            let v = &vectors[(first + k) / n * h..][..h];
            let (product, distance) = z.split_at_mut(h);
            for j in 0..h {
                product[j] = f[j] * v[j];
                distance[j] = (f[j] - v[j]).abs_();
            }
        }
    });
    z
}

/// Gradients of facts and vectors, row by row of the batch.
fn backward<T: Real>(
    facts: &[T],
    vectors: &[T],
    grad: &[T],
    (n, h): (usize, usize),
) -> (Vec<T>, Vec<T>) {
    // One buffer a row of the batch, so that threads share nothing: n facts' gradients, then the vector's.
    let b = vectors.len() / h;
    let width = (n + 1) * h;
    let mut both = vec![T::ZERO; b * width];
    for_chunks(&mut both, width, |start, both| {
        let first = start / width;
        for (k, both) in both.chunks_exact_mut(width).enumerate() {
            let row = first + k;
            let v = &vectors[row * h..][..h];
            let (d_facts, d_v) = both.split_at_mut(n * h);
            for (i, d_f) in d_facts.chunks_exact_mut(h).enumerate() {
                let at = row * n + i;
                let f = &facts[at * h..][..h];
                let (g_product, g_distance) = grad[at * 2 * h..][..2 * h].split_at(h);
                for j in 0..h {
                    let d = f[j] - v[j];
                    let s = if d > T::ZERO {
                        g_distance[j]
                    } else if d < T::ZERO {
                        -g_distance[j]
                    } else {
                        T::ZERO
                    };
                    d_f[j] = g_product[j] * v[j] + s;
                    d_v[j] += g_product[j] * f[j] - s;
                }
            }
        }
    });
    let mut d_facts = Vec::with_capacity(facts.len());
    let mut d_vectors = Vec::with_capacity(vectors.len());
    for row in both.chunks_exact(width) {
        d_facts.extend_from_slice(&row[..n * h]);
        d_vectors.extend_from_slice(&row[n * h..]);
    }
    (d_facts, d_vectors)
}

impl InteractionOp {
    fn gradients<T: Real>(&self, x: &Tensor, v: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
        let (_, n, h) = x.dims3()?;
        let (xs, vs, gs) = (to_vec::<T>(x)?, to_vec::<T>(v)?, to_vec::<T>(g)?);
        let (dx, dv) = backward(&xs, &vs, &gs, (n, h));
        Ok((
            Tensor::from_vec(dx, x.shape(), x.device())?,
            Tensor::from_vec(dv, v.shape(), v.device())?,
        ))
    }
}

impl CustomOp2 for InteractionOp {
    fn name(&self) -> &'static str {
        "mnemic-interaction"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (b, n, h) = l1.shape().dims3()?;
        let op = "interaction";
        let z = match s1 {
            CpuStorage::F32(_) => {
                f32::storage(forward(slice(op, s1, l1)?, slice(op, s2, l2)?, (n, h)))
            }
            CpuStorage::F64(_) => {
                f64::storage(forward(slice(op, s1, l1)?, slice(op, s2, l2)?, (n, h)))
            }
            _ => bail!("interaction: expected f32 or f64"),
        };
        Ok((z, Shape::from((b, n, 2 * h))))
    }

    fn bwd(
        &self,
        facts: &Tensor,
        vectors: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, v) = match facts.dtype() {
            DType::F64 => self.gradients::<f64>(facts, vectors, grad)?,
            _ => self.gradients::<f32>(facts, vectors, grad)?,
        };
        Ok((Some(x), Some(v)))
    }
}
