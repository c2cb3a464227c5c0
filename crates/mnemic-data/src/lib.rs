#![doc = include_str!("../README.md")]

pub mod babi;
pub mod batch;
mod error;
mod sampling;
pub mod vocab;

pub use batch::{Batch, Encoded, PadTo};
pub use error::{Error, LineError, Result, UnknownWord};
pub use sampling::{Sampling, batches};
pub use vocab::Vocabulary;
