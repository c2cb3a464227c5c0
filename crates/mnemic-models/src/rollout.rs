//! Models that take hard decisions on the way to their outputs, and learn them by trial (REINFORCE).

use candle_core::{DType, Result, Tensor};
use mnemic_layers::Context;
use mnemic_layers::losses::{CrossEntropy, Reduction, bce_with_logits, cross_entropy};

/// What such a model is given: cells to read, and outputs to make.
#[derive(Debug, Clone)]
pub struct Cells {
    /// `(b, n, input_size)`.
    pub inputs: Tensor,
    /// What is asked for, `(b, query_size)`, where the task has that.
    pub query: Option<Tensor>,
    /// The outputs that are right, zeros and ones, `(b, m, output_size)`.
    pub targets: Tensor,
    /// Whether an output is one of `output_size` symbols, rather than bits.
    pub symbols: bool,
}

/// What a pass comes to.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The scores of the outputs before a sigmoid or softmax, `(b, m, output_size)`.
    pub scores: Tensor,
    /// The log-likelihood of the right outputs, in nats, for each sequence.
    pub log_likelihood: Vec<f64>,
    /// In training, what to minimise: a scalar whose gradient is, in the mean, that of the negative log-likelihood, averaged over the batch.
    pub loss: Option<Tensor>,
}

/// A model that takes hard decisions: drawn in training, the likeliest else.
pub trait RolloutModel {
    /// Width of a cell.
    fn input_size(&self) -> usize;

    /// Width of the outputs.
    fn output_size(&self) -> usize;

    /// A pass over `cells`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn rollout(&self, cells: &Cells, ctx: &Context) -> Result<Rollout>;
}

/// The summed negative log-likelihood of the right outputs, and the log-likelihood of each, `(b, m)` row by row.
pub(crate) fn likelihood(cells: &Cells, scores: &Tensor) -> Result<(Tensor, Vec<Vec<f64>>)> {
    let (_, m, _) = scores.dims3()?;
    let (sum, each) = if cells.symbols {
        let flat = cells.targets.flatten_to(1)?.to_dtype(DType::F32)?.argmax(1)?;
        let targets: Vec<i64> = flat.to_vec1::<u32>()?.into_iter().map(i64::from).collect();
        let loss = |reduction| {
            let options = CrossEntropy { reduction, ..CrossEntropy::default() };
            cross_entropy(&scores.flatten_to(1)?, &targets, &options)
        };
        (loss(Reduction::Sum)?, loss(Reduction::None)?)
    } else {
        let each = bce_with_logits(&scores.detach(), &cells.targets, Reduction::None)?;
        (bce_with_logits(scores, &cells.targets, Reduction::Sum)?, each.sum(2)?.flatten_all()?)
    };
    let each = each.detach().to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok((sum, each.chunks_exact(m).map(|row| row.iter().map(|x| -x).collect()).collect()))
}

/// The sums of what is still to come, discounted by γ, for each row of `(b, m)` rewards: `R_t = Σ_{s ≥ t} γ^{s-t} r_s`.
pub(crate) fn returns(rewards: &[Vec<f64>], discount: f64) -> Vec<Vec<f64>> {
    let sums = |row: &Vec<f64>| {
        let mut sum = 0.;
        let mut out: Vec<f64> = row
            .iter()
            .rev()
            .map(|r| {
                sum = sum * discount + r;
                sum
            })
            .collect();
        out.reverse();
        out
    };
    rewards.iter().map(sums).collect()
}

/// Returns less the mean of the other rows of the batch at the same step, which does not depend on the row's own decisions: `(b, m)` row by row. A row that is alone keeps
/// its returns.
pub(crate) fn advantages(returns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (b, m) = (returns.len(), returns.first().map_or(0, Vec::len));
    let mut out = returns.to_vec();
    if b < 2 {
        return out;
    }
    for step in 0..m {
        let sum: f64 = returns.iter().map(|row| row[step]).sum();
        for row in &mut out {
            row[step] -= (sum - row[step]) / (b - 1) as f64;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_look_ahead_and_advantages_leave_themselves_out() {
        let all = returns(&[vec![1., 2., 3.], vec![0., 0., 1.], vec![4., 0., 0.]], 1.);
        assert_eq!(all, [[6., 5., 3.], [1., 1., 1.], [4., 0., 0.]]);
        assert_eq!(advantages(&all), [[3.5, 4.5, 2.5], [-4., -1.5, -0.5], [0.5, -3., -2.]]);
        assert_eq!(advantages(&all[..1]), all[..1]);
        assert_eq!(returns(&[vec![1., 2., 4.]], 0.5), [[3., 4., 4.]]);
    }
}
