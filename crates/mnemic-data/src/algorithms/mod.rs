//! Algorithmic tasks: the five of the Neural Turing Machine (A. Graves, G. Wayne, I. Danihelka, arXiv 1410.5401, 2014, section 4), the
//! transductions of neural stacks (E. Grefenstette et al., arXiv 1506.02516, 2015, section 4; see [`Transduction`]), the patterns of
//! stack-augmented networks (A. Joulin, T. Mikolov, arXiv 1503.01007, 2015, section 4; see [`Pattern`]), questions about graphs
//! (A. Graves et al., Nature 538, 2016; see [`Graph`]), and tasks of long range (see [`LongRange`]).
//!
//! Sequences of vectors, generated without end. Outputs are scored at some steps only. All rows of a batch have one length, so that no step is
//! padding: a row is one sequence, of a length drawn for the batch, or in patterns a stream of sequences.

mod cells;
mod grammar;
mod graph;
mod long_range;
mod pattern;
#[cfg(test)]
mod tests;
mod transduction;

use crate::error::{Error, Result};
use crate::sampling::Draws;

pub use cells::{CellBatch, Cells, cell_tasks};
pub use graph::Graph;
pub use long_range::LongRange;
pub use pattern::Pattern;
pub use transduction::Transduction;

/// A task with its sizes. The constructors give the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Section 4.1: random vectors, a delimiter on a channel of its own, then the same vectors are to be given.
    Copy {
        /// Width of a vector.
        bits: usize,
        /// The least and the most vectors.
        length: (usize, usize),
    },
    /// Section 4.2: random vectors, the number of times (mean 0, variance 1) on a channel of its own, then the vectors so many times
    /// and an end marker on an output of its own.
    RepeatCopy {
        /// Width of a vector.
        bits: usize,
        /// The least and the most vectors.
        length: (usize, usize),
        /// The least and the most repetitions.
        repeats: (usize, usize),
        /// The range whose mean and variance the number shown is normalised by: that of training, also in tests.
        shown: (usize, usize),
    },
    /// Section 4.3: items of three vectors, each after a delimiter; then one of them between two query delimiters, and the next item is
    /// to be given. The last item is never asked about.
    AssociativeRecall {
        /// Width of a vector.
        bits: usize,
        /// The least and the most items, at least two.
        items: (usize, usize),
    },
    /// Section 4.4: bits of a random binary 6-gram model, the next bit to be predicted.
    NGrams {
        /// Bits of a sequence.
        length: usize,
    },
    /// Section 4.5: vectors with priorities in [-1, 1] on a channel of their own, a delimiter, then those of the highest priorities in
    /// decreasing order.
    PrioritySort {
        /// Width of a vector.
        bits: usize,
        /// Vectors given.
        inputs: usize,
        /// Vectors to be given back.
        outputs: usize,
    },
    /// A source of symbols is read, then a target written.
    Transduction {
        /// What becomes of the source.
        task: Transduction,
        /// The least and the most symbols of the source.
        length: (usize, usize),
    },
    /// Streams of sequences whose next symbols are to be predicted.
    Pattern {
        /// What the sequences are like.
        task: Pattern,
        /// The least and the most of their size.
        length: (usize, usize),
    },
    /// Questions about graphs.
    Graph {
        /// What is asked.
        task: Graph,
        /// The least and the most nodes.
        length: (usize, usize),
    },
    /// What is far back matters.
    LongRange {
        /// What it is.
        task: LongRange,
        /// The least and the most of the task's size.
        length: (usize, usize),
    },
}

/// Vectors of an item in associative recall.
const ITEM: usize = 3;
/// Bits that the next bit depends on in n-grams.
const CONTEXT: usize = 5;

/// Where a whole sequence lies in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The row.
    pub row: usize,
    /// Its steps.
    pub steps: std::ops::Range<usize>,
}

/// Rows of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceBatch {
    /// Rows b.
    pub batch_size: usize,
    /// Steps t of each.
    pub steps: usize,
    /// `(b, t, input_size)`, row-major.
    pub inputs: Vec<f32>,
    /// Width of the inputs.
    pub input_size: usize,
    /// `(b, t, output_size)`: zeros and ones.
    pub targets: Vec<f32>,
    /// Width of the outputs.
    pub output_size: usize,
    /// The steps whose outputs are scored in any row. Where a step is not scored in one row, its target is all zeros; that is so only of symbols.
    pub scored: Vec<bool>,
    /// Whether a target is one of `output_size` symbols (a single one), rather than bits.
    pub symbols: bool,
    /// The whole sequences: the rows, but in streams several of each, and then a last one may be cut and is none of these.
    pub sequences: Vec<Sequence>,
}

