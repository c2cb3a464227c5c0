#![doc = include_str!("../README.md")]

mod any;
mod autoregressive;
mod config;
mod error;
pub mod memory;
mod pretrained;
pub mod recurrent;
mod story;
#[cfg(test)]
mod testing;
mod text;

pub use any::{AnyStoryModel, ModelConfig};
pub use autoregressive::Autoregressive;
pub use config::Sizes;
pub use error::{Error, MisshapenTensor, MissingTensor, Result, UnusedTensor, WeightsMismatch};
pub use mnemic_layers::{Context, ParamStore, Trace, Watched, scale, softmax};
#[cfg(feature = "hub")]
pub use pretrained::{HubId, HubOptions, fetch};
pub use pretrained::{
    PickleFile, Pretrained, SafeFile, Sharded, Weights, from_pretrained, load_tensors,
    save_pretrained,
};
pub use story::{
    HostIds, NULL_WORD, Phase, StoryBatch, StoryModel, StoryOutput, answer_loss, support_accuracy,
};
pub use text::{Padding, TextBatch};
