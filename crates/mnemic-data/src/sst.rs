//! The Stanford Sentiment Treebank, whole sentences: R. Socher et al., EMNLP 2013.
//!
//! Files `stsa.binary.{train,dev,test}` and `stsa.fine.{train,dev,test}` (plain or `.gz`): a line is `LABEL WORDS…`. Binary (SST-2): 6,920, 872 and
//! 1,821 sentences; fine (SST-5): 8,544, 1,101 and 2,210.

use std::path::Path;

use crate::error::{Error, Result};
use crate::labelled::{LabelledText, Part};
use crate::lines::{Encoding, malformed, read_lines};

/// The classes of the binary task.
pub const BINARY: [&str; 2] = ["negative", "positive"];

/// The classes of the fine task.
pub const FINE: [&str; 5] = ["very negative", "negative", "neutral", "positive", "very positive"];

/// The sentences of a part of the set in `folder`: with the two classes of [`BINARY`], or the five of [`FINE`].
///
/// # Errors
/// When the file is missing or a line does not follow the format.
pub fn read(folder: impl AsRef<Path>, fine: bool, part: Part) -> Result<Vec<LabelledText>> {
    let (kind, classes) = if fine { ("fine", FINE.len()) } else { ("binary", BINARY.len()) };
    let text = read_lines(folder.as_ref(), &format!("stsa.{kind}.{part}"), Encoding::Utf8)?;
    if text.lines.is_empty() {
        return Err(Error::argument("folder", format!("{} holds no sentences", text.file)));
    }
    let line = |(i, line): (usize, &String)| {
        parse(line, classes).ok_or_else(|| {
            let expected = format!("`LABEL WORDS…` with a label below {classes}");
            malformed(&text.file, i + 1, &expected, line)
        })
    };
    text.lines.iter().enumerate().map(line).collect()
}

fn parse(line: &str, classes: usize) -> Option<LabelledText> {
    let (label, text) = line.split_once(' ')?;
    let label = label.parse().ok().filter(|&label| label < classes)?;
    let text = text.trim();
    (!text.is_empty()).then(|| LabelledText { text: text.into(), label })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_wrong_ones_are_named() {
        let dir = tempfile::TempDir::new().unwrap();
        std::fs::write(dir.path().join("stsa.fine.dev"), "4 a joy .\n1 dull\n").unwrap();
        let read_fine = || read(dir.path(), true, Part::Dev);
        assert_eq!(read_fine().unwrap()[0], LabelledText { text: "a joy .".into(), label: 4 });
        for bad in ["5 a", "x a", "1", "1  "] {
            std::fs::write(dir.path().join("stsa.fine.dev"), format!("0 fine\n{bad}\n")).unwrap();
            let error = read_fine().unwrap_err().to_string();
            assert!(error.contains("line 2: expected `LABEL WORDS…`"), "{error}");
        }
    }
}
