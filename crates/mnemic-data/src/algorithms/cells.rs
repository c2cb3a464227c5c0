//! Tasks over cells that a model walks through by itself: those of the hierarchical attentive memory (M. Andrychowicz, K. Kurach, arXiv 1602.03218,
//! 2016) and of the RL-NTM (W. Zaremba, I. Sutskever, arXiv 1505.00521, 2015).
//!
//! A sequence is n cells, in some tasks a query, and m outputs, without steps in between. All sequences of a batch have one n, drawn for the batch.

use crate::error::{Error, Result};
use crate::sampling::Draws;

use super::within;

/// What is to be made of the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// Vectors of bits in reverse order.
    Reverse,
    /// Cells of key and value in the order of their keys; the query is one of the keys, its value is to be given.
    Search,
    /// Two sequences of key and value, one after the other, each in the order of its keys; the values in the order of all keys.
    Merge,
    /// Cells of key and value; the values in the order of their keys.
    Sort,
    /// Two bits a cell, one of each of two numbers, the lowest first; the bits of their sum. A cell holds both, since a model reads one for each output.
    Add,
    /// Symbols, as they are.
    TapeCopy,
    /// Symbols in reverse order.
    TapeReverse,
    /// Symbols that each come three times; each once.
    DuplicatedInput,
    /// How often, then symbols; the symbols so many times.
    TapeRepeatCopy,
}

/// Bits of a vector, of a key and of a value.
const BITS: usize = 8;
/// Symbols of the tapes: one that ends the input, those that say how often, and the rest.
const SYMBOLS: usize = 30;
/// The symbol after the last of the input.
const END: usize = 0;
/// The least and the most repetitions.
const REPEATS: (usize, usize) = (2, 3);
/// The first symbol that means nothing.
const FIRST: usize = 1 + REPEATS.1 - REPEATS.0 + 1;
/// How often a symbol comes in the duplicated input.
const COPIES: usize = 3;

/// Sequences of one number of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct CellBatch {
    /// Sequences b.
    pub batch_size: usize,
    /// Cells n of each.
    pub cells: usize,
    /// `(b, n, input_size)`, row-major.
    pub inputs: Vec<f32>,
    /// Width of a cell.
    pub input_size: usize,
    /// `(b, query_size)`; empty where nothing is asked for.
    pub query: Vec<f32>,
    /// Width of a query.
    pub query_size: usize,
    /// Outputs m of each sequence.
    pub outputs: usize,
    /// `(b, m, output_size)`: zeros and ones.
    pub targets: Vec<f32>,
    /// Width of an output.
    pub output_size: usize,
    /// Whether an output is one of `output_size` symbols (a single one), rather than bits.
    pub symbols: bool,
}

/// Cells, query and outputs of a sequence, as rows.
struct Sequence {
    inputs: Vec<Vec<f32>>,
    query: Vec<f32>,
    targets: Vec<Vec<f32>>,
}

impl Cells {
    /// All of them, with their names in recipes.
    pub const ALL: [(&'static str, Self); 9] = [
        ("reverse", Self::Reverse),
        ("search", Self::Search),
        ("merge", Self::Merge),
        ("sort", Self::Sort),
        ("add", Self::Add),
        ("tape-copy", Self::TapeCopy),
        ("tape-reverse", Self::TapeReverse),
        ("duplicated-input", Self::DuplicatedInput),
        ("tape-repeat-copy", Self::TapeRepeatCopy),
    ];

    /// The task of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(other, _)| *other == name).map(|(_, task)| *task)
    }

    /// Widths of a cell, an output and a query (0 where nothing is asked for). A leaf of a tree begins with a 1, which empty ones do not.
    pub fn sizes(self) -> (usize, usize, usize) {
        match self {
            Self::Reverse => (1 + BITS, BITS, 0),
            Self::Search => (1 + 2 * BITS, BITS, BITS),
            Self::Merge | Self::Sort => (1 + 2 * BITS, BITS, 0),
            Self::Add => (3, 1, 0),
            _ => (SYMBOLS, SYMBOLS, 0),
        }
    }

