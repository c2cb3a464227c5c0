#![doc = include_str!("../README.md")]

mod context;
mod store;

pub use context::{Context, Trace, Watched};
pub use store::{LoadMismatch, ParamStore};
