//! Transformers whose checkpoints `transformers` writes and reads: parameters bear the checkpoints' names.
//!
//! When a context is watching, every model records its attention weights, `(b, h, n_q, n_k)`, and its hidden states, `(b, t, d)`:
//! as `attention` and `hidden_states` in encoders and in models of one stack, `decoder_attention`, `cross_attention` and
//! `decoder_hidden_states` in decoders beside an encoder; step `i` is layer `i`, and hidden states `0` are the embeddings.

pub mod auto;
pub mod bart;
pub mod bert;
mod causal;
mod config;
pub mod distilbert;
pub mod gpt2;
pub mod llama;
pub mod marian;
mod names;
pub mod opennmt;
pub mod roberta;
pub mod sentence;
mod seq2seq;
pub mod t5;
#[cfg(test)]
pub(crate) mod testing;
pub mod vit;

pub use causal::CausalState;
pub use config::HiddenAct;
pub use seq2seq::DecoderState;
