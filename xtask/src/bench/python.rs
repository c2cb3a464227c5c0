//! The Python that runs the peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// What the peers need, by exact version: a figure is worth nothing without it.
pub(super) const PEER_PACKAGES: &[&str] = &["torch==2.15.0", "numpy"];

/// A Python that has the peers' packages already, instead of `.venv`.
pub(super) const PYTHON: &str = "MNEMIC_PYTHON";

/// The Python that [`PYTHON`] names, or that of `.venv`.
pub(super) fn interpreter(root: &Path) -> Result<PathBuf> {
    interpreter_with(root, &[])
}

/// [`interpreter`] with further packages, by exact version.
pub(super) fn interpreter_with(root: &Path, further: &[&str]) -> Result<PathBuf> {
    match std::env::var_os(PYTHON).filter(|value| !value.is_empty()) {
        Some(python) => Ok(PathBuf::from(python)),
        None => virtual_environment(root, &[PEER_PACKAGES, further].concat()),
    }
}

/// The Python of `.venv`, which is made or brought up to date first. A stamp says what is in it, so that an
/// interrupted installation is taken up again.
fn virtual_environment(root: &Path, packages: &[&str]) -> Result<PathBuf> {
    let folder = root.join(".venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = folder.join("mnemic-peers.txt");
    let found = std::fs::read_to_string(&stamp).unwrap_or_default();
    let found: Vec<&str> = found.lines().collect();
    let wanted: Vec<&str> = packages.iter().copied().filter(|p| !found.contains(p)).collect();
    if python.exists() && wanted.is_empty() {
        return Ok(python);
    }
    eprintln!("Setting up .venv with {} (once; some minutes)", wanted.join(", "));
    let base = if cfg!(windows) { "python" } else { "python3" };
    process::succeed(Command::new(base).args(["-m", "venv"]).arg(&folder))
        .context("the peers need Python 3 with its module `venv`")?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    process::succeed(Command::new(&python).args(install).args(&wanted))?;
    let all = [found.as_slice(), wanted.as_slice()].concat().join("\n");
    std::fs::write(&stamp, all).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
