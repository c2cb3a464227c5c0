//! Text files, plain or compressed, line by line.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, LineError, Result};

/// The most bytes of text that a file may have: far above any file of these sets, so that a hostile archive ends here.
const MOST: u64 = 1 << 30;

/// How the bytes of a file become text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Encoding {
    Utf8,
    /// ISO-8859-1: every byte is the character of that number.
    Latin1,
}

/// The lines of `folder/name`, or of `folder/name.gz`, without their ends.
///
/// # Errors
/// When neither can be read, or a line is not in the encoding.
pub(crate) fn read_lines(folder: &Path, name: &str, encoding: Encoding) -> Result<TextFile> {
    let plain = folder.join(name);
    let packed = folder.join(format!("{name}.gz"));
    let path = if plain.exists() || !packed.exists() { plain } else { packed };
    let bytes = read(&path).map_err(|e| Error::io(&path, e))?;
    let file = path.display().to_string();
    let mut lines = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        lines.push(match encoding {
            Encoding::Latin1 => line.iter().map(|&b| char::from(b)).collect(),
            Encoding::Utf8 => String::from_utf8(line.to_vec())
                .map_err(|_| malformed(&file, i + 1, "UTF-8", &String::from_utf8_lossy(line)))?,
        });
    }
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Ok(TextFile { file, lines })
}

/// The lines of a file, and how errors call it.
pub(crate) struct TextFile {
    pub(crate) file: String,
    pub(crate) lines: Vec<String>,
}

/// An error about a line, counted from 1.
pub(crate) fn malformed(file: &str, line: usize, expected: &str, found: &str) -> Error {
    let found = found.chars().take(60).collect();
    let reason = LineError::Expected { expected: expected.into(), found };
    Error::Malformed { file: file.into(), line, reason }
}

fn read(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    match path.extension().is_some_and(|e| e == "gz") {
        true => MultiGzDecoder::new(file).take(MOST + 1).read_to_end(&mut bytes)?,
        false => file.take(MOST + 1).read_to_end(&mut bytes)?,
    };
    match bytes.len() as u64 > MOST {
        true => Err(std::io::Error::other(format!("more than {MOST} bytes of text"))),
        false => Ok(bytes),
    }
}
