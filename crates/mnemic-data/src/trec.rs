//! TREC question classification: X. Li, D. Roth, "Learning Question Classifiers", COLING 2002.
//!
//! Files `TREC.train` and `TREC.test` (plain or `.gz`, ISO-8859-1): a line is `COARSE:fine WORDS…`. 5,452 questions to train on, 500 to test;
//! no part is published for choosing settings, so that one is the last tenth of the training part.

use std::path::Path;

use crate::error::{Error, Result};
use crate::labelled::{LabelledText, Part};
use crate::lines::{Encoding, malformed, read_lines};

/// The six coarse classes.
pub const LABELS: [&str; 6] = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"];

/// The questions of a part of the set in `folder`, with their coarse classes.
///
/// # Errors
/// When the file is missing or a line does not follow the format.
pub fn read(folder: impl AsRef<Path>, part: Part) -> Result<Vec<LabelledText>> {
    let name = if part == Part::Test { "TREC.test" } else { "TREC.train" };
    let text = read_lines(folder.as_ref(), name, Encoding::Latin1)?;
    let line = |(i, line): (usize, &String)| {
        parse(line).ok_or_else(|| {
            let expected = format!("`COARSE:fine WORDS…` with a class of {}", LABELS.join(", "));
            malformed(&text.file, i + 1, &expected, line)
        })
    };
    let mut all: Vec<LabelledText> =
        text.lines.iter().enumerate().map(line).collect::<Result<_>>()?;
    let keep = all.len() - all.len() / 10;
    match part {
        Part::Train => all.truncate(keep),
        Part::Dev => drop(all.drain(..keep)),
        Part::Test => {}
    }
    match all.is_empty() {
        true => Err(Error::argument("folder", format!("{} holds no questions", text.file))),
        false => Ok(all),
    }
}

fn parse(line: &str) -> Option<LabelledText> {
    let (class, text) = line.split_once(' ')?;
    let (coarse, _) = class.split_once(':')?;
    let label = LABELS.iter().position(|l| *l == coarse)?;
    let text = text.trim();
    (!text.is_empty()).then(|| LabelledText { text: text.into(), label })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_wrong_ones_are_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let lines = "LOC:city Where is \u{e9}toile ?\n".repeat(10);
        let latin: Vec<u8> = lines.chars().map(|c| c as u8).collect();
        std::fs::write(dir.path().join("TREC.train"), latin).unwrap();
        let train = read(dir.path(), Part::Train).unwrap();
        assert_eq!((train.len(), read(dir.path(), Part::Dev).unwrap().len()), (9, 1));
        assert_eq!(train[0], LabelledText { text: "Where is \u{e9}toile ?".into(), label: 4 });

        std::fs::write(dir.path().join("TREC.test"), "NUM:date When ?\nWHO:x Who ?\n").unwrap();
        let error = read(dir.path(), Part::Test).unwrap_err().to_string();
        assert!(error.contains("TREC.test, line 2") && error.contains("WHO:x"), "{error}");
        std::fs::remove_file(dir.path().join("TREC.test")).unwrap();
        let error = read(dir.path(), Part::Test).unwrap_err().to_string();
        assert!(error.contains("TREC.test"), "{error}");
    }
}
