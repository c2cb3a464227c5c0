#![doc = include_str!("../README.md")]

pub mod algorithms;
pub mod babi;
mod error;
mod files;
pub mod fine_tune;
pub mod generation;
mod place;
pub mod pointer;
mod provenance;
pub mod recipe;
mod run_folder;
pub mod text;

pub use error::{Error, Result};
pub use files::write_text;
pub use mnemic_data as data;
pub use mnemic_models as models;
pub use mnemic_pictures as pictures;
pub use mnemic_train as engine;
pub use place::Place;
pub use provenance::Provenance;
pub use recipe::Recipe;
