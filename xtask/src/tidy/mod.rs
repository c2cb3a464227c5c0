//! `cargo xtask tidy`: house rules that no compiler checks.
//!
//! The rules are pure functions from texts and paths to findings, so that their tests show each of them firing.

mod files;
mod index;
mod lexer;
mod manifests;
mod paths;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::flags::Args;
use crate::process;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the workspace root.
    path: String,
    /// From 1; 0 when it concerns the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// The text of `cargo xtask tidy --help`.
pub(crate) fn help() -> String {
    "Held over all files that git tracks or would track:\n\n\
     - a crate depends only on what its row of the table in ARCHITECTURE.md names\n\
     - each crate has version, licence, description, lints, README, CHANGELOG, licence texts and an\n\
     \x20 example; internal dev-dependencies carry no version\n\
     - no candle operation that drops gradients, no unseeded randomness, no VarMap in crates/\n\
     - `unsafe` only in mnemic-kernels, each block under a `SAFETY:` comment\n\
     - no todo!, unimplemented!, ignored test or ignored documentation example\n\
     - no Rust file over 700 lines, no file over 3 MB (weights in models/: 5 MB)\n\
     - models/index.toml: known statuses, and every file that a row names exists\n\n\
     A line is excused from the rules on sources by `// tidy-allow: REASON` on it or just above it."
        .into()
}

/// Runs the verb.
pub(crate) fn run(_: Args) -> Result<ExitCode> {
    let clean = check(&process::root()?)?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks all rules and prints the findings; whether there are none.
pub(crate) fn check(root: &Path) -> Result<bool> {
    let files = list_files(root)?;
    let findings = findings(root, &files)?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("tidy: {} files, nothing to mend", files.len()),
        count => println!("tidy: {} files, {count} to mend", files.len()),
    }
    Ok(findings.is_empty())
}

fn findings(root: &Path, files: &BTreeSet<String>) -> Result<BTreeSet<Finding>> {
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
    };
    let mut found = BTreeSet::new();
    for path in files {
        let bytes = std::fs::metadata(root.join(path)).map_or(0, |data| data.len());
        found.extend(files::check_size(path, bytes));
        if path.ends_with(".rs") {
            let text = read(path)?;
            found.extend(files::check_length(path, &text));
            found.extend(source::check(path, &text));
        }
    }
    let architecture = read("ARCHITECTURE.md")?;
    found.extend(manifests::check(&read("Cargo.toml")?, &architecture, files, &read)?);
    found.extend(index::check(&read(index::PATH)?, files));
    Ok(found)
}

/// The files that git tracks or would track; without git, all but those in build folders.
fn list_files(root: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new("git");
    command.current_dir(root);
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut files = BTreeSet::new();
    match command.output() {
        Ok(output) if output.status.success() => {
            let listed = String::from_utf8_lossy(&output.stdout).into_owned();
            let present = |path: &&str| !path.is_empty() && root.join(path).is_file();
            files.extend(listed.split('\0').filter(present).map(str::to_owned));
        }
        _ => walk(root, "", &mut files)?,
    }
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut BTreeSet<String>) -> Result<()> {
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            let built = ["target", ".git", ".venv", "runs", "__pycache__"];
            if !built.contains(&name.as_str()) {
                walk(&entry.path(), &format!("{path}/"), files)?;
            }
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_file_and_line() {
        assert_eq!(Finding::new("a.rs", 3, "bad").to_string(), "a.rs:3: bad");
        assert_eq!(Finding::new("a.rs", 0, "bad").to_string(), "a.rs: bad");
    }

    #[test]
    fn both_ways_of_listing_see_this_file_and_no_build_output() {
        let root = process::root().unwrap();
        let mut walked = BTreeSet::new();
        walk(&root.join("xtask"), "xtask/", &mut walked).unwrap();
        for files in [list_files(&root).unwrap(), walked] {
            assert!(files.contains("xtask/src/tidy/mod.rs"));
            assert!(!files.iter().any(|path| path.starts_with("target/")));
        }
    }
}
