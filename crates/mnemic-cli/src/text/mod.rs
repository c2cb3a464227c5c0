//! Verbs for texts and published models.

mod attention;
mod encode;
mod input;
mod write;

pub(crate) use attention::attention;
pub(crate) use encode::{classify, embed, fill_mask, similarity};
pub(crate) use write::{generate, translate};
