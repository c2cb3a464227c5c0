//! Commands on text and checkpoints of Hugging Face's layout.

mod write;

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use anyhow::{Context, Result, bail};

pub(crate) use write::{generate, translate};

/// The texts of a command: its arguments, else the lines of a file, else those of standard input. Empty lines of files are left out.
fn texts(arguments: &[String], file: Option<&Path>) -> Result<Vec<String>> {
    if !arguments.is_empty() {
        return Ok(arguments.to_vec());
    }
    let (place, lines): (String, Vec<String>) = match file {
        Some(path) => {
            let place = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| place.clone())?;
            (place, text.lines().map(str::to_string).collect())
        }
        None => {
            let input = std::io::stdin();
            if input.is_terminal() {
                eprintln!("one text a line; Ctrl-D ends");
            }
            let lines = input.lock().lines().collect::<std::io::Result<_>>();
            ("standard input".to_string(), lines.context("standard input")?)
        }
    };
    let lines: Vec<String> = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        bail!("{place}: expected at least one line of text");
    }
    Ok(lines)
}
