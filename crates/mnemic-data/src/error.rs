//! What can be wrong with data, and how it is said.

use std::fmt;
use std::path::PathBuf;

use crate::babi::Edition;

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder; for a file inside an archive the archive.
        path: PathBuf,
        /// What the operating system (or the decompressor) said.
        #[source]
        source: std::io::Error,
    },
    /// A line of a data file does not follow the format.
    #[error("{file}, line {line}: {reason}")]
    Malformed {
        /// The file; inside an archive `ARCHIVE:MEMBER`.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: LineError,
    },
    /// The data set lacks a file.
    #[error(
        "`{file}` is missing in {} (editions there: {})",
        path.display(),
        list_or(editions, "none")
    )]
    MissingFile {
        /// The file, as `EDITION/NAME`.
        file: String,
        /// Where it was looked for.
        path: PathBuf,
        /// The editions of which at least one file is there.
        editions: Vec<Edition>,
    },
    /// A place holds no bAbI file at all.
    #[error(
        "no bAbI files in {}: expected the folder `tasks_1-20_v1-2`, a folder that holds it, one \
         of its edition folders (`en`, `en-10k`, `en-valid`, `en-valid-10k`), or `.tar.gz` \
         archives of them",
        path.display()
    )]
    NoData {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// Text that names no task, edition or split.
    #[error("unknown {kind} `{given}`: expected {expected}")]
    UnknownName {
        /// What was to be named: `task`, `edition` or `split`.
        kind: &'static str,
        /// The text.
        given: String,
        /// What would have been accepted.
        expected: String,
    },
    /// Words that a vocabulary does not hold.
    #[error("not in the vocabulary: {}", list_or(words, "nothing"))]
    UnknownWords {
        /// Each such word once, in order of first use.
        words: Vec<UnknownWord>,
    },
    /// An answer that is none of a vocabulary's answer classes.
    #[error("not one of the {classes} answer classes of the vocabulary: {word}")]
    UnknownAnswer {
        /// The answer.
        word: UnknownWord,
        /// How many classes the vocabulary has.
        classes: usize,
    },
    /// A vocabulary that contradicts itself or cannot be read.
    #[error("bad vocabulary: {reason}")]
    BadVocabulary {
        /// What is wrong with it.
        reason: String,
    },
    /// A value passed to a function is out of its range.
    #[error("{name}: {reason}")]
    InvalidArgument {
        /// The argument.
        name: &'static str,
        /// The value, and what was expected.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn argument(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { name, reason: reason.into() }
    }
}

/// A word that a vocabulary lacks, with the words of the vocabulary that look most like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    /// The word as it was given, in lower case.
    pub word: String,
    /// At most three words of the vocabulary, nearest first.
    pub suggestions: Vec<String>,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.word)?;
        for (i, suggestion) in self.suggestions.iter().enumerate() {
            write!(f, "{} `{suggestion}`", if i == 0 { " (did you mean" } else { " or" })?;
        }
        if self.suggestions.is_empty() { Ok(()) } else { write!(f, "?)") }
    }
}

/// What is wrong with a line of a data file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Something else stands there than the format has.
    #[error("expected {expected}, got `{found}`")]
    Expected {
        /// The format.
        expected: String,
        /// The start of the line.
        found: String,
    },
    /// The file holds no line at all.
    #[error("the file is empty")]
    Empty,
    /// A blank line that is not at the end of the file.
    #[error("blank line inside the file")]
    Blank,
    /// A line that is longer than any line of a real file could be.
    #[error("the line is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8 at byte {column} of the line")]
    InvalidUtf8 {
        /// The first bad byte of the line, from 1.
        column: usize,
    },
    /// The line does not start with an id.
    #[error("missing line id: expected `ID TEXT`, got `{text}`")]
    MissingId {
        /// The start of the line.
        text: String,
    },
    /// The id is not a number of at least 1.
    #[error("the line id `{id}` is not a number of at least 1")]
    BadId {
        /// The id.
        id: String,
    },
    /// The ids of a story do not count 1, 2, 3, …
    #[error("line id {found}, expected {}", expected_ids(*expected))]
    IdNotConsecutive {
        /// The id that continues the story (1 where no story has begun).
        expected: u32,
        /// The id of the line.
        found: u32,
    },
    /// Nothing, or nothing but punctuation, where a text should be.
    #[error("no words in the {what}")]
    NoWords {
        /// `statement` or `question`.
        what: &'static str,
    },
    /// A line without TAB, thus a statement, that does not end with a full stop.
    #[error("the statement does not end with a full stop: `{text}`")]
    MissingFullStop {
        /// The statement.
        text: String,
    },
    /// A question mark at the end, but no TAB and answer after it.
    #[error("question without answer: expected `ID QUESTION TAB ANSWER TAB IDS`, got `{text}`")]
    MissingAnswer {
        /// The question.
        text: String,
    },
    /// A line with TABs, thus a question, whose first field does not end with a question mark.
    #[error("the question does not end with a question mark: `{text}`")]
    MissingQuestionMark {
        /// The question.
        text: String,
    },
    /// A question line that does not have three fields.
    #[error("{found} TAB-separated fields, expected 3: question, answer, supporting line ids")]
    FieldCount {
        /// How many fields it has.
        found: usize,
    },
    /// The answer field is empty.
    #[error("empty answer")]
    EmptyAnswer,
    /// The answer is not a word or a list joined by commas.
    #[error("bad answer `{answer}`: expected one word, or words joined by commas without blanks")]
    BadAnswer {
        /// The answer.
        answer: String,
    },
    /// A supporting line id is not a number.
    #[error("the supporting line id `{id}` is not a number")]
    BadSupport {
        /// The id.
        id: String,
    },
    /// A supporting line id names no statement before the question in its story.
    #[error("supporting line id {id} is not an earlier statement of the story")]
    SupportNotAStatement {
        /// The id.
        id: u32,
    },
}

fn expected_ids(next: u32) -> String {
    if next == 1 { "1".into() } else { format!("{next}, or 1 for a new story") }
}

fn list_or<T: fmt::Display>(items: &[T], none: &str) -> String {
    const SHOWN: usize = 10;
    if items.is_empty() {
        return none.into();
    }
    let mut text = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}
