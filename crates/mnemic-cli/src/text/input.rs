//! The texts that a command is given.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The texts of the arguments, else the lines of the file, else those of standard input. Empty lines are passed over.
///
/// # Errors
/// When there is no text, or what should hold it cannot be read.
pub(crate) fn texts(given: &[String], file: Option<&Path>) -> Result<Vec<String>> {
    let (place, lines) = match (file, given) {
        (Some(path), _) => {
            let place = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| place.clone())?;
            (place, lines(&text))
        }
        (None, []) => {
            let mut stdin = std::io::stdin();
            if stdin.is_terminal() {
                eprintln!("one text a line; end with Ctrl-D");
            }
            let mut text = String::new();
            stdin.read_to_string(&mut text).context("standard input")?;
            ("standard input".to_string(), lines(&text))
        }
        (None, given) => {
            let blank = |text: &&String| text.trim().is_empty();
            if given.iter().any(|text| blank(&text)) {
                bail!("arguments: expected texts, got an empty one");
            }
            ("arguments".to_string(), given.to_vec())
        }
    };
    if lines.is_empty() {
        bail!("{place}: expected at least one text");
    }
    Ok(lines)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.trim().is_empty()).map(String::from).collect()
}
