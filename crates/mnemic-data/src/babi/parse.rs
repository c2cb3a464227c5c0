//! The strict parser of the official file format.

use std::io::{BufRead, Read};
use std::path::Path;

use super::story::{Line, Story};
use super::tokenize;
use crate::error::LineError;
use crate::{Error, Result};

/// Real lines stay below 200 bytes; a limit keeps a file without line breaks out of memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Parses a bAbI file. `name` is what errors call the file.
///
/// Each line is `ID TEXT`; ids count from 1, and id 1 begins a new story. A statement ends with a
/// full stop; a question is `TEXT? TAB ANSWER TAB IDS`, where `IDS` are the line ids of the
/// supporting statements with blanks between them (the field may be empty). Lines may end in LF or
/// CRLF, and blank lines may follow the last line.
///
/// # Errors
/// [`Error::Malformed`] with file, line and reason for the first line that breaks a rule, and
/// [`Error::Io`] if reading fails.
///
/// ```
/// let file = "1 Mary moved to the bathroom.\n2 Where is Mary? \tbathroom\t1\n";
/// let stories = mnemic_data::babi::parse_stories("demo.txt", file.as_bytes())?;
/// assert_eq!(stories[0].num_questions(), 1);
///
/// let error = mnemic_data::babi::parse_stories("demo.txt", &b"1 Mary moved"[..]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "demo.txt, line 1: the statement does not end with a full stop: `Mary moved`"
/// );
/// # Ok::<(), mnemic_data::Error>(())
/// ```
pub fn parse_stories(name: &str, mut reader: impl BufRead) -> Result<Vec<Story>> {
    let malformed = |line, reason| Error::Malformed { file: name.into(), line, reason };
    let mut stories: Vec<Story> = Vec::new();
    let mut blank = None;
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut bytes);
        if read.map_err(|e| Error::io(Path::new(name), e))? == 0 {
            break;
        }
        let text = line_text(&bytes, line).map_err(|reason| malformed(line, reason))?;
        if text.trim().is_empty() {
            blank.get_or_insert(line);
        } else if let Some(blank) = blank {
            return Err(malformed(blank, LineError::Blank));
        } else {
            add_line(&mut stories, text).map_err(|reason| malformed(line, reason))?;
        }
    }
    if stories.is_empty() { Err(malformed(1, LineError::Empty)) } else { Ok(stories) }
}

/// The line without its line break, and the first line without a byte order mark.
fn line_text(bytes: &[u8], line: usize) -> Result<&str, LineError> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.len() > MAX_LINE_BYTES {
        return Err(LineError::TooLong { limit: MAX_LINE_BYTES });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| LineError::InvalidUtf8 { column: e.valid_up_to() + 1 })?;
    Ok(if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text })
}

/// Adds a line to the last story, or begins a new one.
fn add_line(stories: &mut Vec<Story>, text: &str) -> Result<(), LineError> {
    let (id, body) = split_id(text)?;
    if id == 1 {
        let line = parse_body(body, &[])?;
        stories.push(Story { lines: vec![line] });
        return Ok(());
    }
    let Some(story) = stories.last_mut() else {
        return Err(LineError::IdNotConsecutive { expected: 1, found: id });
    };
    let expected = u32::try_from(story.lines.len()).map_or(u32::MAX, |n| n.saturating_add(1));
    if id != expected {
        return Err(LineError::IdNotConsecutive { expected, found: id });
    }
    let line = parse_body(body, &story.lines)?;
    story.lines.push(line);
    Ok(())
}

fn split_id(text: &str) -> Result<(u32, &str), LineError> {
    let (token, body) = text.split_once(' ').unwrap_or((text, ""));
    match token.parse::<u32>() {
        Ok(id) if id > 0 && !token.starts_with('+') => Ok((id, body)),
        _ if token.contains(|c: char| c.is_ascii_digit()) => {
            Err(LineError::BadId { id: start_of(token) })
        }
        _ => Err(LineError::MissingId { text: start_of(text) }),
    }
}

