#![doc = include_str!("../README.md")]

pub mod cross_entropy;
pub mod pooled_embedding;
pub mod recurrent;
pub mod rng;
pub mod softmax;
