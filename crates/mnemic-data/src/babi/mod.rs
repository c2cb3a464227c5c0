//! The bAbI question answering tasks (Weston et al. 2015, arXiv 1502.05698): official files, an own generator,
//! examples for training.

mod story;

pub use story::{Line, Story};
