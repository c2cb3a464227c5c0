//! The Python that runs the peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// What the peers need, by exact version: a figure is worth nothing without it.
pub(super) const PEER_PACKAGES: &[&str] = &[
    "torch==2.15.0",
    "transformers==5.24.0",
    "sentence-transformers==6.2.0",
    "onnxruntime==1.32.0",
    "onnxscript==0.7.2",
    "numpy",
];

/// A Python that has the peers' packages already, instead of `.venv`.
pub(crate) const PYTHON: &str = "MNEMIC_PYTHON";

/// The Python that [`PYTHON`] names, or that of `.venv`.
pub(crate) fn interpreter(root: &Path) -> Result<PathBuf> {
    match std::env::var_os(PYTHON).filter(|value| !value.is_empty()) {
        Some(python) => Ok(PathBuf::from(python)),
        None => virtual_environment(root),
    }
}

/// The Python of `.venv`, which is made or brought up to date first. A stamp says what is in it, so that an
/// interrupted installation is taken up again.
fn virtual_environment(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = folder.join("mnemic-peers.txt");
    let wanted = PEER_PACKAGES.join("\n");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    eprintln!("Setting up .venv with {} (once; some minutes)", PEER_PACKAGES.join(", "));
    let base = if cfg!(windows) { "python" } else { "python3" };
    process::succeed(Command::new(base).args(["-m", "venv"]).arg(&folder))
        .context("the peers need Python 3 with its module `venv`")?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    process::succeed(Command::new(&python).args(install).args(PEER_PACKAGES))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
