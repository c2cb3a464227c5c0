//! The editions of the release and their splits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An English edition of the release, each a folder of `tasks_1-20_v1-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Edition {
    /// `en`: 1,000 training and 1,000 test questions per task.
    En,
    /// `en-10k`: 10,000 training questions per task and the test questions of `en`.
    En10k,
    /// `en-valid`: `en` with its training stories shuffled and split into 90 % and 10 %.
    EnValid,
    /// `en-valid-10k`: `en-10k`, split in the same way.
    EnValid10k,
}

impl Edition {
    /// All editions.
    pub const ALL: [Self; 4] = [Self::En, Self::En10k, Self::EnValid, Self::EnValid10k];

    /// The name of the folder: `en-10k`.
    pub fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::En10k => "en-10k",
            Self::EnValid => "en-valid",
            Self::EnValid10k => "en-valid-10k",
        }
    }

    /// Whether the edition comes with validation files of its own.
    pub fn has_valid_files(self) -> bool {
        matches!(self, Self::EnValid | Self::EnValid10k)
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Edition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        pick("edition", text, &Self::ALL)
    }
}

impl TryFrom<String> for Edition {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Edition> for String {
    fn from(edition: Edition) -> Self {
        edition.name().into()
    }
}

/// Which of a task's questions to take.
///
/// `en-valid` and `en-valid-10k` have a file for each split. `en` and `en-10k` have no validation
/// file; there the convention of MemN2N (Sukhbaatar et al. 2015), EntNet and DMN+ holds: the first
/// 90 % of the training questions in file order (rounded down) are [`Train`](Split::Train), the
/// rest is [`Valid`](Split::Valid). A story in which the cut falls gives its statements to both
/// sides, and each of its questions to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// The training questions without those of [`Valid`](Split::Valid).
    Train,
    /// The validation questions.
    Valid,
    /// The test questions.
    Test,
    /// Train and validation together: the whole training file, or both files one after the other.
    TrainAll,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 4] = [Self::Train, Self::Valid, Self::Test, Self::TrainAll];

    /// `train`, `valid`, `test` or `train-all`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
            Self::TrainAll => "train-all",
        }
    }

    /// The files that the split is made of.
    pub(super) fn files(self, edition: Edition) -> &'static [FileKind] {
        match (self, edition.has_valid_files()) {
            (Self::Test, _) => &[FileKind::Test],
            (Self::Valid, true) => &[FileKind::Valid],
            (Self::TrainAll, true) => &[FileKind::Train, FileKind::Valid],
            (Self::Train, true) | (_, false) => &[FileKind::Train],
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        pick("split", text, &Self::ALL)
    }
}

impl TryFrom<String> for Split {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Split> for String {
    fn from(split: Split) -> Self {
        split.name().into()
    }
}

/// What an official file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `…_train.txt`
    Train,
    /// `…_valid.txt`, in the editions with validation files only.
    Valid,
    /// `…_test.txt`
    Test,
}

impl FileKind {
    pub(super) const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        })
    }
}

/// The choice whose name is `text`.
fn pick<T: Copy + fmt::Display>(kind: &'static str, text: &str, choices: &[T]) -> Result<T> {
    choices.iter().copied().find(|c| c.to_string() == text.trim()).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|c| format!("`{c}`")).collect();
        Error::UnknownName {
            kind,
            given: text.into(),
            expected: format!("one of {}", names.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round() {
        for edition in Edition::ALL {
            assert_eq!(edition.name().parse::<Edition>().unwrap(), edition);
        }
        for split in Split::ALL {
            let json = serde_json::to_string(&split).unwrap();
            assert_eq!(serde_json::from_str::<Split>(&json).unwrap(), split);
        }
        assert_eq!(
            "en10k".parse::<Edition>().unwrap_err().to_string(),
            "unknown edition `en10k`: expected one of `en`, `en-10k`, `en-valid`, `en-valid-10k`"
        );
        assert!("dev".parse::<Split>().is_err());
    }
}
