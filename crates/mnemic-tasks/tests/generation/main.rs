//! Decoding: laws that every search obeys on toy models, and the searches of `transformers` on small real ones.

mod beams;
mod fixtures;
mod limits;
mod sampling;
mod toy;
