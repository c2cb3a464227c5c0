//! Recurrent baselines.

pub mod lstm_reader;