    /// The least and the most cells in training: trees of up to 32 leaves; tapes of up to 10 symbols, where the authors' curriculum goes further.
    pub fn paper(self) -> (usize, usize) {
        match self {
            _ if self.symbols() => (self.multiple(), 10 * self.multiple()),
            Self::Merge => (2, 32),
            _ => (1, 32),
        }
    }

    /// Whether an output is a symbol, rather than bits.
    pub fn symbols(self) -> bool {
        matches!(
            self,
            Self::TapeCopy | Self::TapeReverse | Self::DuplicatedInput | Self::TapeRepeatCopy
        )
    }

    /// What a size is rounded up to: merging needs two halves, duplicated symbols come in threes.
    fn multiple(self) -> usize {
        match self {
            Self::Merge => 2,
            Self::DuplicatedInput => COPIES,
            _ => 1,
        }
    }

    /// `batch_size` sequences of one size, the number of cells without ends and counts, drawn from `length`; the batch is a function of the arguments.
    ///
    /// ```
    /// use mnemic_data::algorithms::Cells;
    /// let batch = Cells::TapeReverse.batch((3, 3), 1, 7, 0)?;
    /// let symbol = |row: &[f32]| row.iter().position(|&x| x == 1.);
    /// let inputs: Vec<_> = batch.inputs.chunks(batch.input_size).map(symbol).collect();
    /// let targets: Vec<_> = batch.targets.chunks(batch.output_size).map(symbol).collect();
    /// assert_eq!(targets, [inputs[2], inputs[1], inputs[0]]);
    /// # Ok::<(), mnemic_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the sizes make no sense.
    pub fn batch(
        self,
        length: (usize, usize),
        batch_size: usize,
        seed: u64,
        number: u64,
    ) -> Result<CellBatch> {
        self.check(length)?;
        let mut draws = Draws::named(seed, number, b"mnemic cell task");
        let n = within(&mut draws, length).next_multiple_of(self.multiple());
        let repeats = within(&mut draws, REPEATS);
        let (input_size, output_size, query_size) = self.sizes();
        let mut batch = CellBatch {
            batch_size,
            cells: 0,
            inputs: vec![],
            input_size,
            query: vec![],
            query_size,
            outputs: 0,
            targets: vec![],
            output_size,
            symbols: self.symbols(),
        };
        for _ in 0..batch_size {
            let sequence = match self.symbols() {
                true => self.tape(n, repeats, &mut draws),
                false => self.leaves(n, &mut draws),
            };
            batch.cells = sequence.inputs.len();
            batch.outputs = sequence.targets.len();
            batch.inputs.extend(sequence.inputs.concat());
            batch.query.extend(sequence.query);
            batch.targets.extend(sequence.targets.concat());
        }
        Ok(batch)
    }

    /// Checks a range of sizes.
    ///
    /// # Errors
    /// When it is empty or too large for distinct keys.
    pub fn check(self, (least, most): (usize, usize)) -> Result<()> {
        let keyed = matches!(self, Self::Search | Self::Merge | Self::Sort);
        let limit = if keyed { 1 << BITS } else { 1 << 16 };
        if least == 0 || least > most || most > limit {
            let reason = format!("expected sizes from 1 to {limit}, got {least} to {most}");
            return Err(Error::argument("length", reason));
        }
        Ok(())
    }

    fn leaves(self, n: usize, draws: &mut Draws) -> Sequence {
        let with_flag = |cell: Vec<f32>| [vec![1.], cell].concat();
        match self {
            Self::Reverse => {
                let vectors: Vec<Vec<f32>> = (0..n).map(|_| random_bits(draws)).collect();
                let targets = vectors.iter().rev().cloned().collect();
                let inputs = vectors.into_iter().map(with_flag).collect();
                Sequence { inputs, query: vec![], targets }
            }
            Self::Add => {
                let (mut carry, mut inputs, mut targets) = (0, vec![], vec![]);
                for _ in 0..n {
                    let bits = [draws.below(2), draws.below(2)];
                    inputs.push(with_flag(bits.map(|bit| bit as f32).to_vec()));
                    let sum = bits[0] + bits[1] + carry;
                    targets.push(vec![(sum % 2) as f32]);
                    carry = sum / 2;
                }
                targets.push(vec![carry as f32]);
                Sequence { inputs, query: vec![], targets }
            }
            _ => self.keyed(n, draws),
        }
    }

