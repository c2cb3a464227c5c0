//! Word embeddings, one vector a word or pooled over a sentence.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::pooled_embedding::{embedding, pooled_embedding};

use crate::init;

/// A table of word vectors; parameter `weight (vocab_size, dim)`.
///
/// The row of the padding id, if one is given, starts at 0, reads as zeros whatever it holds, and
/// gets no gradient.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{Embedding, ParamStore, init};
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let words = Embedding::new(10, 4, init::normal(0.1), Some(0), vb.pp("words"))?;
/// let ids = Tensor::new(&[[3u32, 7, 0], [5, 0, 0]], &Device::Cpu)?;
/// assert_eq!(words.forward(&ids)?.dims(), [2, 3, 4]);
/// assert_eq!(words.pooled(&ids, None)?.dims(), [2, 4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: Tensor,
    padding: Option<u32>,
}

impl Embedding {
    /// A table of `vocab_size` vectors of width `dim`.
    ///
    /// # Errors
    /// When the padding id is not below `vocab_size`, or `weight` exists with another shape or
    /// type.
    pub fn new(
        vocab_size: usize,
        dim: usize,
        init: Init,
        padding: Option<u32>,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        if let Some(p) = padding
            && p as usize >= vocab_size
        {
            bail!("embedding: padding id {p} is not below the vocabulary size {vocab_size}");
        }
        let weight = init::get_edited(&vb, (vocab_size, dim), "weight", init, |mut values| {
            if let Some(p) = padding {
                values[p as usize * dim..][..dim].fill(0.);
            }
            Ok(values)
        })?;
        Ok(Self { weight, padding })
    }

    /// A table that exists already, such as a tied one.
    ///
    /// # Errors
    /// When it is not a matrix, or the padding id is not one of its rows.
    pub fn from_weight(weight: Tensor, padding: Option<u32>) -> Result<Self> {
        let (v, _) = weight.dims2()?;
        if let Some(p) = padding
            && p as usize >= v
        {
            bail!("embedding: padding id {p} is not below the vocabulary size {v}");
        }
        Ok(Self { weight, padding })
    }

    /// The vectors of `ids` (u32, any shape): `(…, d)`.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        embedding(&self.weight, ids, self.padding)
    }

    /// The sum over the words of each sentence, `Σ_j l_j ∘ E[x_j]`, of `ids` `(…, j)`: `(…, d)`.
    /// `weights` `(j, d)` are position weights
    /// ([`position_encoding`](crate::position_encoding)); all 1 where `None`.
    pub fn pooled(&self, ids: &Tensor, weights: Option<&Tensor>) -> Result<Tensor> {
        pooled_embedding(&self.weight, ids, weights, self.padding)
    }

    /// The table, `(v, d)`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}