/// Parses what follows the id; `earlier` are the lines before it in its story.
fn parse_body(body: &str, earlier: &[Line]) -> Result<Line, LineError> {
    if body.contains('\t') {
        return parse_question(body, earlier);
    }
    let text = body.trim();
    if text.ends_with('?') {
        return Err(LineError::MissingAnswer { text: start_of(text) });
    }
    if tokenize(text).is_empty() {
        return Err(LineError::NoWords { what: "statement" });
    }
    if !text.ends_with('.') {
        return Err(LineError::MissingFullStop { text: start_of(text) });
    }
    Ok(Line::Statement { text: text.into() })
}

fn parse_question(body: &str, earlier: &[Line]) -> Result<Line, LineError> {
    let fields: Vec<&str> = body.split('\t').map(str::trim).collect();
    let &[text, answer, supports] = fields.as_slice() else {
        return Err(LineError::FieldCount { found: fields.len() });
    };
    if tokenize(text).is_empty() {
        return Err(LineError::NoWords { what: "question" });
    }
    if !text.ends_with('?') {
        return Err(LineError::MissingQuestionMark { text: start_of(text) });
    }
    if answer.is_empty() {
        return Err(LineError::EmptyAnswer);
    }
    if answer.contains(char::is_whitespace) || answer.split(',').any(str::is_empty) {
        return Err(LineError::BadAnswer { answer: start_of(answer) });
    }
    let supports = supports
        .split_whitespace()
        .map(|token| {
            let id: u32 =
                token.parse().map_err(|_| LineError::BadSupport { id: start_of(token) })?;
            let line = id.checked_sub(1).and_then(|i| earlier.get(i as usize));
            match line {
                Some(Line::Statement { .. }) => Ok(id),
                _ => Err(LineError::SupportNotAStatement { id }),
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Line::Question { text: text.into(), answer: answer.into(), supports })
}

/// Enough of a text to recognise it in an error.
fn start_of(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "1 Mary moved to the bathroom.\n2 John went to the hallway.\n\
                         3 Where is Mary? \tbathroom\t1\n4 Bill took the apple there.\n\
                         5 What is Bill carrying?\tapple,milk\t4 2\n1 Mary left.\n";

    fn parse(text: impl AsRef<[u8]>) -> Result<Vec<Story>> {
        parse_stories("f.txt", text.as_ref())
    }

    fn rejected(text: impl AsRef<[u8]>) -> (usize, LineError) {
        match parse(text) {
            Err(Error::Malformed { file, line, reason }) => {
                assert_eq!(file, "f.txt");
                (line, reason)
            }
            other => panic!("expected a malformed line, got {other:?}"),
        }
    }

    #[test]
    fn reads_statements_and_questions() {
        let stories = parse(STORY).unwrap();
        assert_eq!(stories.len(), 2);
        assert_eq!(stories[0].lines.len(), 5);
        assert_eq!(
            stories[0].lines[4],
            Line::Question {
                text: "What is Bill carrying?".into(),
                answer: "apple,milk".into(),
                supports: vec![4, 2]
            }
        );
        let written: String = stories.iter().map(Story::to_string).collect();
        assert_eq!(written, STORY.replace("? \t", "?\t"));
        assert_eq!(parse(written).unwrap(), stories);
    }

    #[test]
    fn accepts_crlf_trailing_blank_lines_and_no_last_line_break() {
        let expected = parse(STORY).unwrap();
        assert_eq!(parse(STORY.replace('\n', "\r\n")).unwrap(), expected);
        assert_eq!(parse(format!("{STORY}\n \r\n\n")).unwrap(), expected);
        assert_eq!(parse(STORY.trim_end()).unwrap(), expected);
        assert_eq!(parse(format!("\u{feff}{STORY}")).unwrap(), expected);
    }

    #[test]
    fn an_empty_support_field_is_allowed() {
        let stories = parse("1 It rains.\n2 Is it dry?\tno\t\n").unwrap();
        assert_eq!(
            stories[0].lines[1],
            Line::Question { text: "Is it dry?".into(), answer: "no".into(), supports: vec![] }
        );
    }

    #[test]
    fn every_bad_line_has_its_reason() {
        use LineError::*;
        let id = |expected, found| IdNotConsecutive { expected, found };
        let cases: Vec<(&str, usize, LineError)> = vec![
            ("", 1, Empty),
            ("\n\n", 1, Empty),
            ("\n1 It rains.\n", 1, Blank),
            ("1 It rains.\n\n\n2 It snows.\n", 2, Blank),
            ("It rains.\n", 1, MissingId { text: "It rains.".into() }),
            (" 1 It rains.\n", 1, MissingId { text: " 1 It rains.".into() }),
            ("1 It rains.\nx2 It snows.\n", 2, BadId { id: "x2".into() }),
            ("0 It rains.\n", 1, BadId { id: "0".into() }),
            ("+1 It rains.\n", 1, BadId { id: "+1".into() }),
            ("1: It rains.\n", 1, BadId { id: "1:".into() }),
            ("99999999999 It rains.\n", 1, BadId { id: "99999999999".into() }),
            ("2 It rains.\n", 1, id(1, 2)),
            ("1 It rains.\n3 It snows.\n", 2, id(2, 3)),
            ("1 It rains.\n2 It snows.\n2 It hails.\n", 3, id(3, 2)),
            ("1\n", 1, NoWords { what: "statement" }),
            ("1 .\n", 1, NoWords { what: "statement" }),
            ("1 It rains\n", 1, MissingFullStop { text: "It rains".into() }),
            ("1 Is it dry?\n", 1, MissingAnswer { text: "Is it dry?".into() }),
            ("1 ?\tno\t\n", 1, NoWords { what: "question" }),
            (
                "1 It rains.\n2 Is it dry\tno\t1\n",
                2,
                MissingQuestionMark { text: "Is it dry".into() },
            ),
            ("1 It rains.\n2 Is it dry?\tno\n", 2, FieldCount { found: 2 }),
            ("1 It rains.\n2 Is it dry?\tno\t1\t\n", 2, FieldCount { found: 4 }),
            ("1 It rains.\n2 Is it dry? \t\t1\n", 2, EmptyAnswer),
            ("1 It rains.\n2 Is it dry?\tno way\t1\n", 2, BadAnswer { answer: "no way".into() }),
            ("1 It rains.\n2 Is it dry?\ta,,b\t1\n", 2, BadAnswer { answer: "a,,b".into() }),
            ("1 It rains.\n2 Is it dry?\tno\t1,1\n", 2, BadSupport { id: "1,1".into() }),
            ("1 It rains.\n2 Is it dry?\tno\t-1\n", 2, BadSupport { id: "-1".into() }),
            ("1 It rains.\n2 Is it dry?\tno\t0\n", 2, SupportNotAStatement { id: 0 }),
            ("1 It rains.\n2 Is it dry?\tno\t2\n", 2, SupportNotAStatement { id: 2 }),
            ("1 It rains.\n2 Is it dry?\tno\t3\n3 No.\n", 2, SupportNotAStatement { id: 3 }),
            (
                "1 It rains.\n2 Is it dry?\tno\t1\n3 Is it wet?\tyes\t2\n",
                3,
                SupportNotAStatement { id: 2 },
            ),
            // The first story's statement 2 is no statement of the second story.
            ("1 A.\n2 B.\n1 C.\n2 Is it?\tno\t2\n", 4, SupportNotAStatement { id: 2 }),
        ];
        for (text, line, reason) in cases {
            assert_eq!(rejected(text), (line, reason), "{text:?}");
        }
    }

    #[test]
    fn bad_bytes_and_endless_lines_are_named() {
        let (line, reason) = rejected(b"1 It rains.\n2 It \xff snows.\n");
        assert_eq!((line, reason), (2, LineError::InvalidUtf8 { column: 6 }));
        let (line, reason) = rejected(format!("1 {}.\n", "a".repeat(MAX_LINE_BYTES)));
        assert_eq!((line, reason), (1, LineError::TooLong { limit: MAX_LINE_BYTES }));
    }
}
