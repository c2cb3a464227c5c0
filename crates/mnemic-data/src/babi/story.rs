//! A story as the official files hold it: numbered lines, some of them questions.

use std::fmt;

/// One line of a story. Line ids are not stored: the `i`-th line (from 0) has id `i + 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A fact, written with its final full stop: `Mary moved to the bathroom.`
    Statement {
        /// The text, without the line id.
        text: String,
    },
    /// A question about the statements before it in the same story.
    Question {
        /// The text with its question mark, trimmed: `Where is Mary?`
        text: String,
        /// The answer. Several values are joined by commas without blanks and count as one class:
        /// `apple,milk`.
        answer: String,
        /// Line ids of the supporting statements, in reasoning order.
        supports: Vec<u32>,
    },
}

/// A story: lines in order, ids counting from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Story {
    /// The lines in order.
    pub lines: Vec<Line>,
}

impl Story {
    /// The number of questions among the lines.
    pub fn num_questions(&self) -> usize {
        self.lines.iter().filter(|l| matches!(l, Line::Question { .. })).count()
    }
}

/// Writes the story in the official format, one `ID text` line each, ending with a line break.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.lines.iter().enumerate() {
            match line {
                Line::Statement { text } => writeln!(f, "{} {text}", i + 1)?,
                Line::Question { text, answer, supports } => {
                    write!(f, "{} {text}\t{answer}\t", i + 1)?;
                    for (k, id) in supports.iter().enumerate() {
                        write!(f, "{}{id}", if k == 0 { "" } else { " " })?;
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}
