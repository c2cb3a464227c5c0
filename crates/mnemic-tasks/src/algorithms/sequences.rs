//! Batches that are read step by step, and how outputs are scored.

use std::f64::consts::LN_2;

use candle_core::{DType, Device, Tensor};
use mnemic_data::algorithms::{Sequence, SequenceBatch};
use mnemic_models::{
    AnySequenceModel, Context, CrossEntropy, IGNORE, Reduction, SequenceModel, bce_with_logits,
    cross_entropy,
};

use super::score::SequenceScore;
use crate::Result;

/// Inputs, targets of the scored steps and which these are.
#[derive(Debug)]
pub(super) struct Sequences {
    inputs: Tensor,
    targets: Targets,
    scored: Vec<bool>,
    /// The sequences that are counted.
    whole: Vec<Sequence>,
}

/// What is to be said at the scored steps.
#[derive(Debug)]
enum Targets {
    /// `(b, steps, o)`: zeros and ones.
    Bits(Tensor),
    /// A symbol of each row and step, `b` times the steps; [`IGNORE`] where it is not scored.
    Symbols(Vec<i64>),
}

/// What of a stream gives a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// All that is scored, also of a sequence that is cut.
    Cut,
    /// Whole sequences.
    Whole,
}

impl Sequences {
    pub(super) fn new(batch: SequenceBatch, ends: Ends, device: &Device) -> Result<Self> {
        let SequenceBatch { batch_size: b, steps: t, input_size: i, output_size: o, .. } = batch;
        let count = batch.scored.iter().filter(|&&scored| scored).count();
        let targets = match batch.symbols {
            true => Targets::Symbols(symbols(&batch, ends)),
            false => {
                let rows = batch.targets.chunks_exact(o).zip(batch.scored.iter().cycle());
                let rows = rows.filter(|(_, scored)| **scored).map(|(row, _)| row);
                let targets: Vec<f32> = rows.flatten().copied().collect();
                Targets::Bits(Tensor::from_vec(targets, (b, count, o), device)?)
            }
        };
        let inputs = Tensor::from_vec(batch.inputs, (b, t, i), device)?;
        Ok(Self { inputs, targets, scored: batch.scored, whole: batch.sequences })
    }

    /// The summed cross-entropy, and how much is wrong.
    pub(super) fn score(
        &self,
        model: &AnySequenceModel,
        ctx: &Context,
    ) -> Result<(Tensor, SequenceScore)> {
        let scores = model.forward(&self.inputs, Some(&self.scored), ctx)?;
        let loss = match &self.targets {
            Targets::Bits(targets) => bce_with_logits(&scores, targets, Reduction::Sum)?,
            Targets::Symbols(targets) => {
                let options = CrossEntropy { reduction: Reduction::Sum, ..Default::default() };
                cross_entropy(&scores.flatten_to(1)?, targets, &options)?
            }
        };
        let mut score = SequenceScore {
            bits: loss.detach().to_dtype(DType::F64)?.to_scalar::<f64>()? / LN_2,
            ..Default::default()
        };
        let wrong = self.wrong(&scores.detach())?;
        self.count(&wrong, &mut score);
        Ok((loss, score))
    }

    /// Counts the whole sequences, each with what is wrong at its scored steps.
    fn count(&self, wrong: &[Option<usize>], score: &mut SequenceScore) {
        // For each step, how many before it are scored.
        let mut before = vec![0];
        before.extend(self.scored.iter().scan(0, |sum, &scored| {
            *sum += usize::from(scored);
            Some(*sum)
        }));
        let steps = before.last().copied().unwrap_or(0);
        for Sequence { row, steps: own } in &self.whole {
            let place = |step: usize| row * steps + before.get(step).copied().unwrap_or(steps);
            let range = place(own.start)..place(own.end);
            let counts = wrong.get(range).unwrap_or_default().iter().flatten().copied();
            score.count(&counts.collect::<Vec<usize>>());
        }
    }