    /// Cells of key and value.
    fn keyed(self, n: usize, draws: &mut Draws) -> Sequence {
        // The first n of a shuffled row of all keys are distinct.
        let mut keys: Vec<usize> = (0..1 << BITS).collect();
        for i in 0..n {
            let with = i + draws.below(keys.len() - i);
            keys.swap(i, with);
        }
        let mut cells: Vec<(usize, Vec<f32>)> =
            keys[..n].iter().map(|&key| (key, random_bits(draws))).collect();
        let mut sorted = cells.clone();
        sorted.sort_by_key(|(key, _)| *key);
        let asked = draws.below(n);
        match self {
            Self::Search => cells.clone_from(&sorted),
            Self::Merge => {
                cells.chunks_mut(n / 2).for_each(|half| half.sort_by_key(|(key, _)| *key));
            }
            _ => {}
        }
        let row =
            |(key, value): &(usize, Vec<f32>)| [vec![1.], bits_of(*key), value.clone()].concat();
        let (query, targets) = match (self, sorted.get(asked)) {
            (Self::Search, Some((key, value))) => (bits_of(*key), vec![value.clone()]),
            _ => (vec![], sorted.iter().map(|(_, value)| value.clone()).collect()),
        };
        Sequence { inputs: cells.iter().map(row).collect(), query, targets }
    }

    fn tape(self, n: usize, repeats: usize, draws: &mut Draws) -> Sequence {
        let mut random = |count: usize| -> Vec<usize> {
            (0..count).map(|_| FIRST + draws.below(SYMBOLS - FIRST)).collect()
        };
        let (inputs, targets): (Vec<usize>, Vec<usize>) = match self {
            Self::DuplicatedInput => {
                let symbols = random(n / COPIES);
                let inputs = symbols.iter().flat_map(|&symbol| [symbol; COPIES]).collect();
                (inputs, symbols)
            }
            Self::TapeRepeatCopy => {
                let symbols = random(n);
                let count = 1 + repeats - REPEATS.0;
                let inputs = std::iter::once(count).chain(symbols.iter().copied()).collect();
                (inputs, symbols.repeat(repeats))
            }
            _ => {
                let symbols = random(n);
                let mut targets = symbols.clone();
                if self == Self::TapeReverse {
                    targets.reverse();
                }
                (symbols, targets)
            }
        };
        let row = |symbol: usize| {
            let mut row = vec![0.; SYMBOLS];
            row[symbol] = 1.;
            row
        };
        let rows = |symbols: Vec<usize>| symbols.into_iter().map(row).collect::<Vec<_>>();
        let inputs = rows([inputs, vec![END]].concat());
        Sequence { inputs, query: vec![], targets: rows(targets) }
    }
}

/// The names of all of them.
pub fn cell_tasks() -> Vec<&'static str> {
    Cells::ALL.iter().map(|(name, _)| *name).collect()
}

fn random_bits(draws: &mut Draws) -> Vec<f32> {
    (0..BITS).map(|_| draws.below(2) as f32).collect()
}

