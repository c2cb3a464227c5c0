//! Models that attend to what they have read, without recurrence.

pub mod causal_self_attention;
pub mod hierarchical_attention;
mod leaves;
