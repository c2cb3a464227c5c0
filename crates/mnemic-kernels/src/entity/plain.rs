//! The definition, in ordinary candle operations.

use candle_core::{Result, Tensor};

use super::{EntityScan, EntityWeights};

/// Plain twin of [`super::entity_scan`]; every row's length is given.
pub fn entity_scan(
    sentences: &Tensor,
    keys: &Tensor,
    initial: &Tensor,
    weights: EntityWeights<'_>,
    lengths: &[usize],
) -> Result<EntityScan> {
    let (b, n, d) = sentences.dims3()?;
    let (m, _) = keys.dims2()?;
    let there: Vec<u8> =
        lengths.iter().flat_map(|&l| (0..n).map(move |t| (t < l).into())).collect();
    let there = Tensor::from_vec(there, (b, n), sentences.device())?;
    // Padding is cut out: zero times what it holds need not be zero.
    let sentences = select(&there, sentences, &sentences.zeros_like()?)?;
    let fixed = keys.matmul(&weights.key.t()?)?.broadcast_add(weights.bias)?; // (m, d)
    let (state, input) = (weights.state.t()?, weights.input.t()?);
    let mut h = initial.unsqueeze(0)?.broadcast_as((b, m, d))?.contiguous()?;
    let mut gates = Vec::with_capacity(n);
    for t in 0..n {
        let s = sentences.narrow(1, t, 1)?; // (b, 1, d)
        let mut scores = h.broadcast_add(keys)?.broadcast_mul(&s)?.sum(2)?; // (b, m)
        if let Some(bias) = weights.gate_bias {
            scores = scores.broadcast_add(bias)?;
        }
        let g = (scores.neg()?.exp()? + 1.)?.recip()?;
        let z = h.broadcast_matmul(&state)?.broadcast_add(&fixed)?; // (b, m, d)
        let z = z.broadcast_add(&s.broadcast_matmul(&input)?)?;
        let candidate = prelu(&z, weights.slopes)?;
        let next = normalize(&(&h + candidate.broadcast_mul(&g.unsqueeze(2)?)?)?)?;
        let now = there.narrow(1, t, 1)?.squeeze(1)?; // (b)
        h = select(&now, &next, &h)?;
        gates.push(select(&now, &g, &g.zeros_like()?)?);
    }
    let gates = match n {
        0 => Tensor::zeros((b, 0, m), h.dtype(), h.device())?,
        _ => Tensor::stack(&gates, 1)?, // (b, n, m)
    };
    Ok(EntityScan { state: h, gates })
}

/// `yes` or `no`, by a mask of their first axes.
fn select(mask: &Tensor, yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let mut shape = mask.dims().to_vec();
    shape.resize(yes.rank(), 1);
    mask.reshape(shape)?.broadcast_as(yes.shape())?.where_cond(yes, no)
}

fn prelu(z: &Tensor, slopes: &Tensor) -> Result<Tensor> {
    z.gt(0.)?.where_cond(z, &z.broadcast_mul(slopes)?)
}

/// `v / |v|` along the last axis; zeros where the norm is 0.
fn normalize(v: &Tensor) -> Result<Tensor> {
    let squares = v.sqr()?.sum_keepdim(2)?; // (b, m, 1)
    let positive = squares.gt(0.)?;
    let safe = positive.where_cond(&squares, &squares.ones_like()?)?;
    let inverse = positive.where_cond(&safe.sqrt()?.recip()?, &safe.zeros_like()?)?;
    v.broadcast_mul(&inverse)
}
