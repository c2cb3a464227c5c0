//! The twenty tasks by number, slug and title.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::edition::{Edition, FileKind};
use crate::{Error, Result};

/// The number of tasks.
pub const NUM_TASKS: usize = 20;

/// Slug (as in the official file names) and title (as in the tables of the paper).
const TASKS: [(&str, &str); NUM_TASKS] = [
    ("single-supporting-fact", "Single Supporting Fact"),
    ("two-supporting-facts", "Two Supporting Facts"),
    ("three-supporting-facts", "Three Supporting Facts"),
    ("two-arg-relations", "Two Argument Relations"),
    ("three-arg-relations", "Three Argument Relations"),
    ("yes-no-questions", "Yes/No Questions"),
    ("counting", "Counting"),
    ("lists-sets", "Lists/Sets"),
    ("simple-negation", "Simple Negation"),
    ("indefinite-knowledge", "Indefinite Knowledge"),
    ("basic-coreference", "Basic Coreference"),
    ("conjunction", "Conjunction"),
    ("compound-coreference", "Compound Coreference"),
    ("time-reasoning", "Time Reasoning"),
    ("basic-deduction", "Basic Deduction"),
    ("basic-induction", "Basic Induction"),
    ("positional-reasoning", "Positional Reasoning"),
    ("size-reasoning", "Size Reasoning"),
    ("path-finding", "Path Finding"),
    ("agents-motivations", "Agent's Motivations"),
];

/// One of the twenty bAbI tasks.
///
/// ```
/// use mnemic_data::babi::Task;
/// let task: Task = "qa2".parse()?;
/// assert_eq!(task, "two-supporting-facts".parse()?);
/// assert_eq!((task.number(), task.title()), (2, "Two Supporting Facts"));
/// assert_eq!(Task::all().count(), 20);
/// # Ok::<(), mnemic_data::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Task(u8);

impl Task {
    /// The task of this number.
    ///
    /// # Errors
    /// The number is not in 1–20.
    pub fn new(number: u8) -> Result<Self> {
        if (1..=NUM_TASKS as u8).contains(&number) {
            Ok(Self(number))
        } else {
            Err(unknown(&number.to_string()))
        }
    }

    /// All tasks, from 1 to 20.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        (0..NUM_TASKS as u8).map(|i| Self(i + 1))
    }

    /// The number, 1–20.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name in the official file names: `single-supporting-fact`.
    pub fn slug(self) -> &'static str {
        self.entry().0
    }

    /// The name in the tables of the paper: `Single Supporting Fact`.
    pub fn title(self) -> &'static str {
        self.entry().1
    }

    /// The name of an official file, without its folder: `qa1_single-supporting-fact_train.txt`, in
    /// the editions with an own validation split `qa1_train.txt`. `None` where an edition has no
    /// such file.
    pub fn file_name(self, edition: Edition, kind: FileKind) -> Option<String> {
        if edition.has_valid_files() {
            Some(format!("qa{}_{kind}.txt", self.0))
        } else if kind == FileKind::Valid {
            None
        } else {
            Some(format!("qa{}_{}_{kind}.txt", self.0, self.slug()))
        }
    }

    fn entry(self) -> (&'static str, &'static str) {
        TASKS[usize::from(self.0) - 1]
    }
}

/// `qa1`, as the official files are called.
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "qa{}", self.0)
    }
}

/// Takes a number (`1`), an official prefix (`qa1`) or a slug (`single-supporting-fact`).
impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.trim().to_lowercase();
        if let Some(i) = TASKS.iter().position(|(slug, _)| *slug == name) {
            return Ok(Self(i as u8 + 1));
        }
        let digits = name.strip_prefix("qa").unwrap_or(&name);
        // `u8::from_str` would also take `+1`.
        match digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u8>()) {
            Some(Ok(number)) => Self::new(number).map_err(|_| unknown(text)),
            _ => Err(unknown(text)),
        }
    }
}

impl TryFrom<u8> for Task {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        Self::new(number)
    }
}

impl From<Task> for u8 {
    fn from(task: Task) -> Self {
        task.0
    }
}

fn unknown(given: &str) -> Error {
    Error::UnknownName {
        kind: "task",
        given: given.into(),
        expected: "a number from 1 to 20, `qa1` to `qa20`, or a name such as \
                   `single-supporting-fact`"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_numbers_prefixes_and_slugs() {
        for task in Task::all() {
            let number = task.number().to_string();
            for text in [number.as_str(), &format!("qa{number}"), &format!("QA{number}")] {
                assert_eq!(text.parse::<Task>().unwrap(), task);
            }
            assert_eq!(task.slug().parse::<Task>().unwrap(), task);
            assert_eq!(task.to_string(), format!("qa{number}"));
        }
        for text in ["", "0", "21", "qa", "qa0", "+1", "1.0", "300", "single"] {
            let error = text.parse::<Task>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown task `{text}`: expected a number")));
        }
    }

    #[test]
    fn file_names_are_official() {
        let task = Task::new(12).unwrap();
        let name = |edition, kind| task.file_name(edition, kind);
        assert_eq!(name(Edition::En, FileKind::Train).unwrap(), "qa12_conjunction_train.txt");
        assert_eq!(name(Edition::En10k, FileKind::Test).unwrap(), "qa12_conjunction_test.txt");
        assert_eq!(name(Edition::En, FileKind::Valid), None);
        assert_eq!(name(Edition::EnValid10k, FileKind::Valid).unwrap(), "qa12_valid.txt");
    }

    #[test]
    fn serialises_as_its_number() {
        assert_eq!(serde_json::to_string(&Task::new(3).unwrap()).unwrap(), "3");
        assert_eq!(serde_json::from_str::<Task>("20").unwrap().number(), 20);
        assert!(serde_json::from_str::<Task>("21").is_err());
    }
}
