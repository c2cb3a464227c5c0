//! What can go wrong in training.

use std::path::{Path, PathBuf};

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that stops a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),

    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// A configuration value is out of range.
    #[error("{field}: {reason}")]
    Config {
        /// The dotted name of the value, such as `optimizer.lr`.
        field: String,
        /// What was found and what was expected.
        reason: String,
    },

    /// A file of a checkpoint is missing, damaged, or does not belong to this run.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// The state given to an optimiser does not fit it.
    #[error("optimizer state: {0}")]
    OptimizerState(String),

    /// A number became NaN or infinite. The last checkpoint was kept.
    #[error(transparent)]
    NotFinite(#[from] Box<NotFinite>),

    /// The problem being trained reported an error of its own.
    #[error("{0}")]
    Problem(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// The training thread could not be started.
    #[error("could not start a thread with a stack of {bytes} bytes: {source}")]
    Thread {
        /// The stack size asked for.
        bytes: usize,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Where training first met a NaN or an infinity.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "{tensor} is {value}{} in step {step} (epoch {epoch}, batch {batch} of the epoch): {description}",
    index.map(|i| format!(" at flat index {i}")).unwrap_or_default()
)]
pub struct NotFinite {
    /// What went bad first: `parameter NAME`, `loss`, `gradient of NAME`, `gradient norm` or `validation loss`.
    pub tensor: String,
    /// The offending value.
    pub value: f64,
    /// Its flat index in the tensor, if it is not a scalar.
    pub index: Option<usize>,
    /// The optimiser step, counting from 1 over the whole run.
    pub step: u64,
    /// The epoch, counting from 0.
    pub epoch: usize,
    /// The batch within the epoch, counting from 0.
    pub batch: usize,
    /// The batch as the problem describes it.
    pub description: String,
}

impl Error {
    /// Wraps an error of a [`crate::Problem`].
    ///
    /// ```
    /// let bad = "x".parse::<f32>().map_err(mnemic_train::Error::problem);
    /// assert!(bad.unwrap_err().to_string().contains("invalid float"));
    /// ```
    pub fn problem(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Problem(error.into())
    }

    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn checkpoint(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }
}

/// Checks that `value` is finite and satisfies `ok`, else says what was expected of `field`.
pub(crate) fn check(field: &str, value: f64, ok: bool, expected: &str) -> Result<()> {
    if value.is_finite() && ok {
        return Ok(());
    }
    Err(Error::config(field, format!("expected {expected}, got {value}")))
}
