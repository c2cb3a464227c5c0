use candle_core::{Result, Tensor};

use super::{End, Step, Structure};

/// Plain twin of [`super::step`].
pub fn step(structure: Structure, strengths: &Tensor, commands: &Tensor) -> Result<Step> {
    let command = |i: usize| commands.narrow(1, i, 1);
    let mut left = strengths.clone();
    for (i, &end) in structure.read_ends().iter().enumerate() {
        let passed = before(&left, end)?;
        // `relu` has the gradient 0 at 0, as the left side of `max(0, x)` has.
        let reached = command(2 * i + 1)?.broadcast_sub(&passed)?.relu()?;
        left = (left - reached)?.relu()?;
    }
    let rows = match structure {
        Structure::Deque => vec![command(2)?, left, command(0)?],
        _ => vec![left, command(0)?],
    };
    let strengths = Tensor::cat(&rows, 1)?;
    let weigh = |&end: &End| {
        let room = (1. - before(&strengths, end)?)?.relu()?;
        // Where both are equal the left side counts.
        strengths.le(&room)?.where_cond(&strengths, &room)
    };
    let weights = structure.read_ends().iter().map(weigh).collect::<Result<_>>()?;
    Ok(Step { strengths, weights })
}

/// Plain twin of [`super::read`].
pub fn read(weights: &Tensor, rows: &[Tensor]) -> Result<Tensor> {
    let all = Tensor::stack(rows, 1)?; // (b, n, m)
    weights.unsqueeze(1)?.contiguous()?.matmul(&all)?.squeeze(1)
}

/// For each row, the strengths of those between it and the end.
fn before(strengths: &Tensor, end: End) -> Result<Tensor> {
    let (b, n) = strengths.dims2()?;
    if b * n == 0 {
        return Ok(strengths.clone());
    }
    // The product with a triangle of ones: entry (j, i) says whether row j lies before row i.
    let counts = |i: usize, j: usize| match end {
        End::Top => j > i,
        End::Bottom => j < i,
    };
    let ones: Vec<f64> = (0..n * n).map(|at| f64::from(u8::from(counts(at % n, at / n)))).collect();
    let ones = Tensor::from_vec(ones, (n, n), strengths.device())?.to_dtype(strengths.dtype())?;
    strengths.contiguous()?.matmul(&ones)
}
