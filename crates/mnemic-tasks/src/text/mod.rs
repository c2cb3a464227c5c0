//! Texts through published models: a folder or, with the feature `hub`, an id, and what it says of texts.
//!
//! | what | models |
//! | --- | --- |
//! | [`Embedder`]: vectors of texts | sentence encoders (`sentence-transformers`), Model2Vec |
//! | [`cosines`], [`nearest`]: how alike they are | |
//! | [`FillMask`]: what a hidden token may be | BERT, RoBERTa, DistilBERT |
//! | [`TextClassifier`]: classes of texts, entities in them | the same, with a head |
//! | [`Writer`]: texts gone on with, translations | GPT-2, Llama; BART, Marian, T5, OpenNMT, spelling to phonemes |
//! | [`attention`]: the weights of all layers and heads | the same, with or without a head |
//!
//! Texts that are longer than a model reads are cut. In batches, texts of like length go together; results are in the order of the texts.

mod attention;
mod classify;
mod embed;
mod fill_mask;
mod open;
mod similarity;
#[cfg(test)]
mod tests;
mod vocabulary;
mod write;

pub use attention::{Attention, attention, head_maps};
pub use classify::{Classified, FoundEntity, LabelScore, TextClassifier};
pub use embed::Embedder;
pub use fill_mask::{FillMask, Filled};
pub use similarity::{Near, cosines, nearest};
pub use write::{Ending, WriteOptions, Writer, Written};
