//! Transformers whose checkpoints `transformers` writes and reads: parameters bear the checkpoints' names.
//!
//! When a context is watching, every model records its attention weights, `(b, h, n_q, n_k)`, and its hidden states, `(b, t, d)`:
//! as `attention` and `hidden_states` in encoders, `decoder_attention`, `cross_attention` and `decoder_hidden_states` in decoders; step
//! `i` is layer `i`, and hidden states `0` are the embeddings.

pub mod bert;
mod config;
mod names;
#[cfg(test)]
mod testing;

pub use config::HiddenAct;
