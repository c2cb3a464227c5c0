//! Embedding of word ids, plain and pooled over the words of a sentence.
//!
//! `y = Σ_j l_j ∘ E[x_j]` for ids `x (…, j)`, a table `E (v, d)` and position weights `l (j, d)`: a bag of words with `l = 1`, the
//! position encoding of Sukhbaatar et al. 2015 (MemN2N, section 4.1) otherwise. A padding id adds nothing and gets no gradient.

mod cpu;
pub mod plain;

use candle_core::{Result, Tensor, bail};

/// The rows of `table` `(v, d)` at `ids` (u32, any shape): `(…, d)`. Rows at `padding` are zero and pass no gradient on.
pub fn embedding(table: &Tensor, ids: &Tensor, padding: Option<u32>) -> Result<Tensor> {
    if cpu::takes(table, None) {
        return cpu::pooled_embedding(table, ids, 1, ids.dims(), None, padding);
    }
    plain::embedding(table, ids, padding)
}

/// The pooled embedding of `ids` (u32, `(…, j)`): `(…, d)`. `weights`, if given, is `(j, d)`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_kernels::pooled_embedding::pooled_embedding;
/// let table = Tensor::new(&[[9f32, 9.], [1., 0.], [0., 2.]], &Device::Cpu)?;
/// let ids = Tensor::new(&[[1u32, 2, 0]], &Device::Cpu)?;
/// assert_eq!(pooled_embedding(&table, &ids, None, Some(0))?.to_vec2::<f32>()?, [[1., 2.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit or an id is not below `v`.
pub fn pooled_embedding(
    table: &Tensor,
    ids: &Tensor,
    weights: Option<&Tensor>,
    padding: Option<u32>,
) -> Result<Tensor> {
    let (_, d) = table.dims2()?;
    let Some(&j) = ids.dims().last() else { bail!("pooled_embedding: ids are a scalar") };
    if let Some(w) = weights
        && w.dims() != [j, d]
    {
        bail!("pooled_embedding: expected ({j}, {d}) position weights, got {:?}", w.dims());
    }
    if j > 0 && cpu::takes(table, weights) {
        let outer = &ids.dims()[..ids.rank() - 1];
        return cpu::pooled_embedding(table, ids, j, outer, weights, padding);
    }
    plain::pooled_embedding(table, ids, weights, padding)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use mnemic_testing::{assert_close, check_gradients, waves};

    use super::*;

    fn ids(shape: &[usize], v: usize) -> Tensor {
        let n: usize = shape.iter().product();
        let ids: Vec<u32> = (0..n).map(|i| ((i * 7 + i / 3) % v) as u32).collect();
        Tensor::from_vec(ids, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn fused_equals_plain() {
        for (shape, d) in [(vec![3, 4], 5), (vec![2, 3, 4], 65), (vec![1], 1), (vec![90, 9], 63)] {
            for dtype in [DType::F32, DType::F64] {
                let (table, ids) = (waves(&[11, d], 1., 1., dtype), ids(&shape, 11));
                let weights = waves(&[shape[shape.len() - 1], d], 2., 1., dtype);
                for padding in [None, Some(0)] {
                    let fast = embedding(&table, &ids, padding).unwrap();
                    let slow = plain::embedding(&table, &ids, padding).unwrap();
                    assert_close("embedding", &fast, &slow, 0., 0.);
                    for weights in [None, Some(&weights)] {
                        let fast = pooled_embedding(&table, &ids, weights, padding).unwrap();
                        let slow = plain::pooled_embedding(&table, &ids, weights, padding).unwrap();
                        assert_close("pooled", &fast, &slow, 1e-6, 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn gradients() {
        let (ids, weights) = (ids(&[2, 3, 4], 5), waves(&[4, 3], 2., 1., DType::F64));
        let probe = waves(&[2, 3, 3], 4., 1., DType::F64);
        let table = waves(&[5, 3], 1., 1., DType::F64);
        check_gradients(&[("table", table.clone())], 1e-8, |t| {
            pooled_embedding(&t[0], &ids, Some(&weights), Some(0))?.mul(&probe)?.sum_all()
        });
        // Weights that are trained take the plain path and get a gradient, too.
        check_gradients(&[("table", table), ("weights", weights)], 1e-8, |t| {
            pooled_embedding(&t[0], &ids, Some(&t[1]), None)?.mul(&probe)?.sum_all()
        });
    }

    #[test]
    fn empty_and_wrong_ids() {
        let table = waves(&[5, 3], 1., 1., DType::F32);
        let none = Tensor::zeros((2, 0, 4), DType::U32, &Device::Cpu).unwrap();
        assert_eq!(pooled_embedding(&table, &none, None, None).unwrap().dims(), [2, 0, 3]);
        let bad = Tensor::new(&[[1u32, 5]], &Device::Cpu).unwrap();
        let error = pooled_embedding(&table, &bad, None, None).unwrap_err().to_string();
        assert!(error.contains("id 5 is not below the table's 5 rows"), "{error}");
    }
}
