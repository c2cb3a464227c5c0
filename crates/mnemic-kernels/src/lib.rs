#![doc = include_str!("../README.md")]
// Rule 10 of ARCHITECTURE.md: unsafe code lives in this crate alone, each block with its reason.
#![allow(unsafe_code)]

pub mod activation;
pub mod cross_entropy;
mod fused;
pub mod interaction;
mod lanes;
mod matmul;
mod packed;
pub mod pooled_embedding;
mod real;
pub mod recurrent;
pub mod rng;
pub mod simd;
pub mod softmax;
mod threads;