impl SequenceBatch {
    fn new(batch_size: usize, steps: usize, (input_size, output_size): (usize, usize)) -> Self {
        Self {
            batch_size,
            steps,
            inputs: vec![0.; batch_size * steps * input_size],
            input_size,
            targets: vec![0.; batch_size * steps * output_size],
            output_size,
            scored: vec![false; steps],
            symbols: false,
            sequences: (0..batch_size).map(|row| Sequence { row, steps: 0..steps }).collect(),
        }
    }

    fn input(&mut self, row: usize, step: usize) -> &mut [f32] {
        let start = (row * self.steps + step) * self.input_size;
        &mut self.inputs[start..start + self.input_size]
    }

    fn target(&mut self, row: usize, step: usize) -> &mut [f32] {
        let start = (row * self.steps + step) * self.output_size;
        &mut self.targets[start..start + self.output_size]
    }

    fn score(&mut self, steps: std::ops::Range<usize>) {
        self.scored[steps].fill(true);
    }
}

impl Algorithm {
    /// Copy as in the paper: 1 to 20 vectors of 8 bits.
    pub fn copy() -> Self {
        Self::Copy { bits: 8, length: (1, 20) }
    }

    /// Repeat copy as in the paper: 1 to 10 vectors of 8 bits, 1 to 10 times.
    pub fn repeat_copy() -> Self {
        Self::RepeatCopy { bits: 8, length: (1, 10), repeats: (1, 10), shown: (1, 10) }
    }

    /// Associative recall as in the paper: 2 to 6 items of three vectors of 6 bits.
    pub fn associative_recall() -> Self {
        Self::AssociativeRecall { bits: 6, items: (2, 6) }
    }

    /// Dynamic n-grams as in the paper: 200 bits.
    pub fn n_grams() -> Self {
        Self::NGrams { length: 200 }
    }

    /// Priority sort as in the paper: the 16 first of 20 vectors of 8 bits.
    pub fn priority_sort() -> Self {
        Self::PrioritySort { bits: 8, inputs: 20, outputs: 16 }
    }

