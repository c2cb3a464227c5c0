#![doc = include_str!("../README.md")]
// Rule 10 of ARCHITECTURE.md: unsafe code lives in this crate alone, each block with its reason.
#![allow(unsafe_code)]

pub mod activation;
pub mod additive;
pub mod arithmetic;
pub mod attention;
pub mod binary_cross_entropy;
#[cfg(test)]
mod checks;
pub mod concat;
pub mod content;
pub mod cross_entropy;
pub mod cuda;
pub mod cumulative;
pub mod dropout;
pub mod entity;
pub mod episodic;
mod fused;
pub mod interaction;
mod lanes;
pub mod linear;
pub mod math;
mod matmul;
pub mod memory;
pub mod normalization;
pub mod optimizer;
mod packed;
pub mod policy_gradient;
pub mod pooled_embedding;
mod real;
pub mod recurrent;
mod registers;
pub mod rng;
pub mod rotary;
mod rows;
pub mod simd;
pub mod softmax;
mod threads;
pub mod time_steps;
pub mod top_k;

pub use fused::{backward, backward_from, only_fused};
pub use threads::awake;
