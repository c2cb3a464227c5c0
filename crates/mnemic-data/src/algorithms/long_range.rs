//! Tasks in which what matters is far back among what does not: needle recall, a definition of our own, and copying after a long blank
//! (M. Arjovsky, A. Shah, Y. Bengio, arXiv 1511.06464, 2016, section 5.1, after S. Hochreiter and J. Schmidhuber, 1997).
//!
//! Inputs are one-hot rows.

use super::SequenceBatch;
use crate::sampling::Draws;

/// What is far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongRange {
    /// Sixteen pairs, a key and right after it its value, at random places among noise; then a marker and one of the keys, where its value is
    /// to be given. Of 64 symbols 16 are keys, each of which has one pair, 32 are values, one is the marker and the rest noise. The size is the length of
    /// the sequence.
    NeedleRecall,
    /// Ten symbols of eight, a blank of the size less one, a delimiter, and ten more blanks at which the symbols are to be given again. The paper scores all
    /// steps; here the blanks before the answer are not scored. Without a memory a sequence costs 30 bits.
    CopyMemory,
}

/// Symbols of needle recall, and among them keys and values.
const VOCABULARY: usize = 64;
const KEYS: usize = 16;
const VALUES: usize = 32;
/// Symbols to be copied, and how many.
const ALPHABET: usize = 8;
const COPIED: usize = 10;
/// The longest sequence.
const MAX_LENGTH: usize = 1 << 20;

