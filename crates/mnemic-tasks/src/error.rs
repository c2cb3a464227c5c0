use std::path::{Path, PathBuf};

/// What can go wrong when a model meets a data set. Every message names the place and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A recipe does not parse or holds a bad value.
    #[error("{place}: {reason}")]
    Recipe {
        /// The file or the key.
        place: String,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Something that the caller asked for does not exist or does not fit.
    #[error("{0}")]
    Request(String),
    /// A text could not be generated: a bad value of the configuration, or scores that nothing can be chosen from.
    #[error("{place}: {reason}")]
    Generation {
        /// The key, or the step and the row.
        place: String,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A data set could not be read.
    #[error(transparent)]
    Data(#[from] mnemic_data::Error),
    /// A model could not be built, loaded or saved.
    #[error(transparent)]
    Model(#[from] mnemic_models::Error),
    /// Training stopped.
    #[error(transparent)]
    Train(#[from] mnemic_train::Error),
    /// A picture could not be drawn.
    #[error(transparent)]
    Picture(#[from] mnemic_pictures::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A JSON file is malformed.
    #[error("{place}: {source}")]
    Json {
        /// The file.
        place: String,
        /// The cause, with line and column.
        source: serde_json::Error,
    },
}

impl Error {
    pub(crate) fn recipe(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Recipe { place: place.into(), reason: reason.into() }
    }

    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::Request(message.into())
    }

    pub(crate) fn generation(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Generation { place: place.into(), reason: reason.into() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn json(place: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        let place = place.display().to_string();
        move |source| Self::Json { place, source }
    }
}

/// The engine's error type for one of ours.
pub(crate) fn engine(e: Error) -> mnemic_train::Error {
    match e {
        Error::Train(e) => e,
        Error::Tensor(e) => e.into(),
        other => mnemic_train::Error::problem(other.to_string()),
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
