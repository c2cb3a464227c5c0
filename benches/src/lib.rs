//! What the programs of the benches share: measuring in turns, and the peer that takes part.

pub mod measure;
pub mod peer;
