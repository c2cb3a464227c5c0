//! Vectors of words and of texts without a network.

pub mod model2vec;
