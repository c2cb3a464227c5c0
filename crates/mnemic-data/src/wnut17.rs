//! WNUT-17, novel and emerging entities: L. Derczynski et al., W-NUT 2017.
//!
//! Files `wnut17train.conll`, `emerging.dev.conll` and `emerging.test.annotated` (plain or `.gz`): a line is `TOKEN TAB TAG`, a blank line ends a
//! sentence. Tags are `O`, and `B-` and `I-` with one of six types. 3,394, 1,009 and 1,287 sentences.

use std::path::Path;

use crate::error::{Error, Result};
use crate::labelled::Part;
use crate::lines::{Encoding, malformed, read_lines};

/// The tags; a [`TaggedSentence`] has their numbers.
pub const LABELS: [&str; 13] = [
    "O",
    "B-corporation",
    "I-corporation",
    "B-creative-work",
    "I-creative-work",
    "B-group",
    "I-group",
    "B-location",
    "I-location",
    "B-person",
    "I-person",
    "B-product",
    "I-product",
];

/// Words, and a tag for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaggedSentence {
    /// The words.
    pub words: Vec<String>,
    /// Their tags, as indices into the set's `LABELS`.
    pub tags: Vec<usize>,
}

/// The sentences of a part of the set in `folder`.
///
/// # Errors
/// When the file is missing or a line does not follow the format.
pub fn read(folder: impl AsRef<Path>, part: Part) -> Result<Vec<TaggedSentence>> {
    let name = match part {
        Part::Train => "wnut17train.conll",
        Part::Dev => "emerging.dev.conll",
        Part::Test => "emerging.test.annotated",
    };
    let text = read_lines(folder.as_ref(), name, Encoding::Utf8)?;
    let mut sentences = vec![];
    let mut sentence = TaggedSentence::default();
    for (i, line) in text.lines.iter().enumerate() {
        // The training file has lines of a single TAB between sentences.
        if line.trim().is_empty() {
            if !sentence.words.is_empty() {
                sentences.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        let Some((word, tag)) = parse(line) else {
            let expected = "`TOKEN TAB TAG` with a tag of WNUT-17, or a blank line";
            return Err(malformed(&text.file, i + 1, expected, line));
        };
        sentence.words.push(word);
        sentence.tags.push(tag);
    }
    if !sentence.words.is_empty() {
        sentences.push(sentence);
    }
    match sentences.is_empty() {
        true => Err(Error::argument("folder", format!("{} holds no sentences", text.file))),
        false => Ok(sentences),
    }
}

fn parse(line: &str) -> Option<(String, usize)> {
    let (word, tag) = line.split_once('\t')?;
    let tag = LABELS.iter().position(|l| *l == tag)?;
    let word = word.trim();
    (!word.is_empty()).then(|| (word.to_string(), tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_blank_lines_and_wrong_lines_are_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("wnut17train.conll");
        std::fs::write(&path, "\n\nin\tO\nParis\tB-location\n\t\nme\tO").unwrap();
        let sentences = read(dir.path(), Part::Train).unwrap();
        assert_eq!(sentences.len(), 2);
        assert_eq!((&sentences[0].words[1], sentences[0].tags[1]), (&"Paris".to_string(), 7));
        for bad in ["Paris", "Paris\tB-place", "Paris B-location"] {
            std::fs::write(&path, format!("in\tO\n{bad}\n")).unwrap();
            let error = read(dir.path(), Part::Train).unwrap_err().to_string();
            assert!(error.contains("line 2: expected `TOKEN TAB TAG`"), "{error}");
        }
    }
}
