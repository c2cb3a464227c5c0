//! Decoding: laws that every search obeys on toy models, and the searches of `transformers` on small real ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod beams;
mod fixtures;
mod limits;
mod plain;
mod sampling;
mod toy;
