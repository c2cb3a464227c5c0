//! What the command line does with text and a checkpoint of Hugging Face's layout.

mod vocabulary;
mod write;

pub use write::{Ending, WriteOptions, Writer, Written};
