//! The patterns of stack-augmented networks: A. Joulin, T. Mikolov, arXiv 1503.01007 (2015), section 4.
//!
//! A row is a stream of sequences, one right after the other, of which every next symbol is to be predicted. Where a sequence ends must be noticed. Only
//! what can be known is scored.

use super::{Sequence, SequenceBatch, within};
use crate::sampling::Draws;

/// What the sequences of a stream are like. Sizes are the numbers n, or n + m.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// `a^n b^n`.
    AnBn,
    /// `a^n b^n c^n`.
    AnBnCn,
    /// `a^n b^n c^n d^n`.
    AnBnCnDn,
    /// `a^n b^2n`.
    AnB2n,
    /// `a^n b^m c^(n+m)`; the size is n + m.
    AnBmCnm,
    /// A string of n times `a` or `b`, a marker, and the string in reverse order.
    Memorization,
    /// Two binary numbers, `101+1=`, and their sum with the last digit first, `011.`; the size is the number of their digits.
    Addition,
}

/// Sequences of a row.
const SEQUENCES: usize = 10;
/// The largest size.
const MAX_LENGTH: usize = 4096;

/// The symbols of a sequence and those of them that are scored; place `symbols.len()` is the first symbol of the next sequence.
pub(super) struct Drawn {
    pub(super) symbols: Vec<usize>,
    pub(super) scored: std::ops::Range<usize>,
}

impl Pattern {
    /// All of them, with their names in recipes.
    pub const ALL: [(&'static str, Self); 7] = [
        ("anbn", Self::AnBn),
        ("anbncn", Self::AnBnCn),
        ("anbncndn", Self::AnBnCnDn),
        ("anb2n", Self::AnB2n),
        ("anbmcnm", Self::AnBmCnm),
        ("memorization", Self::Memorization),
        ("addition", Self::Addition),
    ];

    /// How many symbols there are.
    pub fn vocabulary(self) -> usize {
        match self {
            Self::AnBn | Self::AnB2n => 2,
            Self::AnBnCn | Self::AnBmCnm | Self::Memorization => 3,
            Self::AnBnCnDn => 4,
            Self::Addition => 5,
        }
    }

    /// The smallest size.
    pub(super) fn least(self) -> usize {
        match self {
            Self::AnBmCnm | Self::Addition => 2,
            _ => 1,
        }
    }

    /// The sizes of training: below 20.
    pub(super) fn paper(self) -> (usize, usize) {
        (self.least(), 19)
    }

    /// Whether there are sequences of these sizes.
    pub(super) fn fits(self, (least, most): (usize, usize)) -> bool {
        self.least() <= least && least <= most && most <= MAX_LENGTH
    }

    /// Streams of at least ten whole sequences with sizes in the range. They end together: where one would end sooner, it goes on, and its last sequence
    /// is cut.
    pub(super) fn batch(
        self,
        b: usize,
        length: (usize, usize),
        draws: &mut Draws,
    ) -> SequenceBatch {
        let mut draw = || self.sequence(within(draws, length), draws);
        let mut rows: Vec<Vec<Drawn>> =
            (0..b).map(|_| (0..SEQUENCES).map(|_| draw()).collect()).collect();
        let steps = rows.iter().map(|row| symbols(row)).max().unwrap_or(0);
        for row in &mut rows {
            // One symbol more than there are steps: the last target.
            while symbols(row) <= steps {
                row.push(draw());
            }
        }
        self.lay_out(&rows, steps)
    }

    pub(super) fn lay_out(self, rows: &[Vec<Drawn>], steps: usize) -> SequenceBatch {
        let width = self.vocabulary();
        let mut batch = SequenceBatch::new(rows.len(), steps, (width, width));
        (batch.symbols, batch.sequences) = (true, vec![]);
        for (row, sequences) in rows.iter().enumerate() {
            let mut start = 0;
            for Drawn { symbols, scored } in sequences {
                let end = start + symbols.len();
                for (step, &symbol) in (start..steps).zip(symbols) {
                    batch.input(row, step)[symbol] = 1.;
                }
                if end <= steps {
                    batch.sequences.push(Sequence { row, steps: start..end });
                }
                for place in scored.clone().filter(|place| start + place <= steps) {
                    // What comes after the last symbol is what every sequence begins with.
                    let symbol = symbols.get(place).copied().unwrap_or(0);
                    let step = start + place - 1;
                    batch.target(row, step)[symbol] = 1.;
                    batch.scored[step] = true;
                }
                start = end;
            }
        }
        batch
    }

    /// A sequence of a size.
    pub(super) fn sequence(self, n: usize, draws: &mut Draws) -> Drawn {
        match self {
            Self::AnBn => runs(&[n, n]),
            Self::AnBnCn => runs(&[n, n, n]),
            Self::AnBnCnDn => runs(&[n, n, n, n]),
            Self::AnB2n => runs(&[n, 2 * n]),
            Self::AnBmCnm => {
                let first = within(draws, (1, n - 1));
                let mut drawn = runs(&[first, n - first, n]);
                // The number of b's is not known, that of c's is.
                drawn.scored.start = n + 1;
                drawn
            }
            Self::Memorization => {
                let string: Vec<usize> = (0..n).map(|_| draws.below(2)).collect();
                let (marker, back) = (2, string.iter().rev());
                let symbols = string.iter().chain([&marker]).chain(back).copied().collect();
                Drawn { symbols, scored: n + 1..2 * n + 1 }
            }
            Self::Addition => {
                let first = within(draws, (1, n - 1));
                let mut number = |digits: usize| -> Vec<usize> {
                    (0..digits).map(|i| if i == 0 { 1 } else { draws.below(2) }).collect()
                };
                addition(&number(first), &number(n - first))
            }
        }
    }
}

/// The symbols of all sequences.
fn symbols(row: &[Drawn]) -> usize {
    row.iter().map(|drawn| drawn.symbols.len()).sum()
}

/// So many times each symbol in turn. After the first of the second symbol all is known, up to the beginning of the next sequence.
fn runs(counts: &[usize]) -> Drawn {
    let run = |(symbol, &n): (usize, &usize)| std::iter::repeat_n(symbol, n);
    let symbols: Vec<usize> = counts.iter().enumerate().flat_map(run).collect();
    let scored = counts.first().map_or(0, |n| n + 1)..symbols.len() + 1;
    Drawn { symbols, scored }
}

/// `x+y=` and their sum, the last digit first, with a dot; digits are the symbols 0 and 1, then come `+`, `=` and `.`.
pub(super) fn addition(x: &[usize], y: &[usize]) -> Drawn {
    let (plus, equals, dot) = (2, 3, 4);
    let mut symbols: Vec<usize> = x.iter().chain([&plus]).chain(y).copied().collect();
    symbols.push(equals);
    let start = symbols.len();
    let (mut x, mut y, mut carry) = (x.iter().rev(), y.iter().rev(), 0);
    loop {
        let digits = (x.next(), y.next());
        if digits == (None, None) && carry == 0 {
            break;
        }
        let sum = digits.0.copied().unwrap_or(0) + digits.1.copied().unwrap_or(0) + carry;
        symbols.push(sum % 2);
        carry = sum / 2;
    }
    symbols.push(dot);
    let end = symbols.len();
    Drawn { symbols, scored: start..end }
}
