#![doc = include_str!("../README.md")]

#[macro_use]
mod architectures;
mod any;
mod any_rollout;
mod any_sequence;
pub mod attention;
mod autoregressive;
mod config;
mod error;
pub mod memory;
mod pretrained;
pub mod recurrent;
mod rollout;
mod sequence;
mod story;
#[cfg(test)]
mod testing;
mod text;
pub mod transformer;
pub mod word_vectors;

pub use any::{AnyStoryModel, ModelConfig};
pub use any_rollout::{AnyRolloutModel, RolloutConfig};
pub use any_sequence::{AnySequenceModel, SequenceConfig};
pub use autoregressive::Autoregressive;
pub use config::Sizes;
pub use error::{Error, MisshapenTensor, MissingTensor, Result, UnusedTensor, WeightsMismatch};
pub use mnemic_layers::losses::bce_with_logits;
pub use mnemic_layers::losses::{CrossEntropy, IGNORE, Reduction, cross_entropy};
pub use mnemic_layers::{Context, ParamStore, Philox, Trace, Watched, log_softmax, scale, softmax};
#[cfg(feature = "tokenizers")]
pub use pretrained::{DecodeStream, Encoded, SpecialTokens, Tokenizer};
#[cfg(feature = "hub")]
pub use pretrained::{HubId, HubOptions, fetch};
pub use pretrained::{
    LoadOptions, PickleFile, Place, Pretrained, PretrainedModel, SafeFile, Sharded, Weights,
    from_pretrained, from_pretrained_with, load_tensors, locate, save_pretrained,
};
pub use rollout::{Cells, Rollout, RolloutModel};
pub use sequence::SequenceModel;
pub use story::{
    HostIds, NULL_WORD, Phase, StoryBatch, StoryModel, StoryOutput, answer_loss, support_accuracy,
};
pub use text::{Padding, TextBatch};
