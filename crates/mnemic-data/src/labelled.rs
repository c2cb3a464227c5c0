//! Texts with a label: what the sentence classification sets have in common.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A text and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledText {
    /// The text, its words separated by blanks.
    pub text: String,
    /// The number of its class, an index into the set's `LABELS`.
    pub label: usize,
}

/// The parts that a set is published in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// For training.
    Train,
    /// For choosing settings.
    Dev,
    /// For the test.
    Test,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        })
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "train" => Ok(Self::Train),
            "dev" => Ok(Self::Dev),
            "test" => Ok(Self::Test),
            other => Err(Error::UnknownName {
                kind: "split",
                given: other.into(),
                expected: "train, dev or test".into(),
            }),
        }
    }
}
