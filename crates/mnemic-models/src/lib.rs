//! models
mod config;
pub mod memory { pub mod memn2n; pub mod dmn_plus; }
pub mod recurrent;
mod story;
#[cfg(test)]
mod testing;
pub use config::Sizes;
pub use story::{NULL_WORD, Phase, StoryBatch, StoryModel, StoryOutput, support_accuracy};
