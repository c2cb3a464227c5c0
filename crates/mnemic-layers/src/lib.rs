#![doc = include_str!("../README.md")]

mod attention;
mod context;
mod embedding;
mod episodic;
pub mod init;
mod linear;
pub mod losses;
mod masks;
mod position;
mod recurrent;
mod store;

pub use attention::dot_attention;
pub use candle_nn::Linear;
pub use context::{Context, Trace, Watched};
pub use embedding::Embedding;
pub use episodic::{EpisodicAttention, EpisodicKind, PreparedFacts};
pub use linear::linear;
pub use masks::{gather_steps, last_states, length_mask};
pub use mnemic_kernels::rng::Philox;
pub use mnemic_kernels::softmax::{log_softmax, masked_softmax, softmax};
pub use position::{PositionEncoding, position_encoding};
pub use recurrent::{
    AttentionGru, GateInit, GatedGru, Gru, Lstm, Nonlinearity, Recurrent, RecurrentConfig,
    RecurrentInit, RecurrentLstm, Reset, Rnn,
};
pub use store::{LoadMismatch, ParamStore};
