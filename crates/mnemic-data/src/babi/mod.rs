//! The bAbI question answering tasks (Weston et al. 2015, arXiv 1502.05698): official files, an own
//! generator, examples for training.

pub mod generate;

mod edition;
mod example;
mod parse;
mod read;
mod split;
mod stats;
mod story;
mod task;

pub use edition::{Edition, FileKind, Split};
pub use example::{Example, Sentence, examples, tokenize};
pub use parse::parse_stories;
pub use read::{BabiSource, load_examples};
pub use stats::{Stats, StatsTable};
pub use story::{Line, Story};
pub use task::{NUM_TASKS, Task};
