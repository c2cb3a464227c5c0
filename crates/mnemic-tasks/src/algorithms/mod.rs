//! Algorithmic tasks: a model learns to copy, recall, predict or sort from sequences that are generated without end.
//!
//! ```toml
//! name = "ntm-copy"
//!
//! [model]
//! architecture = "ntm"              # or any of `SequenceConfig::ARCHITECTURES`; any key of the model's config overrides it
//!
//! [data]
//! dataset = "algorithms"
//! task = "copy"                     # any of `Algorithm::named`: repeat-copy, associative-recall, reversal, …
//! test = [[20], [50]]               # sizes that are tested: here numbers of vectors
//! curriculum = { first = 3, step = 1 }  # sizes of training up to 3 in the first epoch, 4 in the second …; with `below = 0.1` up to 4 once 90 % are right
//!
//! [batches]
//! size = 32
//! per_epoch = 100
//!
//! [train]
//! seed = 1
//! epochs = 100
//! optimizer = { name = "adam", lr = 0.001 }
//! clip = { global_norm = 50.0 }
//! stop_when = { metric = "wrong_bits", below = 0.01, epochs = 3 }
//! ```
//!
//! The loss is the cross-entropy summed over the bits that are scored, or of the symbols, in bits for each sequence (A. Graves et al. 2014, arXiv 1410.5401). An "epoch" is a
//! number of fresh batches; a curriculum lets their sizes grow from epoch to epoch; validation sequences come from a stream of their own, and tests from a third.

mod curriculum;
mod drawing;
mod learner;
mod paper;
mod problem;
mod recipe;
mod run;
mod score;
mod sequences;
mod table;
#[cfg(test)]
mod tests;
mod walks;
mod watch;

pub use curriculum::Curriculum;
pub use learner::{AlgorithmConfig, AlgorithmNet, AlgorithmTask, Batch};
pub(crate) use problem::Stream;
pub use problem::{AlgorithmProblem, evaluate_sequences};
pub use recipe::{AlgorithmData, AlgorithmRecipe, SequenceBatches, is_algorithm};
pub use run::{AlgorithmResult, AlgorithmTest, train_algorithm};
pub use score::SequenceScore;
pub use table::{AlgorithmFile, AlgorithmRow, algorithm_page, shown};
pub use watch::AlgorithmModel;