    /// How much is wrong at each scored step of each row: bits, or whether the symbol is another. None where this row's is not scored.
    fn wrong(&self, scores: &Tensor) -> Result<Vec<Option<usize>>> {
        let scores = scores.flatten_to(1)?.to_vec2::<f32>()?;
        Ok(match &self.targets {
            Targets::Bits(targets) => {
                let targets = targets.flatten_to(1)?.to_vec2::<f32>()?;
                let differ = |(s, t): (&f32, &f32)| (*s > 0.) != (*t > 0.5);
                let count = |(s, t): (&Vec<f32>, &Vec<f32>)| {
                    Some(s.iter().zip(t).filter(|&pair| differ(pair)).count())
                };
                scores.iter().zip(&targets).map(count).collect()
            }
            Targets::Symbols(targets) => {
                let best = |row: &Vec<f32>| {
                    let all = row.iter().enumerate();
                    all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i as i64)
                };
                let other = |(row, &t)| (t != IGNORE).then(|| usize::from(best(row) != t));
                scores.iter().zip(targets).map(other).collect()
            }
        })
    }
}

/// The symbols of the scored steps.
fn symbols(batch: &SequenceBatch, ends: Ends) -> Vec<i64> {
    let SequenceBatch { batch_size: b, steps: t, output_size: o, .. } = *batch;
    // Sequences follow each other, so that what is whole ends with the last of a row.
    let end = |row: usize| match ends {
        Ends::Cut => t,
        Ends::Whole => {
            let own = batch.sequences.iter().filter(|sequence| sequence.row == row);
            own.map(|sequence| sequence.steps.end).max().unwrap_or(0)
        }
    };
    let mut out = vec![];
    for row in 0..b {
        let end = end(row);
        for step in (0..t).filter(|&step| batch.scored[step]) {
            let target = &batch.targets[(row * t + step) * o..][..o];
            let symbol = target.iter().position(|&x| x > 0.5).filter(|_| step < end);
            out.push(symbol.map_or(IGNORE, |symbol| symbol as i64));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use mnemic_data::algorithms::{Algorithm, Pattern};

    use super::*;

    /// Two rows: `aabb` and the beginning of another sequence; `ab` and `aabb`.
    fn stream() -> SequenceBatch {
        let task = Algorithm::Pattern { task: Pattern::AnBn, length: (1, 2) };
        let mut batch = task.batch(2, 1, 0).unwrap();
        let rows = ["aabbabb", "abaabba"];
        batch.steps = 6;
        batch.inputs.truncate(2 * 6 * 2);
        batch.targets = vec![0.; 2 * 6 * 2];
        batch.scored = vec![false; 6];
        // What comes after a first b.
        for (row, step) in [(0, 2), (0, 3), (0, 5), (1, 1), (1, 4), (1, 5)] {
            let symbol = usize::from(rows[row].as_bytes()[step + 1] == b'b');
            batch.targets[(row * 6 + step) * 2 + symbol] = 1.;
            batch.scored[step] = true;
        }
        let whole = |row, steps| Sequence { row, steps };
        batch.sequences = vec![whole(0, 0..4), whole(1, 0..2), whole(1, 2..6)];
        batch
    }

    #[test]
    fn what_a_row_does_not_score_is_ignored() {
        let batch = stream();
        let (a, b, no) = (0, 1, IGNORE);
        assert_eq!(symbols(&batch, Ends::Cut), [no, b, a, no, b, a, no, no, b, a]);
        // The last sequence of the first row is none of the whole ones.
        assert_eq!(symbols(&batch, Ends::Whole), [no, b, a, no, no, a, no, no, b, a]);
    }

    #[test]
    fn whole_sequences_are_counted() {
        let batch = Sequences::new(stream(), Ends::Whole, &Device::Cpu).unwrap();
        assert_eq!(batch.scored, [false, true, true, true, true, true]);
        // Always `a`, but `b` at step 4: row 0 misses its b, row 1 misses nothing.
        let said = [0., 0., 0., 1., 0., 0., 0., 0., 1., 0.];
        let scores: Vec<f32> = said.into_iter().flat_map(|b| [1. - b, b]).collect();
        let scores = Tensor::from_vec(scores, (2, 5, 2), &Device::Cpu).unwrap();
        let mut score = SequenceScore::default();
        batch.count(&batch.wrong(&scores).unwrap(), &mut score);
        assert_eq!((score.sequences, score.wrong_sequences, score.wrong_bits), (3, 1, 1));
        assert!((score.fine() - 2. / 3.).abs() < 1e-12);
    }
}
