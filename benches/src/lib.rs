//! What the programs of the benches share: arguments, measuring in turns, and the peer that takes part.

pub mod arguments;
pub mod measure;
pub mod peer;