/// A key's bits, the highest first.
fn bits_of(key: usize) -> Vec<f32> {
    (0..BITS).rev().map(|bit| (key >> bit & 1) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32], width: usize) -> Vec<Vec<f32>> {
        values.chunks(width).map(<[f32]>::to_vec).collect()
    }

    fn number(bits: &[f32]) -> usize {
        bits.iter().fold(0, |sum, bit| 2 * sum + *bit as usize)
    }

    /// Key and value of the cells of the first sequence.
    fn keyed(batch: &CellBatch) -> Vec<(usize, Vec<f32>)> {
        let cells = rows(&batch.inputs[..batch.cells * batch.input_size], batch.input_size);
        cells
            .into_iter()
            .map(|cell| {
                assert_eq!(cell[0], 1.);
                (number(&cell[1..=BITS]), cell[1 + BITS..].to_vec())
            })
            .collect()
    }

    fn symbols(values: &[f32]) -> Vec<usize> {
        rows(values, SYMBOLS)
            .iter()
            .map(|row| {
                assert_eq!(row.iter().sum::<f32>(), 1.);
                row.iter().position(|&x| x == 1.).unwrap()
            })
            .collect()
    }

    #[test]
    fn sorting_and_merging_give_values_in_the_order_of_keys() {
        for task in [Cells::Sort, Cells::Merge] {
            for number in 0..20 {
                let batch = task.batch((1, 32), 1, 3, number).unwrap();
                let mut cells = keyed(&batch);
                if task == Cells::Merge {
                    let half = cells.len() / 2;
                    assert!(cells[..half].is_sorted_by_key(|(key, _)| *key));
                    assert!(cells[half..].is_sorted_by_key(|(key, _)| *key));
                }
                cells.sort_by_key(|(key, _)| *key);
                assert!(cells.windows(2).all(|pair| pair[0].0 < pair[1].0));
                let values: Vec<Vec<f32>> = cells.into_iter().map(|(_, value)| value).collect();
                assert_eq!(rows(&batch.targets, BITS), values);
            }
        }
    }

    #[test]
    fn searching_asks_for_one_of_the_keys() {
        for seed in 0..20 {
            let batch = Cells::Search.batch((16, 16), 1, seed, 0).unwrap();
            let cells = keyed(&batch);
            assert!(cells.is_sorted_by_key(|(key, _)| *key));
            let asked = number(&batch.query);
            let (_, value) = cells.iter().find(|(key, _)| *key == asked).unwrap();
            assert_eq!((&batch.targets, batch.outputs), (value, 1));
        }
    }

    #[test]
    fn adding_adds() {
        for seed in 0..50 {
            let batch = Cells::Add.batch((1, 20), 1, seed, 0).unwrap();
            let cells = rows(&batch.inputs, 3);
            let number = |which: usize| -> usize {
                cells.iter().enumerate().map(|(i, cell)| (cell[1 + which] as usize) << i).sum()
            };
            let sum: usize =
                batch.targets.iter().enumerate().map(|(i, bit)| (*bit as usize) << i).sum();
            assert_eq!(sum, number(0) + number(1));
            assert_eq!(batch.outputs, batch.cells + 1);
        }
    }

    #[test]
    fn tapes_end_and_hold_what_is_to_be_written() {
        for number in 0..20 {
            let batch = Cells::DuplicatedInput.batch((5, 12), 1, 3, number).unwrap();
            let mut inputs = symbols(&batch.inputs);
            assert_eq!(inputs.pop(), Some(END));
            let once: Vec<usize> = inputs.chunks(3).map(|three| three[0]).collect();
            assert!(inputs.chunks(3).all(|three| three == [three[0]; 3]));
            assert_eq!(symbols(&batch.targets), once);
            let batch = Cells::TapeRepeatCopy.batch((4, 4), 1, 3, number).unwrap();
            let inputs = symbols(&batch.inputs);
            assert_eq!(symbols(&batch.targets), inputs[1..5].repeat(1 + inputs[0]));
            assert!(inputs[1..5].iter().all(|&symbol| symbol >= FIRST));
            let batch = Cells::TapeCopy.batch((4, 9), 2, 3, number).unwrap();
            let all = symbols(&batch.inputs);
            let first = &all[..batch.cells];
            assert_eq!(symbols(&batch.targets)[..batch.outputs], first[..batch.cells - 1]);
        }
    }

    #[test]
    fn batches_repeat_and_sizes_are_checked() {
        for (name, task) in Cells::ALL {
            assert_eq!(Cells::named(name), Some(task));
            let batch = task.batch((2, 9), 3, 1, 5).unwrap();
            assert_eq!(batch, task.batch((2, 9), 3, 1, 5).unwrap());
            assert_ne!(batch, task.batch((2, 9), 3, 2, 5).unwrap());
            let (input, output, query) = task.sizes();
            assert_eq!(batch.inputs.len(), 3 * batch.cells * input);
            assert_eq!(batch.targets.len(), 3 * batch.outputs * output);
            assert_eq!(batch.query.len(), 3 * query);
        }
        let error = Cells::Sort.batch((2, 300), 1, 0, 0).unwrap_err().to_string();
        assert!(error.contains("1 to 256, got 2 to 300"), "{error}");
        assert!(Cells::Reverse.batch((3, 2), 1, 0, 0).is_err());
        assert_eq!(Cells::named("sorting"), None);
    }
}