    /// The task of this name in recipes, with the paper's sizes.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "copy" => Self::copy(),
            "repeat-copy" => Self::repeat_copy(),
            "associative-recall" => Self::associative_recall(),
            "n-grams" => Self::n_grams(),
            "priority-sort" => Self::priority_sort(),
            other => {
                let transduction = Transduction::ALL.iter().find(|(name, _)| *name == other);
                let pattern = Pattern::ALL.iter().find(|(name, _)| *name == other);
                let long_range = LongRange::ALL.iter().find(|(name, ..)| *name == other);
                let graph = Graph::ALL.iter().find(|(name, ..)| *name == other);
                match (transduction, pattern, graph, long_range) {
                    (Some(&(_, task)), ..) => Self::Transduction { task, length: (8, 64) },
                    (_, Some(&(_, task)), ..) => Self::Pattern { task, length: task.paper() },
                    (.., Some(&(_, task, length)), _) => Self::Graph { task, length },
                    (.., Some(&(_, task, length))) => Self::LongRange { task, length },
                    _ => return Err(unknown(other)),
                }
            }
        })
    }

    /// The same task at given sizes only: vectors (copy), vectors and repetitions (repeat copy), items (recall), bits (n-grams), vectors
    /// given and given back (sort), symbols or the least and the most symbols (transductions), a size or the least and the most (patterns,
    /// graphs, long range).
    ///
    /// # Errors
    /// When there are more or fewer sizes than that, or they make no sense.
    pub fn at(&self, sizes: &[usize]) -> Result<Self> {
        let task = match (*self, sizes) {
            (Self::Copy { bits, .. }, &[n]) => Self::Copy { bits, length: (n, n) },
            (Self::RepeatCopy { bits, shown, .. }, &[n, times]) => {
                Self::RepeatCopy { bits, length: (n, n), repeats: (times, times), shown }
            }
            (Self::AssociativeRecall { bits, .. }, &[n]) => {
                Self::AssociativeRecall { bits, items: (n, n) }
            }
            (Self::NGrams { .. }, &[length]) => Self::NGrams { length },
            (Self::PrioritySort { bits, .. }, &[inputs, outputs]) => {
                Self::PrioritySort { bits, inputs, outputs }
            }
            (Self::Transduction { task, .. }, &[n]) => Self::Transduction { task, length: (n, n) },
            (Self::Transduction { task, .. }, &[least, most]) => {
                Self::Transduction { task, length: (least, most) }
            }
            (Self::Pattern { task, .. }, &[n]) => Self::Pattern { task, length: (n, n) },
            (Self::Pattern { task, .. }, &[least, most]) => {
                Self::Pattern { task, length: (least, most) }
            }
            (Self::Graph { task, .. }, &[n]) => Self::Graph { task, length: (n, n) },
            (Self::Graph { task, .. }, &[least, most]) => {
                Self::Graph { task, length: (least, most) }
            }
            (Self::LongRange { task, .. }, &[n]) => Self::LongRange { task, length: (n, n) },
            (Self::LongRange { task, .. }, &[least, most]) => {
                Self::LongRange { task, length: (least, most) }
            }
            _ => {
                let reason = format!("{sizes:?}: not as many as {self:?} has");
                return Err(Error::argument("sizes", reason));
            }
        };
        task.validate()?;
        Ok(task)
    }

    /// The same task with no size above `most`, or the smallest that there is: what a curriculum begins with. Sizes that are fixed stay.
    ///
    /// ```
    /// use mnemic_data::algorithms::Algorithm;
    /// assert_eq!(Algorithm::copy().up_to(3), Algorithm::Copy { bits: 8, length: (1, 3) });
    /// assert_eq!(Algorithm::n_grams().up_to(3), Algorithm::n_grams());
    /// ```
    pub fn up_to(&self, most: usize) -> Self {
        let mut task = *self;
        let cut = |sizes: &mut (usize, usize)| sizes.1 = sizes.1.min(most.max(sizes.0));
        match &mut task {
            Self::Copy { length, .. }
            | Self::Pattern { length, .. }
            | Self::Graph { length, .. }
            | Self::LongRange { length, .. } => cut(length),
            Self::RepeatCopy { length, repeats, .. } => {
                cut(length);
                cut(repeats);
            }
            Self::AssociativeRecall { items, .. } => cut(items),
            Self::Transduction { task, length } => {
                // Grammars and pairs of symbols do not have every length.
                let mut shorter = *length;
                cut(&mut shorter);
                while !task.fits(shorter) && shorter.1 < length.1 {
                    shorter.1 += 1;
                }
                *length = shorter;
            }
            Self::NGrams { .. } | Self::PrioritySort { .. } => {}
        }
        task
    }

    /// The sizes that a test goes through one by one, each in streams of its own: those of patterns.
    pub fn each_size(&self) -> Option<std::ops::RangeInclusive<usize>> {
        match *self {
            Self::Pattern { length: (least, most), .. } => Some(least..=most),
            _ => None,
        }
    }

    /// Widths of inputs and outputs.
    pub fn sizes(&self) -> (usize, usize) {
        match *self {
            Self::Copy { bits, .. } => (bits + 1, bits),
            Self::RepeatCopy { bits, .. } => (bits + 1, bits + 1),
            Self::AssociativeRecall { bits, .. } => (bits + 2, bits),
            Self::NGrams { .. } => (1, 1),
            Self::PrioritySort { bits, .. } => (bits + 2, bits),
            Self::Transduction { task, .. } => task.sizes(),
            Self::Pattern { task, .. } => (task.vocabulary(), task.vocabulary()),
            Self::Graph { task, .. } => task.sizes(),
            Self::LongRange { task, .. } => task.sizes(),
        }
    }

    fn validate(&self) -> Result<()> {
        let ordered = |(least, most): (usize, usize), from: usize| from <= least && least <= most;
        let fits = match *self {
            Self::Copy { bits, length } => bits > 0 && ordered(length, 1),
            Self::RepeatCopy { bits, length, repeats, shown } => {
                bits > 0 && ordered(length, 1) && ordered(repeats, 1) && ordered(shown, 1)
            }
            Self::AssociativeRecall { bits, items } => bits > 0 && ordered(items, 2),
            Self::NGrams { length } => length > CONTEXT,
            Self::PrioritySort { bits, inputs, outputs } => {
                bits > 0 && outputs > 0 && outputs <= inputs
            }
            Self::Transduction { task, length } => task.fits(length),
            Self::Pattern { task, length } => task.fits(length),
            Self::Graph { task, length } => task.fits(length),
            Self::LongRange { task, length } => task.fits(length),
        };
        match fits {
            true => Ok(()),
            false => Err(Error::argument("algorithm", format!("{self:?}: sizes out of range"))),
        }
    }

    /// Batch number `number` of the stream of `seed`: any two numbers give independent batches.
    ///
    /// ```
    /// use mnemic_data::algorithms::Algorithm;
    /// let batch = Algorithm::copy().batch(2, 1, 0)?;
    /// let vectors = (batch.steps - 1) / 2;
    /// // The delimiter stands after the vectors, and they are scored after it.
    /// assert_eq!(batch.inputs[vectors * 9 + 8], 1.);
    /// assert_eq!(batch.targets[(vectors + 1) * 8..][..8], batch.inputs[..8]);
    /// # Ok::<(), mnemic_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the sizes make no sense.
    pub fn batch(&self, batch_size: usize, seed: u64, number: u64) -> Result<SequenceBatch> {
        self.validate()?;
        let mut draws = Draws::named(seed, number, b"mnemic algorithm");
        Ok(match *self {
            Self::Copy { length, .. } => {
                self.copy_batch(batch_size, within(&mut draws, length), draws)
            }
            Self::RepeatCopy { length, repeats, shown, .. } => {
                let (n, times) = (within(&mut draws, length), within(&mut draws, repeats));
                self.repeat_batch(batch_size, (n, times, shown), draws)
            }
            Self::AssociativeRecall { items, .. } => {
                self.recall_batch(batch_size, within(&mut draws, items), draws)
            }
            Self::NGrams { length } => self.n_gram_batch(batch_size, length, draws),
            Self::PrioritySort { inputs, outputs, .. } => {
                self.sort_batch(batch_size, (inputs, outputs), draws)
            }
            Self::Transduction { task, length } => task.batch(batch_size, length, &mut draws),
            Self::Pattern { task, length } => task.batch(batch_size, length, &mut draws),
            Self::Graph { task, length } => task.batch(batch_size, length, &mut draws),
            Self::LongRange { task, length } => task.batch(batch_size, length, &mut draws),
        })
    }

    fn copy_batch(&self, b: usize, n: usize, mut draws: Draws) -> SequenceBatch {
        let (_, bits) = self.sizes();
        let mut batch = SequenceBatch::new(b, 2 * n + 1, self.sizes());
        for row in 0..b {
            for step in 0..n {
                let vector = random_bits(&mut draws, bits);
                batch.input(row, step)[..bits].copy_from_slice(&vector);
                batch.target(row, n + 1 + step).copy_from_slice(&vector);
            }
            batch.input(row, n)[bits] = 1.;
        }
        batch.score(n + 1..2 * n + 1);
        batch
    }

    fn repeat_batch(
        &self,
        b: usize,
        (n, times, (least, most)): (usize, usize, (usize, usize)),
        mut draws: Draws,
    ) -> SequenceBatch {
        let bits = self.sizes().1 - 1;
        let count = (most - least + 1) as f64;
        // Mean and variance of the uniform distribution that the number is drawn from.
        let (mean, variance) = ((least + most) as f64 / 2., (count * count - 1.) / 12.);
        let normal = (times as f64 - mean) / variance.max(1e-9).sqrt();
        let mut batch = SequenceBatch::new(b, n + 1 + n * times + 1, self.sizes());
        for row in 0..b {
            for step in 0..n {
                let vector = random_bits(&mut draws, bits);
                batch.input(row, step)[..bits].copy_from_slice(&vector);
                for time in 0..times {
                    let target = batch.target(row, n + 1 + time * n + step);
                    target[..bits].copy_from_slice(&vector);
                }
            }
            batch.input(row, n)[bits] = normal as f32;
            batch.target(row, n + 1 + n * times)[bits] = 1.;
        }
        batch.score(n + 1..n + 2 + n * times);
        batch
    }

    fn recall_batch(&self, b: usize, items: usize, mut draws: Draws) -> SequenceBatch {
        let (_, bits) = self.sizes();
        let query = items * (ITEM + 1); // the step of the first query delimiter
        let answer = query + ITEM + 2;
        let mut batch = SequenceBatch::new(b, answer + ITEM, self.sizes());
        for row in 0..b {
            let asked = draws.below(items - 1);
            for item in 0..items {
                let start = item * (ITEM + 1);
                batch.input(row, start)[bits] = 1.;
                for i in 0..ITEM {
                    let vector = random_bits(&mut draws, bits);
                    batch.input(row, start + 1 + i)[..bits].copy_from_slice(&vector);
                    if item == asked {
                        batch.input(row, query + 1 + i)[..bits].copy_from_slice(&vector);
                    }
                    if item == asked + 1 {
                        batch.target(row, answer + i).copy_from_slice(&vector);
                    }
                }
            }
            batch.input(row, query)[bits + 1] = 1.;
            batch.input(row, query + ITEM + 1)[bits + 1] = 1.;
        }
        batch.score(answer..answer + ITEM);
        batch
    }

    fn n_gram_batch(&self, b: usize, length: usize, mut draws: Draws) -> SequenceBatch {
        let steps = length - 1;
        let mut batch = SequenceBatch::new(b, steps, self.sizes());
        for row in 0..b {
            // Beta(1/2, 1/2) is the arcsine distribution.
            let arcsine = |u: f64| (std::f64::consts::FRAC_PI_2 * u).sin().powi(2);
            let table: Vec<f64> = (0..1 << CONTEXT).map(|_| arcsine(draws.unit())).collect();
            let mut context = 0;
            for step in 0..length {
                // The first bits have no whole context: they are even odds.
                let p = if step < CONTEXT { 0.5 } else { table[context] };
                let bit = usize::from(draws.unit() < p);
                context = (context << 1 | bit) & ((1 << CONTEXT) - 1);
                if step < steps {
                    batch.input(row, step)[0] = bit as f32;
                }
                if step > 0 {
                    batch.target(row, step - 1)[0] = bit as f32;
                }
            }
        }
        batch.score(CONTEXT - 1..steps);
        batch
    }

    fn sort_batch(
        &self,
        b: usize,
        (inputs, outputs): (usize, usize),
        mut draws: Draws,
    ) -> SequenceBatch {
        let (_, bits) = self.sizes();
        let mut batch = SequenceBatch::new(b, inputs + 1 + outputs, self.sizes());
        for row in 0..b {
            let mut all = Vec::with_capacity(inputs);
            for step in 0..inputs {
                let vector = random_bits(&mut draws, bits);
                let priority = 2. * draws.unit() - 1.;
                let input = batch.input(row, step);
                input[..bits].copy_from_slice(&vector);
                input[bits] = priority as f32;
                all.push((priority, vector));
            }
            batch.input(row, inputs)[bits + 1] = 1.;
            all.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            for (step, (_, vector)) in all.iter().take(outputs).enumerate() {
                batch.target(row, inputs + 1 + step).copy_from_slice(vector);
            }
        }
        batch.score(inputs + 1..inputs + 1 + outputs);
        batch
    }
}

