//! Memory networks: models that read a story into a memory and attend to it, once or several times, before they answer.

pub mod dmn;
pub mod dmn_plus;
pub mod entnet;
pub mod memn2n;
pub mod memnn;
