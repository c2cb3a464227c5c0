//! Recurrent baselines.

pub mod gru_seq2seq;
pub mod lstm_reader;
pub mod lstm_transducer;