impl LongRange {
    /// All of them, with their names in recipes and the least and the most of the sizes that are trained on.
    pub const ALL: [(&'static str, Self, (usize, usize)); 2] = [
        ("needle-recall", Self::NeedleRecall, (2 * KEYS + 2, 1000)),
        ("copy-memory", Self::CopyMemory, (100, 100)),
    ];

    /// Widths of inputs and outputs.
    pub(super) fn sizes(self) -> (usize, usize) {
        match self {
            Self::NeedleRecall => (VOCABULARY, VALUES),
            Self::CopyMemory => (ALPHABET + 2, ALPHABET),
        }
    }

    /// Whether the task has these sizes.
    pub(super) fn fits(self, (least, most): (usize, usize)) -> bool {
        let smallest = match self {
            Self::NeedleRecall => 2 * KEYS + 2,
            Self::CopyMemory => 1,
        };
        smallest <= least && least <= most && most <= MAX_LENGTH
    }

    /// Sequences of one size in the range. Sizes are drawn evenly on a scale of factors: as many between 100 and 200 as between 200 and 400.
    pub(super) fn batch(
        self,
        b: usize,
        (least, most): (usize, usize),
        draws: &mut Draws,
    ) -> SequenceBatch {
        let ratio = (most + 1) as f64 / least as f64;
        let size = (least as f64 * ratio.powf(draws.unit())) as usize;
        let size = size.clamp(least, most);
        match self {
            Self::NeedleRecall => self.recall(b, size, draws),
            Self::CopyMemory => self.copy(b, size, draws),
        }
    }

    fn recall(self, b: usize, steps: usize, draws: &mut Draws) -> SequenceBatch {
        let mut batch = SequenceBatch::new(b, steps, self.sizes());
        batch.symbols = true;
        let (marker, noise) = (VOCABULARY - 1, KEYS + VALUES);
        for row in 0..b {
            let mut keys: Vec<usize> = (0..KEYS).collect();
            draws.shuffle(&mut keys);
            // A pair shrunk to one place leaves places to choose, in order and without overlap.
            let places = chosen(steps - 2 - KEYS, KEYS, draws);
            let asked = draws.below(KEYS);
            let mut symbols: Vec<usize> =
                (0..steps).map(|_| noise + draws.below(marker - noise)).collect();
            for (i, (&key, place)) in keys.iter().zip(places).enumerate() {
                let value = draws.below(VALUES);
                symbols[place + i] = key;
                symbols[place + i + 1] = KEYS + value;
                if i == asked {
                    batch.target(row, steps - 1)[value] = 1.;
                }
            }
            symbols[steps - 2] = marker;
            symbols[steps - 1] = keys[asked];
            for (step, symbol) in symbols.into_iter().enumerate() {
                batch.input(row, step)[symbol] = 1.;
            }
        }
        batch.score(steps - 1..steps);
        batch
    }

    fn copy(self, b: usize, blank: usize, draws: &mut Draws) -> SequenceBatch {
        let steps = blank + 2 * COPIED;
        let mut batch = SequenceBatch::new(b, steps, self.sizes());
        batch.symbols = true;
        for row in 0..b {
            for step in 0..steps {
                let symbol = match step {
                    0..COPIED => draws.below(ALPHABET),
                    _ if step == COPIED + blank - 1 => ALPHABET + 1,
                    _ => ALPHABET,
                };
                batch.input(row, step)[symbol] = 1.;
                if step < COPIED {
                    batch.target(row, blank + COPIED + step)[symbol] = 1.;
                }
            }
        }
        batch.score(blank + COPIED..steps);
        batch
    }
}

/// `count` different numbers below `n`, evenly drawn, in order (Floyd's sampling).
fn chosen(n: usize, count: usize, draws: &mut Draws) -> Vec<usize> {
    let mut chosen: Vec<usize> = vec![];
    for last in n - count..n {
        let drawn = draws.below(last + 1);
        chosen.push(if chosen.contains(&drawn) { last } else { drawn });
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use crate::algorithms::Algorithm;

    fn symbols(rows: &[f32], width: usize) -> Vec<Option<usize>> {
        let hot = |row: &[f32]| {
            assert!(row.iter().filter(|&&x| x == 1.).count() <= 1);
            assert!(row.iter().all(|&x| x == 0. || x == 1.));
            row.iter().position(|&x| x == 1.)
        };
        rows.chunks_exact(width).map(hot).collect()
    }

    #[test]
    fn the_value_of_the_key_that_is_asked_for_stands_after_it() {
        let task = Algorithm::named("needle-recall").unwrap();
        let mut places = std::collections::BTreeSet::new();
        for (number, size) in [(0, 34), (1, 35), (2, 100), (3, 1000)] {
            let batch = task.at(&[size]).unwrap().batch(5, 1, number).unwrap();
            assert_eq!((batch.steps, batch.input_size, batch.output_size), (size, 64, 32));
            assert_eq!(batch.scored.iter().position(|&s| s), Some(size - 1));
            let inputs = symbols(&batch.inputs, 64);
            let targets = symbols(&batch.targets, 32);
            for row in 0..5 {
                let read = |step: usize| inputs[row * size + step].unwrap();
                let mut pairs = std::collections::BTreeMap::new();
                for step in (0..size - 2).filter(|&step| read(step) < 16) {
                    assert!((16..48).contains(&read(step + 1)));
                    assert!(pairs.insert(read(step), read(step + 1) - 16).is_none());
                    places.insert(step * 100 / size);
                }
                assert_eq!(pairs.len(), 16);
                let values = (0..size - 2).filter(|&s| (16..48).contains(&read(s))).count();
                assert_eq!((values, read(size - 2)), (16, 63));
                let noise = (0..size - 2).filter(|&s| read(s) >= 48).count();
                assert_eq!(noise, size - 2 - 32);
                let asked = &targets[row * size..(row + 1) * size];
                assert_eq!(asked[size - 1], Some(pairs[&read(size - 1)]));
                assert!(asked[..size - 1].iter().all(Option::is_none) && batch.symbols);
            }
        }
        assert!(places.len() > 60, "{places:?}");
    }

    #[test]
    fn lengths_are_even_in_factors() {
        let task = Algorithm::named("needle-recall").unwrap();
        let lengths: Vec<usize> =
            (0..600).map(|number| task.batch(1, 1, number).unwrap().steps).collect();
        assert!(lengths.iter().all(|n| (34..=1000).contains(n)));
        // Half of them lie below the geometric mean.
        let short = lengths.iter().filter(|&&n| n < 184).count();
        assert!((240..=360).contains(&short), "{short}");
        assert_eq!(
            task.at(&[200, 300]).unwrap().at(&[50]).unwrap().batch(1, 1, 0).unwrap().steps,
            50
        );
        assert!(task.at(&[33]).is_err() && task.at(&[50, 40]).is_err());
    }

    #[test]
    fn what_is_copied_comes_after_the_delimiter() {
        let batch = Algorithm::named("copy-memory").unwrap().at(&[30]).unwrap();
        let batch = batch.batch(3, 1, 0).unwrap();
        assert_eq!((batch.steps, batch.input_size, batch.output_size), (50, 10, 8));
        let inputs = symbols(&batch.inputs, 10);
        let targets = symbols(&batch.targets, 8);
        for row in 0..3 {
            let (read, said) = (&inputs[row * 50..][..50], &targets[row * 50..][..50]);
            assert_eq!(read[..10], said[40..]);
            assert!(read[10..39].iter().chain(&read[40..]).all(|&s| s == Some(8)));
            assert_eq!(read[39], Some(9));
            assert!(said[..40].iter().all(Option::is_none));
        }
        let scored: Vec<usize> = (0..50).filter(|&t| batch.scored[t]).collect();
        assert_eq!(scored, (40..50).collect::<Vec<_>>());
    }
}
