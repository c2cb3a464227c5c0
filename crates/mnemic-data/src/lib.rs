#![doc = include_str!("../README.md")]

pub mod algorithms;
pub mod babi;
pub mod batch;
mod error;
mod labelled;
mod lines;
pub mod planar;
mod sampling;
pub mod sst;
pub mod trec;
pub mod vocab;
pub mod wnut17;

pub use batch::{Batch, Encoded, PadTo};
pub use error::{Error, LineError, Result, UnknownWord};
pub use labelled::{LabelledText, Part};
pub use sampling::{Sampling, batches};
pub use vocab::Vocabulary;
