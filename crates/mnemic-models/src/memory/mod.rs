//! Memory networks, which read a story into a memory and attend to it before they answer, machines that read and write a memory step by
//! step, and networks that point at what they read.

pub mod dmn;
pub mod dmn_plus;
pub mod dnc;
pub mod dnc_reader;
pub mod entnet;
pub mod ham;
pub mod memn2n;
pub mod memnn;
pub mod neural_stack;
pub mod ntm;
pub mod pointer_network;
pub mod rl_ntm;
pub mod stack_rnn;
pub mod structured_ntm;
