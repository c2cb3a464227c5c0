//! What is counted in tests.

/// How well a model does on some sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SequenceScore {
    /// Sequences.
    pub sequences: usize,
    /// The summed cross-entropy in bits.
    pub bits: f64,
    /// Wrong bits; wrong symbols where a step gives one.
    pub wrong_bits: usize,
    /// Sequences in which anything is wrong.
    pub wrong_sequences: usize,
    /// The share of a sequence's scored steps before its first error, summed over the sequences.
    pub right_before_error: f64,
}

impl SequenceScore {
    /// Cross-entropy in bits for each sequence.
    pub fn cost(&self) -> f64 {
        self.bits / self.sequences.max(1) as f64
    }

    /// The share of sequences in which anything is wrong.
    pub fn error(&self) -> f64 {
        self.wrong_sequences as f64 / self.sequences.max(1) as f64
    }

    /// Wrong bits for each sequence.
    pub fn wrong(&self) -> f64 {
        self.wrong_bits as f64 / self.sequences.max(1) as f64
    }

    /// The mean share of a sequence before its first error: 1 where nothing is wrong.
    pub fn fine(&self) -> f64 {
        self.right_before_error / self.sequences.max(1) as f64
    }

    /// Adds a sequence, of whose steps so many are wrong in so many places.
    pub(super) fn count(&mut self, wrong: &[usize]) {
        let first = wrong.iter().position(|&n| n > 0);
        self.sequences += 1;
        self.wrong_bits += wrong.iter().sum::<usize>();
        self.wrong_sequences += usize::from(first.is_some());
        self.right_before_error += first.unwrap_or(wrong.len()) as f64 / wrong.len().max(1) as f64;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sequences += other.sequences;
        self.bits += other.bits;
        self.wrong_bits += other.wrong_bits;
        self.wrong_sequences += other.wrong_sequences;
        self.right_before_error += other.right_before_error;
    }
}
