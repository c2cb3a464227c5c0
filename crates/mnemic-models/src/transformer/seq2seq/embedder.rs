//! Word vectors with positions, and a norm after them where there is one.

use candle_core::{Module, Result, Tensor, bail};
use mnemic_layers::{
    Context, Embedding, LayerNorm, SinusoidLayout, add, scale, sinusoidal_positions,
};

/// How positions are written into word vectors.
#[derive(Debug, Clone)]
pub(in crate::transformer) enum Positions {
    /// A table whose row `i + offset` is position `i`.
    Learned { table: Embedding, offset: usize },
    /// Sines and cosines, position 0 being that of `first`.
    Sinusoids { layout: SinusoidLayout, first: usize },
}

/// `x_i = √d word[id_i] + position[i]`, normalised where there is a norm; the factor is `scale`.
#[derive(Debug, Clone)]
pub(in crate::transformer) struct Embedder {
    pub(in crate::transformer) words: Embedding,
    /// An id whose vector is read but not trained by reading it.
    pub(in crate::transformer) fixed: Option<u32>,
    pub(in crate::transformer) scale: f64,
    pub(in crate::transformer) positions: Positions,
    pub(in crate::transformer) max_positions: Option<usize>,
    pub(in crate::transformer) norm: Option<LayerNorm>,
    pub(in crate::transformer) dropout: f64,
}

impl Embedder {
    /// The vectors `(b, t, d)` of `ids (b, t)`, the first of which stands at position `start`.
    pub(in crate::transformer) fn forward(
        &self,
        ids: &Tensor,
        start: usize,
        ctx: &Context,
    ) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        if let Some(most) = self.max_positions
            && start + t > most
        {
            bail!("{} tokens, but there are {most} positions", start + t);
        }
        let xs = self.look_up(ids)?; // (b, t, d)
        let xs = if self.scale == 1. { xs } else { scale(&xs, self.scale)? };
        let xs = match &self.positions {
            Positions::Learned { table, offset } => {
                let first = (start + offset) as u32;
                let places = Tensor::arange(first, first + t as u32, ids.device())?;
                add(&xs, &table.forward(&places.broadcast_as((b, t))?.contiguous()?)?)?
            }
            Positions::Sinusoids { layout, first } => {
                let places = start + first..start + first + t;
                let (d, dtype) = (xs.dim(2)?, xs.dtype());
                let positions = sinusoidal_positions(places, d, *layout, dtype, xs.device())?;
                xs.broadcast_add(&positions)?
            }
        };
        let xs = match &self.norm {
            Some(norm) => norm.forward(&xs)?,
            None => xs,
        };
        ctx.dropout(&xs, self.dropout)
    }

    fn look_up(&self, ids: &Tensor) -> Result<Tensor> {
        let Some(fixed) = self.fixed else { return self.words.forward(ids) };
        let table = self.words.weight();
        // The words' own row `fixed` reads as zeros and gets no gradient.
        let xs = Embedding::from_weight(table.clone(), Some(fixed))?.forward(ids)?;
        let row = table.narrow(0, fixed as usize, 1)?.detach(); // (1, d)
        let here = ids.eq(fixed)?.to_dtype(xs.dtype())?.unsqueeze(2)?; // (b, t, 1)
        add(&xs, &here.broadcast_mul(&row)?)
    }
}