fn unknown(name: &str) -> Error {
    let own = ["copy", "repeat-copy", "associative-recall", "n-grams", "priority-sort"];
    let all = own.into_iter().chain(Transduction::ALL.iter().map(|(name, _)| *name));
    let all = all.chain(Pattern::ALL.iter().map(|(name, _)| *name));
    let all = all.chain(Graph::ALL.iter().map(|(name, ..)| *name));
    let all = all.chain(LongRange::ALL.iter().map(|(name, ..)| *name));
    let expected = all.collect::<Vec<_>>().join(", ");
    Error::UnknownName { kind: "task", given: name.into(), expected }
}

fn within(draws: &mut Draws, (least, most): (usize, usize)) -> usize {
    least + draws.below(most - least + 1)
}

fn random_bits(draws: &mut Draws, bits: usize) -> Vec<f32> {
    (0..bits).map(|_| draws.below(2) as f32).collect()
}

/// The cost in bits, summed over the scored steps, of the best predictor of a sequence of n-grams: `P(1) = (N_1 + ½) / (N_0 + N_1 + 1)` with the numbers of
/// ones and zeros that followed the last five bits so far (section 4.4, eq. 10).
///
/// # Errors
/// When a bit is neither 0 nor 1.
pub fn n_gram_bound(bits: &[f32]) -> Result<f64> {
    let mut seen = [[0f64; 2]; 1 << CONTEXT];
    let (mut context, mut cost) = (0usize, 0.);
    for (i, &bit) in bits.iter().enumerate() {
        if bit != 0. && bit != 1. {
            return Err(Error::argument("bits", format!("expected 0 or 1, got {bit} at {i}")));
        }
        let bit = bit as usize;
        if i >= CONTEXT {
            let counts = &mut seen[context];
            cost -= ((counts[bit] + 0.5) / (counts[0] + counts[1] + 1.)).log2();
            counts[bit] += 1.;
        }
        context = (context << 1 | bit) & ((1 << CONTEXT) - 1);
    }
    Ok(cost)
}
