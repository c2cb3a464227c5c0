//! models
mod config;
pub mod memory;
pub mod recurrent;
mod story;
#[cfg(test)]
mod testing;
pub use config::Sizes;
pub use story::{NULL_WORD, Phase, StoryBatch, StoryModel, StoryOutput, support_accuracy};
